//! A node of paper: it does what the core asks, in any order, and knows what a kernel would know.

use std::collections::{BTreeMap, BTreeSet};

use gantry_nodeagent_api::*;
use gantry_topology::CpuSet;

use super::super::*;

pub(super) struct Node {
    pub(super) state: State,
    pub(super) disk: Ledger,
    pub(super) now_ms: u64,
    pub(super) shims: BTreeSet<PodUid>,
    /// Pods that have ended, with nothing left but their records.
    pub(super) released: BTreeSet<PodUid>,
    pub(super) cgroups: BTreeMap<(PodUid, String), Limits>,
    pub(super) runs: BTreeMap<(PodUid, String), Run>,
    pub(super) pending: Vec<Action>,
    /// What shims tell besides.
    news: Vec<Event>,
    /// Hooks that were done.
    pub(super) hooks: Vec<String>,
    pub(super) refused: Vec<Refused>,
    pub(super) statuses: Vec<NodeStatus>,
    /// Bytes that each container uses.
    pub(super) memory_used: u64,
    /// The next operations that fail.
    pub(super) fail: usize,
    /// The next starts whose program cannot be run.
    pub(super) cannot_run: usize,
    pub(super) starts: usize,
    /// How often unused layers were removed.
    pub(super) sheds: usize,
    /// Milliseconds by which the shims' clock is ahead of the core's.
    pub(super) clock_ahead_ms: u64,
    /// What each pod was prepared with last.
    pub(super) prepared: BTreeMap<PodUid, PodConfig>,
    /// NUMA nodes of each container's cgroup.
    pub(super) numa_nodes: BTreeMap<(PodUid, String), Vec<u32>>,
    /// What all containers of a pod may have together, in bytes.
    pub(super) pod_memory: BTreeMap<PodUid, u64>,
    /// What its datapath leaves out.
    pub(super) service_faults: BTreeMap<String, ServiceFault>,
    /// Which pod each subnet of a namespace leads to.
    pub(super) routes: BTreeMap<(String, String), PodUid>,
    /// How often the network was made so.
    pub(super) syncs: usize,
    /// Claims that are counted.
    pub(super) counted: BTreeSet<ClaimId>,
    /// Claims whose directories were removed, in order.
    pub(super) removed_claims: Vec<ClaimId>,
}

impl Node {
    pub(super) fn new() -> Self {
        let mut node = Self {
            state: State::new(Ledger::default()),
            disk: Ledger::default(),
            now_ms: 1_000_000,
            shims: BTreeSet::new(),
            released: BTreeSet::new(),
            cgroups: BTreeMap::new(),
            runs: BTreeMap::new(),
            pending: Vec::new(),
            news: Vec::new(),
            hooks: Vec::new(),
            refused: Vec::new(),
            statuses: Vec::new(),
            memory_used: 0,
            fail: 0,
            cannot_run: 0,
            starts: 0,
            sheds: 0,
            clock_ahead_ms: 0,
            prepared: BTreeMap::new(),
            numa_nodes: BTreeMap::new(),
            pod_memory: BTreeMap::new(),
            service_faults: BTreeMap::new(),
            routes: BTreeMap::new(),
            syncs: 0,
            counted: BTreeSet::new(),
            removed_claims: Vec::new(),
        };
        node.event(Event::Start(Observed::default()));
        node
    }

    pub(super) fn event(&mut self, event: Event) {
        for action in step(&mut self.state, self.now_ms, event) {
            match action {
                Action::Status(status) => self.statuses.push(*status),
                Action::Refuse(refused) => self.refused.push(refused),
                other => self.pending.push(other),
            }
        }
        self.check_core();
    }

    pub(super) fn config(&mut self, config: &NodeConfig) {
        self.event(Event::Config(Box::new(config.clone())));
    }

    pub(super) fn status(&self) -> NodeStatus {
        self.state.status()
    }

    pub(super) fn pod(&self, uid: &str) -> PodStatus {
        self.status()
            .pods
            .get(uid)
            .cloned()
            .unwrap_or_else(|| panic!("no pod {uid}"))
    }

