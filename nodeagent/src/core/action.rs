//! What the core asks the shell to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use gantry_nodeagent_api::{
    ClaimId, ContainerResources, Generation, Hook, NodeNetwork, NodeStatus, PodConfig, PodUid, Probe,
    Refused, ServiceConfig, SessionProbe, SrvTarget,
};
use gantry_topology::CpuSet;
use ipnet::Ipv4Net;

use super::Ledger;

/// Number of a request; its answer carries it again. Answers to requests that nobody waits for are ignored.
pub type RequestId = u64;

/// One thing to do. Every action is idempotent; there is at most one [`Action::Pod`] under way per pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write the ledger durably, then answer [`super::Event::Persisted`]. At most one under way.
    Persist {
        /// Number.
        id: RequestId,
        /// The whole ledger.
        ledger: Box<Ledger>,
    },
    /// Tell the orchestrator. Older ones that were not sent yet are worthless.
    Status(Box<NodeStatus>),
    /// Tell the orchestrator that a configuration was not taken.
    Refuse(Refused),
    /// Make addresses, services and names so, then answer [`super::Event::NetworkSynced`]. At most one under way.
    SyncNetwork {
        /// Number.
        id: RequestId,
        /// What.
        wanted: Box<NetworkWanted>,
    },
    /// Work on a pod; answered by [`super::Event::PodDone`].
    Pod {
        /// Number.
        id: RequestId,
        /// Which pod.
        uid: PodUid,
        /// What.
        op: PodOp,
    },
    /// Ask a container; answered by [`super::Event::Probed`]. At most one under way per container and purpose.
    Probe {
        /// Number.
        id: RequestId,
        /// Which pod.
        uid: PodUid,
        /// Which container.
        container: String,
        /// The pod's address; the loopback for pods on the host's network.
        address: IpAddr,
        /// How; the time-out is within.
        probe: Probe,
    },
    /// Do something in or to a container; answered by [`super::Event::Hooked`]. At most one under way per container.
    Hook {
        /// Number.
        id: RequestId,
        /// Which pod.
        uid: PodUid,
        /// Which container.
        container: String,
        /// The pod's address; the loopback for pods on the host's network.
        address: IpAddr,
        /// What.
        hook: Hook,
        /// When it is given up, in milliseconds.
        timeout_ms: u64,
    },
    /// Remove unpacked layers that no pod uses; answered by [`super::Event::LayersShed`]. At most one under way.
    ShedLayers {
        /// Number.
        id: RequestId,
    },
    /// Count what is in these claims, and no others, again and again: [`super::Event::ClaimUsage`] for each.
    CountClaims(BTreeSet<ClaimId>),
    /// Remove a claim's directory; answered by [`super::Event::ClaimRemoved`]. At most one under way.
    RemoveClaim {
        /// Number.
        id: RequestId,
        /// Which.
        claim: ClaimId,
    },
    /// Read the number of sessions; answered by [`super::Event::Sessions`]. At most one under way per pod.
    ReadSessions {
        /// Number.
        id: RequestId,
        /// Which pod.
        uid: PodUid,
        /// Where.
        address: IpAddr,
        /// What.
        probe: SessionProbe,
    },
}

/// The node's network as it has to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkWanted {
    /// Of this configuration.
    pub generation: Generation,
    /// Addresses; `None` before the first real configuration.
    pub network: Option<NodeNetwork>,
    /// Services by `namespace/name`.
    pub services: BTreeMap<String, ServiceConfig>,
    /// Whose pods are where: addresses to namespaces.
    pub pods: BTreeMap<Ipv4Addr, String>,
    /// What is behind each pod of the pod network, if anything.
    pub behind: BTreeMap<PodUid, Behind>,
    /// Names to addresses.
    pub dns: BTreeMap<String, Vec<IpAddr>>,
    /// Names of services' ports to who serves them.
    pub srv: BTreeMap<String, Vec<SrvTarget>>,
}

/// A pod of the pod network, and what is behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Behind {
    /// Own address.
    pub address: Ipv4Addr,
    /// Its name, for people.
    pub name: String,
    /// Only pods of the same namespace reach what is behind it.
    pub namespace: String,
    /// Whose share of what all use together it takes of.
    pub group: String,
    /// Networks.
    pub subnets: Vec<Ipv4Net>,
}

/// Work on one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum PodOp {
    /// Root file systems, volumes, network, shim. What is there already stays, only files get their new content; so it may be
    /// asked for while the pod runs. Processes that a dead shim left are killed.
    Prepare {
        /// The pod.
        pod: Box<PodConfig>,
        /// The node's network.
        network: Option<NodeNetwork>,
    },
    /// Make the container's cgroup if need be and put limits in force. Everything or nothing for memory: see [`PodFailure`].
    Apply {
        /// Which container.
        container: String,
        /// What it is to be held to.
        bounds: Bounds,
    },
    /// Start the container's program in its cgroup, which is made anew if a start that failed has taken it away.
    Start {
        /// Which container.
        container: String,
        /// What is in force for it.
        bounds: Bounds,
        /// Number of this run, above all earlier ones.
        attempt: u32,
        /// The pod.
        pod: Box<PodConfig>,
    },
    /// Send a signal to containers. One that does not run is no failure.
    Signal {
        /// Which.
        containers: Vec<String>,
        /// SIGKILL instead of SIGTERM.
        kill: bool,
    },
    /// The pod has ended: take everything of it off the node but its logs and the records of its runs.
    Release {
        /// False: the end was concluded from the silence of its shim. If that runs after all, this fails and changes nothing.
        sure: bool,
        /// False: its logs go too.
        keep_logs: bool,
    },
    /// Take everything of the pod off the node: processes, network, mounts, cgroups, directory.
    Teardown,
}

/// All that a container is held to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Its own limits.
    pub limits: Limits,
    /// What all containers of the pod may have together, in bytes; 0 means no limit. Files in memory outlive the container
    /// that has written them, and its own limit.
    pub pod_memory_bytes: u64,
    /// NUMA nodes whose memory may be used; empty means all.
    pub numa_nodes: Vec<u32>,
}

/// A container's limits as the kernel is to enforce them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// With `cpus` empty for a container of the shared pool.
    pub resources: ContainerResources,
    /// The shared pool; empty for a container with exclusive CPUs.
    pub shared_cpus: CpuSet,
}

impl Limits {
    /// The CPUs that it may run on.
    pub fn effective_cpus(&self) -> &CpuSet {
        if self.resources.cpus.is_empty() {
            &self.shared_cpus
        } else {
            &self.resources.cpus
        }
    }
}

/// What came out of a [`PodOp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodDone {
    /// Container name to image digest.
    Prepared(BTreeMap<String, String>),
    /// The limits are in force.
    Applied,
    /// It runs (or has run).
    Started(super::Run),
    /// Sent.
    Signalled,
    /// Only logs and records are left.
    Released,
    /// Nothing is left.
    TornDown,
}

/// Why a [`PodOp`] failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFailure {
    /// For people: what, which object, what to do.
    pub message: String,
    /// What it means for the container.
    pub kind: FailureKind,
}

impl From<String> for PodFailure {
    /// One that means nothing else.
    fn from(message: String) -> Self {
        let kind = FailureKind::Other;
        Self { message, kind }
    }
}

/// What kind of failure a [`PodFailure`] is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FailureKind {
    /// None of the others.
    #[default]
    Other,
    /// The memory or the hugepages in use are above the wanted limit, and nothing was changed.
    MemoryInUse,
    /// A container's image is not to be had.
    Image {
        /// Which container.
        container: String,
    },
    /// What is asked for makes no sense on this node.
    Config,
}
