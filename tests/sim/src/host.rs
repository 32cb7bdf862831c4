//! A fake host: what the kernel and the shims keep while agents come and go.

use std::collections::BTreeMap;

use gantry_nodeagent::core::{
    Exit, Limits, NetworkWanted, Observed, ObservedContainer, ObservedPod, PodDone, PodOp, Run,
};
use gantry_nodeagent_api::PodConfig;
use gantry_topology::CpuSet;

/// One container as the kernel has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostContainer {
    /// Its cgroup's limits.
    pub limits: Option<Limits>,
    /// Its last run.
    pub run: Option<Run>,
}

impl HostContainer {
    /// It has a process.
    pub fn running(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.exit.is_none())
    }
}

/// One pod as the kernel has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostPod {
    /// Its shim lives.
    pub shim: bool,
    /// It has ended, and only records are left.
    pub released: bool,
    /// What it was prepared from.
    pub config: Option<PodConfig>,
    /// Its containers.
    pub containers: BTreeMap<String, HostContainer>,
}

/// One host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// Pods by uid.
    pub pods: BTreeMap<String, HostPod>,
    /// The datapath.
    pub network: NetworkWanted,
    /// Boots so far.
    pub boots: u64,
    next_pid: u32,
}

impl Host {
    /// Carries out what an agent asked; the runs that ended by it.
    pub fn apply(&mut self, uid: &str, op: &PodOp, now_ms: u64) -> (PodDone, Vec<(String, Run)>) {
        let mut ended = Vec::new();
        let done = match op {
            PodOp::Prepare { pod, .. } => {
                let host = self.pods.entry(uid.to_owned()).or_default();
                host.shim = true;
                host.config = Some((**pod).clone());
                PodDone::Prepared(
                    pod.containers
                        .iter()
                        .map(|c| (c.name.clone(), format!("digest-of-{}", c.image)))
                        .collect(),
                )
            }
            PodOp::Apply { container, bounds } => {
                let host = self.pods.entry(uid.to_owned()).or_default();
                host.containers.entry(container.clone()).or_default().limits = Some(bounds.limits.clone());
                PodDone::Applied
            }
            PodOp::Start {
                container,
                bounds,
                attempt,
                ..
            } => {
                self.next_pid += 1;
                let fresh = Run {
                    attempt: *attempt,
                    pid: self.next_pid,
                    started_at_ms: now_ms,
                    exit: None,
                };
                let host = self.pods.entry(uid.to_owned()).or_default();
                let slot = host.containers.entry(container.clone()).or_default();
                slot.limits = Some(bounds.limits.clone());
                // A start that was carried out before the agent crashed is not carried out twice.
                let run = slot
                    .run
                    .clone()
                    .filter(|run| run.attempt >= *attempt)
                    .unwrap_or(fresh);
                slot.run = Some(run.clone());
                PodDone::Started(run)
            }
            PodOp::Signal { containers, .. } => {
                for name in containers {
                    ended.extend(self.end(uid, name, 143, now_ms).map(|run| (name.clone(), run)));
                }
                PodDone::Signalled
            }
            PodOp::Release { .. } => {
                let host = self.pods.entry(uid.to_owned()).or_default();
                host.shim = false;
                host.released = true;
                host.containers.values_mut().for_each(|c| c.limits = None);
                PodDone::Released
            }
            PodOp::Teardown => {
                self.pods.remove(uid);
                PodDone::TornDown
            }
        };
        (done, ended)
    }

    /// A container's process ends.
    pub fn end(&mut self, uid: &str, container: &str, code: i32, now_ms: u64) -> Option<Run> {
        let run = self
            .pods
            .get_mut(uid)?
            .containers
            .get_mut(container)?
            .run
            .as_mut()?;
        if run.exit.is_some() {
            return None;
        }
        run.exit = Some(Exit::with(code, now_ms));
        Some(run.clone())
    }

    /// Power off and on: disks stay, nothing else.
    pub fn reboot(&mut self) {
        for pod in self.pods.values_mut() {
            pod.shim = false;
            pod.containers
                .values_mut()
                .for_each(|c| *c = HostContainer::default());
        }
        self.network = NetworkWanted::default();
        self.boots += 1;
    }

    /// What a starting agent finds.
    pub fn observe(&self) -> Observed {
        let container = |c: &HostContainer| ObservedContainer {
            run: c.run.clone(),
            before: None,
            limits: c
                .limits
                .as_ref()
                .map(|l| (l.resources.clone(), l.effective_cpus().clone())),
            image_id: String::new(),
        };
        let pod = |p: &HostPod| ObservedPod {
            shim: p.shim,
            released: p.released,
            containers: p
                .containers
                .iter()
                .map(|(name, c)| (name.clone(), container(c)))
                .collect(),
        };
        Observed {
            pods: self.pods.iter().map(|(uid, p)| (uid.clone(), pod(p))).collect(),
        }
    }

    /// All containers of a pod run.
    pub fn serves(&self, uid: &str) -> bool {
        let Some(pod) = self.pods.get(uid) else {
            return false;
        };
        let Some(config) = &pod.config else { return false };
        config
            .containers
            .iter()
            .all(|c| pod.containers.get(&c.name).is_some_and(HostContainer::running))
    }

    /// CPUs that each running container may run on: pod, container, exclusive or not, CPUs.
    pub fn cpu_use(&self) -> impl Iterator<Item = (&str, &str, bool, &CpuSet)> {
        self.pods.iter().flat_map(|(uid, pod)| {
            pod.containers
                .iter()
                .filter(|(_, c)| c.running())
                .filter_map(move |(name, c)| {
                    let limits = c.limits.as_ref()?;
                    Some((
                        uid.as_str(),
                        name.as_str(),
                        !limits.resources.cpus.is_empty(),
                        limits.effective_cpus(),
                    ))
                })
        })
    }
}