    /// Does all that is asked, until nothing is.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.pending.is_empty() {
                return;
            }
            self.perform(0);
        }
        panic!("never ends: {:?}", self.pending);
    }

    /// Lets time pass, doing all that is asked.
    pub(super) fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        self.settle();
        while let Some(wake_ms) = self.state.wake_ms().filter(|w| *w <= end_ms) {
            self.now_ms = self.now_ms.max(wake_ms);
            self.event(Event::Tick);
            self.settle();
        }
        self.now_ms = end_ms;
        self.event(Event::Tick);
        self.settle();
    }

    pub(super) fn perform(&mut self, index: usize) {
        let action = self.pending.remove(index);
        let fails = self.fail > 0;
        self.fail = self.fail.saturating_sub(1);
        let broken = || "broken on purpose".to_owned();
        let event = match action {
            Action::Persist { id, ledger } => {
                if !fails {
                    self.disk = *ledger;
                }
                Event::Persisted {
                    id,
                    result: if fails { Err(broken()) } else { Ok(()) },
                }
            }
            Action::SyncNetwork { id, wanted } => Event::NetworkSynced {
                id,
                result: if fails {
                    Err(broken())
                } else {
                    Ok(NetworkFaults {
                        services: self.service_faults.clone(),
                        subnets: self.route(&wanted),
                    })
                },
            },
            Action::Pod { id, uid, op } => {
                let result = if fails {
                    // As libcontainer does with what it could not make.
                    if let PodOp::Start { container, .. } = &op {
                        self.cgroups.remove(&(uid.clone(), container.clone()));
                    }
                    Err(PodFailure {
                        message: broken(),
                        kind: FailureKind::Other,
                    })
                } else {
                    self.operate(&uid, op)
                };
                self.check_kernel();
                Event::PodDone { id, uid, result }
            }
            Action::Probe {
                id, uid, container, ..
            } => Event::Probed {
                id,
                uid,
                container,
                result: Ok(()),
            },
            Action::Hook {
                id,
                uid,
                container,
                hook,
                ..
            } => {
                self.hooks.push(format!("{container} {hook:?}"));
                Event::Hooked {
                    id,
                    uid,
                    container,
                    result: if fails { Err(broken()) } else { Ok(()) },
                }
            }
            Action::ReadSessions { id, uid, .. } => Event::Sessions {
                id,
                uid,
                result: Ok(7),
            },
            Action::ShedLayers { id } => {
                self.sheds += 1;
                Event::LayersShed { id }
            }
            Action::CountClaims(claims) => {
                self.counted = claims;
                return;
            }
            Action::RemoveClaim { id, claim } => {
                let result = if fails { Err(broken()) } else { Ok(()) };
                if !fails {
                    self.removed_claims.push(claim);
                }
                Event::ClaimRemoved { id, result }
            }
            Action::Status(_) | Action::Refuse(_) => unreachable!("never pending"),
        };
        self.event(event);
        for news in std::mem::take(&mut self.news) {
            self.event(news);
        }
    }

    fn operate(&mut self, uid: &str, op: PodOp) -> Result<PodDone, PodFailure> {
        let key = |container: &str| (uid.to_owned(), container.to_owned());
        Ok(match op {
            PodOp::Prepare { pod, .. } => {
                self.shims.insert(uid.to_owned());
                let names = pod.containers.iter().map(|c| c.name.clone());
                let images = names.map(|name| (name, "sha256:1".to_owned())).collect();
                self.prepared.insert(uid.to_owned(), *pod);
                PodDone::Prepared(images)
            }
            PodOp::Apply { container, bounds } => {
                let Bounds {
                    limits,
                    numa_nodes,
                    pod_memory_bytes,
                } = bounds;
                if limits.resources.memory_bytes < self.memory_used {
                    return Err(PodFailure {
                        message: "in use".to_owned(),
                        kind: FailureKind::MemoryInUse,
                    });
                }
                self.cgroups.insert(key(&container), limits);
                self.pod_memory.insert(uid.to_owned(), pod_memory_bytes);
                self.numa_nodes.insert(key(&container), numa_nodes);
                PodDone::Applied
            }
            PodOp::Start {
                container,
                bounds,
                attempt,
                ..
            } => {
                // The kernel does not tell whether CPUs are a container's own.
                let held = |l: &Limits| (l.effective_cpus().clone(), l.resources.memory_bytes);
                assert_eq!(
                    self.cgroups.get(&key(&container)).map(held),
                    Some(held(&bounds.limits)),
                    "{uid}/{container} started without its limits"
                );
                assert!(self.shims.contains(uid));
                self.starts += 1;
                let cannot_run = self.cannot_run > 0;
                self.cannot_run = self.cannot_run.saturating_sub(1);
                if cannot_run {
                    self.cgroups.remove(&key(&container));
                }
                let run = Run {
                    attempt,
                    pid: 1000 + attempt,
                    started_at_ms: self.now_ms + self.clock_ahead_ms,
                    exit: cannot_run.then(|| Exit {
                        reason: EndReason::StartError,
                        ..Exit::with(128, self.now_ms)
                    }),
                };
                let before = self.runs.insert(key(&container), run.clone());
                assert!(
                    before
                        .as_ref()
                        .is_none_or(|b| b.attempt < attempt && b.exit.is_some()),
                    "{before:?} -> {run:?}"
                );
                PodDone::Started(run)
            }
            PodOp::Signal { containers, .. } => {
                for container in containers {
                    self.exit(uid, &container, 143);
                }
                PodDone::Signalled
            }
            PodOp::Release { sure, .. } => {
                let runs = |(key, run): (&(PodUid, String), &Run)| key.0 == uid && run.exit.is_none();
                if let Some((key, run)) = self.runs.iter().find(|r| !sure && runs(*r)) {
                    let (container, run) = (key.1.clone(), run.clone());
                    self.news.push(Event::Container {
                        uid: uid.to_owned(),
                        container,
                        run,
                    });
                    return Err(PodFailure {
                        message: "it runs".to_owned(),
                        kind: FailureKind::Other,
                    });
                }
                self.shims.remove(uid);
                self.cgroups.retain(|(pod, _), _| pod != uid);
                self.released.insert(uid.to_owned());
                PodDone::Released
            }
            PodOp::Teardown => {
                self.shims.remove(uid);
                self.released.remove(uid);
                self.cgroups.retain(|(pod, _), _| pod != uid);
                self.runs.retain(|(pod, _), _| pod != uid);
                PodDone::TornDown
            }
        })
    }

    /// A container ends, and the shim tells.
    pub(super) fn exit(&mut self, uid: &str, container: &str, code: i32) {
        let Some(run) = self.runs.get_mut(&(uid.to_owned(), container.to_owned())) else {
            return;
        };
        run.exit.get_or_insert(Exit::with(code, self.now_ms));
        let event = Event::Container {
            uid: uid.to_owned(),
            container: container.to_owned(),
            run: run.clone(),
        };
        self.event(event);
    }

    /// The agent dies and comes back with what is on the disk and in the kernel.
    pub(super) fn crash(&mut self, ledger: Ledger) {
        self.pending.clear();
        let mut observed = Observed::default();
        for uid in &self.shims {
            observed.pods.entry(uid.clone()).or_default().shim = true;
        }
        for uid in &self.released {
            observed.pods.entry(uid.clone()).or_default().released = true;
        }
        for ((uid, name), limits) in &self.cgroups {
            let pod = observed.pods.entry(uid.clone()).or_default();
            let mut resources = limits.resources.clone();
            resources.cpus = CpuSet::new();
            pod.containers.entry(name.clone()).or_default().limits =
                Some((resources, limits.effective_cpus().clone()));
        }
        for ((uid, name), run) in &self.runs {
            let pod = observed.pods.entry(uid.clone()).or_default();
            pod.containers.entry(name.clone()).or_default().run = Some(run.clone());
        }
        self.disk = ledger.clone();
        self.state = State::new(ledger);
        self.event(Event::Start(observed));
    }

    /// No CPU of the kernel's sets has two owners.
    fn check_kernel(&self) {
        let all: Vec<_> = self.cgroups.iter().collect();
        for (i, (a, left)) in all.iter().enumerate() {
            for (b, right) in &all[i + 1..] {
                let both_shared = left.resources.cpus.is_empty() && right.resources.cpus.is_empty();
                let disjoint = left.effective_cpus().is_disjoint(right.effective_cpus());
                assert!(both_shared || disjoint, "{a:?} {left:?} and {b:?} {right:?}");
            }
        }
    }

    /// As the datapath does it: whoever has a subnet keeps it. Why some lead elsewhere.
    fn route(&mut self, wanted: &NetworkWanted) -> BTreeMap<PodUid, String> {
        self.syncs += 1;
        let claims = wanted.behind.iter().flat_map(|(uid, pod)| {
            let subnets = pod.subnets.iter();
            subnets.map(move |net| ((pod.namespace.clone(), net.to_string()), uid.clone()))
        });
        let claims: Vec<_> = claims.collect();
        self.routes
            .retain(|subnet, uid| claims.contains(&(subnet.clone(), uid.clone())));
        let mut faults = BTreeMap::new();
        for (subnet, uid) in claims {
            let has = self.routes.entry(subnet.clone()).or_insert(uid.clone());
            if *has != uid {
                faults.insert(uid, format!("{} is behind {has}", subnet.1));
            }
        }
        faults
    }

    /// What the core believes covers what the kernel has, and has no CPU twice.
    fn check_core(&self) {
        let owners: Vec<_> = self.state.cpu_owners().collect();
        for (i, (ua, ca, own, _)) in owners.iter().enumerate() {
            for (j, (ub, cb, other, shared)) in owners.iter().enumerate() {
                let fine = i == j || (own.is_disjoint(other) && own.is_disjoint(shared));
                assert!(fine, "{ua}/{ca} {own} against {ub}/{cb} {other} and {shared}");
            }
        }
    }
}

