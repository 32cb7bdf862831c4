//! Everything the core knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_nodeagent_api::{
    ContainerResources, Generation, NetworkCounters, NodeConfig, NodeStatus, PodConfig, PodDesired, PodUid,
    RunEnd, VolumeFile, WaitingReason,
};
use gantry_topology::CpuSet;

use super::backoff::Backoff;
use super::end::Verdict;
use super::probes::Probes;
use super::{Bounds, Ledger, Limits, RequestId, Run};

/// The core's state: the ledger, what was observed, and what is under way.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) ledger: Ledger,
    pub(super) started: bool,
    pub(super) saving: Option<Saving>,
    pub(super) save_backoff: Backoff,
    pub(super) ledger_dirty: bool,
    pub(super) incoming: Option<Box<NodeConfig>>,
    pub(super) pods: BTreeMap<PodUid, Pod>,
    pub(super) disk: super::storage::Disk,
    pub(super) claims: super::claims::Claims,
    /// What is wrong with pods of the accepted configuration.
    pub(super) faults: BTreeMap<PodUid, String>,
    pub(super) network: Network,
    pub(super) counters: NetworkCounters,
    /// The newest generation that was seen in force.
    pub(super) applied: Generation,
    pub(super) last_status: Option<NodeStatus>,
    pub(super) last_status_ms: u64,
    pub(super) status_due: bool,
    pub(super) last_id: RequestId,
    pub(super) wake_ms: Option<u64>,
    pub(super) eager: bool,
}

/// A ledger on its way to the disk.
#[derive(Clone, Debug)]
pub(super) struct Saving {
    pub(super) id: RequestId,
    pub(super) ledger: Box<Ledger>,
}

/// The node's network.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// Generation whose services and names are in force.
    pub(super) synced: Option<Generation>,
    pub(super) under_way: Option<(RequestId, Generation)>,
    pub(super) backoff: Backoff,
    pub(super) message: String,
    /// What is left out of that generation.
    pub(super) faults: super::NetworkFaults,
    /// A pod that something is behind has come or gone since.
    pub(super) stale: bool,
}

/// One pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Pod {
    /// `None`: found on the node, and no configuration knows it.
    pub(super) config: Option<Arc<PodConfig>>,
    /// Once true it stays so until the pod is gone.
    pub(super) stopping: bool,
    /// Root file systems, volumes, network and shim are there.
    pub(super) prepared: bool,
    /// It has ended for good. Looked at anew in each step, until it is released.
    pub(super) over: Option<Verdict>,
    /// Why the node has evicted it, if it has: it ends, and never runs again.
    pub(super) evicted: Option<String>,
    /// What it has left on the disk, as last counted.
    pub(super) usage: Option<super::PodUsage>,
    /// When all its containers have to have ended, once they were told; milliseconds since the Unix epoch.
    pub(super) end_at_ms: Option<u64>,
    /// It has ended, and nothing is left but its logs and records.
    pub(super) released: bool,
    /// Whose files (ConfigMaps, Secrets) were written last; `None`: a former agent did it.
    pub(super) files_of: Option<Arc<PodConfig>>,
    /// Of writing new files of a pod that runs.
    pub(super) files_backoff: Backoff,
    /// Anything may be on the node.
    pub(super) touched: bool,
    pub(super) under_way: Option<(RequestId, UnderWay)>,
    /// Of prepare, release and teardown.
    pub(super) backoff: Backoff,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) message: String,
    pub(super) sessions: super::sessions::Sessions,
    pub(super) troubles: super::troubles::Troubles,
}

/// What an answer is awaited to.
#[derive(Clone, Debug)]
pub(super) enum UnderWay {
    Prepare { config: Arc<PodConfig> },
    Apply { container: String, bounds: Bounds },
    Start { container: String },
    Signal { containers: Vec<String>, kill: bool },
    Release,
    Teardown,
}

/// One container.
#[derive(Clone, Debug, Default)]
pub(super) struct Container {
    pub(super) run: Option<Run>,
    /// The run's end was concluded from the silence of its shim: what the shim says after all counts more.
    pub(super) presumed: bool,
    /// Its last run was before the pod was last set up from the ground: an init container has to run again.
    pub(super) outdated: bool,
    /// How the run before it ended.
    pub(super) before: Option<RunEnd>,
    /// The highest number given to a run.
    pub(super) last_attempt: Option<u32>,
    /// What surely is in force; `None`: no cgroup, or unknown after a failure.
    pub(super) in_force: Option<Limits>,
    /// Memory that it was promised and may still use, in bytes.
    pub(super) promised_bytes: Option<u64>,
    /// NUMA nodes whose memory it may use, as last put in force; `None`: unknown.
    pub(super) numa_nodes: Option<Vec<u32>>,
    pub(super) owned: Owned,
    /// It is to run in the shared pool, and what a former agent left it on is taken as its own until it does: nobody else gets
    /// that, and nobody is told that it has it.
    pub(super) guessed: bool,
    pub(super) memory_refused: Option<MemoryRefused>,
    pub(super) restart: Backoff,
    pub(super) ending: Option<Ending>,
    /// Of the hook after its start.
    pub(super) post_start: HookState,
    /// Of its files.
    pub(super) reload: super::reload::Reload,
    pub(super) probes: Probes,
    pub(super) image_id: String,
    /// Why its limits are not as wanted.
    pub(super) limits_message: String,
    /// Why it does not run.
    pub(super) message: String,
    /// The same in one word, if it could not be made.
    pub(super) trouble: Option<WaitingReason>,
    /// What it waits for before its limits can be put in force.
    pub(super) cpu_message: String,
}

