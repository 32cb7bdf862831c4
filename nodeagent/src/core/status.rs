//! What the orchestrator is told.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{
    ContainerConfig, ContainerResources, ContainerStatus, NodeStatus, PodPhase, PodStatus, PodUid,
    RestartPolicy,
};
use gantry_topology::CpuSet;

use super::state::{Container, Pod, UnderWay};
use super::{Action, State, pods};

/// A status goes out at least this often, in milliseconds.
const HEARTBEAT_MS: u64 = 5000;

/// Sends the status if it changed or it is time.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    if state.in_force() {
        state.applied = state.accepted();
    }
    let status = state.status();
    let due_ms = state.last_status_ms + HEARTBEAT_MS;
    let changed = state.last_status.as_ref().is_none_or(|last| {
        (last.accepted, last.applied) != (status.accepted, status.applied)
            || last.pods != status.pods
            || last.network_message != status.network_message
            || last.services != status.services
    });
    if changed || state.status_due || now_ms >= due_ms {
        state.status_due = false;
        state.last_status_ms = now_ms;
        state.last_status = Some(status.clone());
        actions.push(Action::Status(Box::new(status)));
    }
    state.wake_at(state.last_status_ms + HEARTBEAT_MS);
}

impl State {
    /// Everything seen, as it is reported.
    pub fn status(&self) -> NodeStatus {
        let seen = self.pods.iter().map(|(uid, pod)| (uid.clone(), pod_status(pod)));
        let mut pods: BTreeMap<PodUid, PodStatus> = seen.collect();
        for (uid, fault) in &self.faults {
            pods.entry(uid.clone()).or_default().message =
                format!("the node does not take its configuration: {fault}");
        }
        NodeStatus {
            accepted: self.accepted(),
            applied: self.applied,
            pods,
            network: self.counters.clone(),
            network_message: self.network.message.clone(),
            services: self.network.faults.clone(),
        }
    }

    /// Services, names, files and limits of the accepted configuration are in force, and every pod has begun to come or to go.
    fn in_force(&self) -> bool {
        let pod_in_force = |pod: &Pod| {
            let Some(config) = pod.config.as_ref().filter(|_| !pod.stopping) else {
                return true;
            };
            // Files that cannot be written are told in the pod's message; the rest of the node does not wait for them.
            if pod.prepared && !pod.files_in_force(config) && !pod.files_backoff.is_failing() {
                return false;
            }
            config
                .containers
                .iter()
                .all(|wanted| match pod.containers.get(&wanted.name) {
                    Some(container) if container.run.is_some() => {
                        let limits = container.in_force.as_ref();
                        container.numa_nodes.as_ref() == Some(&config.numa_nodes)
                            && limits
                                .is_some_and(|l| l.resources == wanted.resources && self.pool_in_force(l))
                    }
                    _ => true,
                })
        };
        self.started
            && self.network.synced.unwrap_or_default() == self.accepted()
            && self.pods.values().all(pod_in_force)
    }

    fn pool_in_force(&self, limits: &super::Limits) -> bool {
        !limits.resources.cpus.is_empty() || limits.shared_cpus == self.ledger.config.shared_cpus
    }
}

fn pod_status(pod: &Pod) -> PodStatus {
    let config = pod.config.as_ref();
    let known = config.map(|c| c.containers.as_slice()).unwrap_or_default();
    let mut containers: Vec<ContainerStatus> = known
        .iter()
        .map(|wanted| {
            let container = pod.containers.get(&wanted.name);
            let (limits_message, limits_wait) = limits(pod, wanted, container);
            ContainerStatus {
                limits_message,
                limits_wait,
                ..container_status(&wanted.name, container, Some(wanted), pod.stopping)
            }
        })
        .collect();
    for (name, container) in &pod.containers {
        if !known.iter().any(|c| c.name == *name) {
            containers.push(container_status(name, Some(container), None, pod.stopping));
        }
    }
    let phase = phase(pod);
    let own = pod.containers.values();
    PodStatus {
        phase,
        ready: phase == PodPhase::Running && containers.iter().all(|c| c.ready),
        cpus: own
            .clone()
            .fold(CpuSet::new(), |all, c| all.union(&c.owned.exclusive)),
        memory_bytes: own
            .clone()
            .filter_map(|c| Some(c.in_force.as_ref()?.resources.memory_bytes))
            .sum(),
        address: config.and_then(|c| c.address),
        started_at_ms: own.filter_map(|c| Some(c.run?.started_at_ms)).min().unwrap_or(0),
        message: message(pod, &containers),
        containers,
        sessions: pod.sessions.count,
    }
}