/// A configuration with one container per pod; CPUs empty means the shared pool.
pub(super) fn config(generation: u64, shared: &str, pods: &[(&str, &str)]) -> NodeConfig {
    let mut config = NodeConfig {
        generation: Generation(generation),
        network: Some(NodeNetwork {
            pod_cidr: "10.85.0.0/24".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            gateway: "10.85.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        }),
        shared_cpus: shared.parse().unwrap(),
        ..NodeConfig::default()
    };
    for (index, (uid, cpus)) in pods.iter().enumerate() {
        let resources = ContainerResources {
            cpus: cpus.parse().unwrap(),
            memory_bytes: 100 << 20,
            ..ContainerResources::default()
        };
        let container = ContainerConfig {
            name: "c".to_owned(),
            memory_request_bytes: resources.memory_bytes,
            resources,
            ..ContainerConfig::default()
        };
        let pod = PodConfig {
            namespace: "default".to_owned(),
            name: (*uid).to_owned(),
            address: Some(std::net::Ipv4Addr::new(
                10,
                85,
                0,
                u8::try_from(index).unwrap() + 2,
            )),
            termination_grace_s: 5,
            containers: vec![container],
            ..PodConfig::default()
        };
        config.pods.insert((*uid).to_owned(), pod);
    }
    config
}