/// Limits of memory and hugepages below what is in use.
#[derive(Clone, Debug)]
pub(super) struct MemoryRefused {
    pub(super) memory_bytes: u64,
    pub(super) hugepages: BTreeMap<u64, u64>,
    /// When to try again.
    pub(super) retry_ms: u64,
}

impl MemoryRefused {
    pub(super) fn is(&self, resources: &ContainerResources) -> bool {
        self.memory_bytes == resources.memory_bytes && self.hugepages == resources.hugepages
    }
}

/// CPUs that a container may be running on at this moment: while a change is under way, before and after together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) exclusive: CpuSet,
    pub(super) shared: CpuSet,
}

/// How far a hook is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum HookState {
    #[default]
    Due,
    UnderWay(RequestId),
    /// Done, failed, or given up.
    Done,
}

/// A container that was told to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) kill_at_ms: u64,
    /// Of the hook before SIGTERM.
    pub(super) pre_stop: HookState,
    pub(super) term_sent: bool,
    pub(super) kill_sent: bool,
    pub(super) resend_ms: u64,
}

impl Pod {
    /// The content of its files is that of its configuration.
    pub(super) fn files_in_force(&self, config: &PodConfig) -> bool {
        match &self.files_of {
            Some(written) => files(written).eq(files(config)),
            None => files(config).next().is_none(),
        }
    }
}

fn files(config: &PodConfig) -> impl Iterator<Item = (&String, &BTreeMap<String, VolumeFile>)> {
    let volumes = config.volumes.iter();
    volumes.filter_map(|(name, volume)| Some((name, volume.files()?)))
}

impl Container {
    pub(super) fn running(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.exit.is_none())
    }

    /// It has run since the pod was last set up from the ground.
    pub(super) fn has_run(&self) -> bool {
        self.run.is_some() && !self.outdated
    }

    /// Its cgroup may be gone, or have other limits: they are put in force before the next start.
    pub(super) fn forget_limits(&mut self) {
        self.in_force = None;
        self.numa_nodes = None;
    }
}

impl State {
    /// A core that remembers `ledger` (default: nothing) and waits for [`super::Event::Start`].
    pub fn new(ledger: Ledger) -> Self {
        Self {
            claims: super::claims::Claims::of(&ledger),
            ledger,
            ..Self::default()
        }
    }

    /// Starts what has ended at once, however often: so that a test can show what waiting is for.
    pub fn without_back_off(mut self) -> Self {
        self.eager = true;
        self
    }

    /// The newest accepted generation.
    pub fn accepted(&self) -> Generation {
        self.ledger.config.generation
    }

    /// The accepted configuration.
    pub fn config(&self) -> &NodeConfig {
        &self.ledger.config
    }

    /// When [`super::step`] wants to be called with [`super::Event::Tick`] at the latest, milliseconds since the Unix epoch.
    pub fn wake_ms(&self) -> Option<u64> {
        self.wake_ms
    }

    /// Exclusive CPUs and shared CPUs that each container may be running on at this moment, by pod and container.
    /// No CPU is ever exclusive to one and in another's set: the simulation's oracle.
    pub fn cpu_owners(&self) -> impl Iterator<Item = (&str, &str, &CpuSet, &CpuSet)> {
        self.pods.iter().flat_map(|(uid, pod)| {
            pod.containers
                .iter()
                .map(|(name, c)| (uid.as_str(), name.as_str(), &c.owned.exclusive, &c.owned.shared))
        })
    }

    /// Nothing is under way and nothing is left to be done but waiting for events and timers of running pods.
    pub fn settled(&self) -> bool {
        self.started
            && self.saving.is_none()
            && self.network.under_way.is_none()
            && self.applied == self.accepted()
            && self
                .pods
                .values()
                .all(|pod| !pod.stopping && pod.under_way.is_none() && (pod.prepared || pod.released))
            && self
                .pods
                .values()
                .filter(|pod| !pod.released)
                .flat_map(|p| p.containers.values())
                .all(|c| c.run.is_some())
    }

    pub(super) fn next_id(&mut self) -> RequestId {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn wake_at(&mut self, at_ms: u64) {
        self.wake_ms = Some(self.wake_ms.map_or(at_ms, |w| w.min(at_ms)));
    }

    /// Whether the accepted configuration wants it to run. One whose part makes no sense never starts, but what runs stays.
    pub(super) fn wants(&self, uid: &str) -> bool {
        let wanted = self.ledger.config.pods.get(uid);
        let is_there = || self.pods.get(uid).is_some_and(|pod| pod.touched);
        wanted.is_some_and(|pod| pod.desired == PodDesired::Run)
            && (!self.faults.contains_key(uid) || is_there())
    }

    /// Uids that the accepted configuration wants to have ended, with their logs and records kept.
    pub(super) fn keeps(&self, uid: &str) -> bool {
        self.ledger
            .config
            .pods
            .get(uid)
            .is_some_and(|pod| pod.desired == PodDesired::Keep)
    }

    pub(super) fn uids(&self) -> BTreeSet<PodUid> {
        self.pods.keys().cloned().collect()
    }
}