fn phase(pod: &Pod) -> PodPhase {
    if pod.stopping {
        return PodPhase::Stopping;
    }
    let Some(config) = &pod.config else {
        return if pod.containers.values().any(Container::running) {
            PodPhase::Running
        } else {
            PodPhase::Pending
        };
    };
    let all: Vec<Option<&Container>> = config
        .containers
        .iter()
        .map(|c| pod.containers.get(&c.name))
        .collect();
    if all.iter().any(|c| c.is_none_or(|c| c.run.is_none())) {
        return PodPhase::Pending;
    }
    let over = |policy: RestartPolicy| all.iter().flatten().all(|c| pods::finished(c, policy));
    if !over(config.restart_policy) {
        PodPhase::Running
    } else if all
        .iter()
        .flatten()
        .all(|c| c.run.and_then(|r| r.exit).is_some_and(|e| e.code == 0))
    {
        PodPhase::Succeeded
    } else {
        PodPhase::Failed
    }
}

fn container_status(
    name: &str,
    container: Option<&Container>,
    wanted: Option<&ContainerConfig>,
    stopping: bool,
) -> ContainerStatus {
    let Some(container) = container else {
        return ContainerStatus {
            name: name.to_owned(),
            ..ContainerStatus::default()
        };
    };
    let running = container.running();
    let messages = [
        container.limits_message.as_str(),
        container.cpu_message.as_str(),
        container.message.as_str(),
        container.probe_message(),
    ];
    let message = messages
        .into_iter()
        .filter(|m| !m.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    ContainerStatus {
        name: name.to_owned(),
        running,
        ready: !stopping && wanted.is_some_and(|w| container.ready(w)),
        restarts: container.run.map_or(0, |run| run.attempt),
        pid: container.run.filter(|_| running).map(|run| run.pid),
        started_at_ms: container.run.map_or(0, |run| run.started_at_ms),
        exit_code: container.last_exit.map(|exit| exit.code),
        image_id: container.image_id.clone(),
        resources: container
            .in_force
            .as_ref()
            .map_or_else(ContainerResources::default, |l| l.resources.clone()),
        message,
        ..ContainerStatus::default()
    }
}

/// Why the limits of a container that runs cannot be as wanted, and what they wait for; empty when they are. Each way on which
/// [`super::cpus`] passes a container by has its word here.
fn limits(pod: &Pod, wanted: &ContainerConfig, container: Option<&Container>) -> (String, String) {
    let nothing = Default::default();
    let Some(container) = container.filter(|c| c.running() && !pod.stopping) else {
        return nothing;
    };
    let in_force = container.in_force.as_ref();
    if in_force.is_some_and(|l| l.resources == wanted.resources) && container.memory_refused.is_none() {
        return nothing;
    }
    let trouble = [&container.limits_message, &pod.message]
        .into_iter()
        .find(|text| !text.is_empty());
    let busy = match &pod.under_way {
        _ if !pod.prepared => "waits until the pod's shim is back",
        Some((_, UnderWay::Prepare { .. })) => "waits until the pod's files are written",
        Some((_, UnderWay::Start { .. } | UnderWay::Signal { .. })) => {
            "waits until a container of the pod is started or stopped"
        }
        Some(_) | None => "",
    };
    let wait = if container.cpu_message.is_empty() {
        busy
    } else {
        &container.cpu_message
    };
    (trouble.cloned().unwrap_or_default(), wait.to_owned())
}

/// The pod's own trouble, or else its first container's.
fn message(pod: &Pod, containers: &[ContainerStatus]) -> String {
    if !pod.message.is_empty() {
        return pod.message.clone();
    }
    let first = containers.iter().find(|c| !c.message.is_empty());
    first
        .map(|c| format!("container {}: {}", c.name, c.message))
        .unwrap_or_default()
}
