//! What the orchestrator is told.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{
    ContainerConfig, ContainerResources, ContainerRole, ContainerStatus, NodeStatus, PodPhase, PodStatus,
    PodUid, Readiness, RestartPolicy, RunEnd, Trouble, WaitingReason,
};
use gantry_topology::CpuSet;

use super::end::{ended_well, finished, is_initialized, policy};
use super::promise;
use super::state::{Container, Pod, UnderWay};
use super::{Action, Run, State};

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
        (last.accepted, last.applied, last.served) != (status.accepted, status.applied, status.served)
            || last.pods != status.pods
            || last.network_message != status.network_message
            || last.disk_pressure != status.disk_pressure
            || last.services != status.services
            || last.full_claims != status.full_claims
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
        let seen = self
            .pods
            .iter()
            .map(|(uid, pod)| (uid.clone(), pod_status(uid, pod)));
        let mut pods: BTreeMap<PodUid, PodStatus> = seen.collect();
        for (uid, fault) in &self.faults {
            pods.entry(uid.clone()).or_default().message =
                format!("the node does not take its configuration: {fault}");
        }
        for (uid, why) in &self.network.faults.subnets {
            if let Some(pod) = pods.get_mut(uid) {
                pod.troubles.insert(Trouble::SubnetNotRouted, why.clone());
            }
        }
        NodeStatus {
            accepted: self.accepted(),
            applied: self.applied,
            served: self.network.synced.unwrap_or_default(),
            pods,
            network: self.counters.clone(),
            network_message: self.network.message.clone(),
            disk_pressure: self.disk.pressure.clone(),
            services: self.network.faults.services.clone(),
            full_claims: self.claims.full.clone(),
        }
    }

    /// Services, names, files and limits of the accepted configuration are in force, and every pod has begun to come or to go.
    fn in_force(&self) -> bool {
        let pod_in_force = |pod: &Pod| {
            let Some(config) = pod
                .config
                .as_ref()
                .filter(|_| !pod.stopping && pod.over.is_none())
            else {
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

fn pod_status(uid: &str, pod: &Pod) -> PodStatus {
    let config = pod.config.as_ref();
    let known = config.map(|c| c.containers.as_slice()).unwrap_or_default();
    let nothing = Container::default();
    let wanted = known.iter().map(|wanted| {
        let container = pod.containers.get(&wanted.name).unwrap_or(&nothing);
        container_status(uid, pod, &wanted.name, container, Some(wanted))
    });
    let unknown = (pod.containers.iter()).filter(|(name, _)| !known.iter().any(|c| c.name == **name));
    let unknown = unknown.map(|(name, container)| container_status(uid, pod, name, container, None));
    let containers: Vec<ContainerStatus> = wanted.chain(unknown).collect();
    let phase = phase(pod);
    let own = pod.containers.values();
    PodStatus {
        phase,
        ready: phase == PodPhase::Running && containers.iter().all(|c| c.ready),
        cpus: own
            .clone()
            .filter(|c| !c.guessed)
            .fold(CpuSet::new(), |all, c| all.union(&c.owned.exclusive)),
        memory_bytes: promise::of(pod, known),
        address: config.and_then(|c| c.address).filter(|_| !pod.released),
        started_at_ms: own
            .filter_map(|c| Some(c.run.as_ref()?.started_at_ms))
            .min()
            .unwrap_or(0),
        message: message(pod, known),
        containers,
        sessions: pod.sessions.count,
        reason: pod.over.and_then(|verdict| verdict.reason),
        troubles: pod.troubles.told(),
    }
}

fn phase(pod: &Pod) -> PodPhase {
    let any_runs = pod.containers.values().any(Container::running);
    if pod.stopping {
        return PodPhase::Stopping;
    }
    if let Some(verdict) = pod.over.filter(|_| !any_runs) {
        return match verdict.failed {
            true => PodPhase::Failed,
            false => PodPhase::Succeeded,
        };
    }
    let started = |name: &str| pod.containers.get(name).is_some_and(|c| c.run.is_some());
    let all_started = match &pod.config {
        None => any_runs,
        Some(config) => {
            let mut main = config.containers.iter().filter(|c| c.role == ContainerRole::Main);
            main.all(|c| started(&c.name))
        }
    };
    if all_started {
        PodPhase::Running
    } else {
        PodPhase::Pending
    }
}

fn container_status(
    uid: &str,
    pod: &Pod,
    name: &str,
    container: &Container,
    wanted: Option<&ContainerConfig>,
) -> ContainerStatus {
    let running = container.running();
    let run = container.run.as_ref();
    let (waiting, ended, last_ended) = standing(pod, wanted, container);
    let (limits_message, limits_wait) = wanted.map(|w| limits(pod, w, container)).unwrap_or_default();
    ContainerStatus {
        name: name.to_owned(),
        running,
        ready: !pod.stopping && wanted.is_some_and(|w| ready(container, w)),
        readiness: match wanted.map(|w| readiness(container, w)) {
            Some(Readiness::Passed) if pod.stopping => Readiness::Unknown,
            Some(readiness) => readiness,
            None => Readiness::Failed,
        },
        started: wanted.is_some_and(|w| container.started(w)),
        restarts: run.map_or(0, |run| run.attempt),
        pid: run.filter(|_| running).map(|run| run.pid),
        started_at_ms: run.map_or(0, |run| run.started_at_ms),
        message: match waiting {
            Some(WaitingReason::CrashLoopBackOff) => backing_off(uid, pod, name, container),
            _ => troubles(container),
        },
        limits_message,
        limits_wait,
        waiting,
        ended,
        last_ended,
        image_id: container.image_id.clone(),
        resources: container
            .in_force
            .as_ref()
            .map_or_else(ContainerResources::default, |l| l.resources.clone()),
    }
}

/// What a container that does not run waits for, or how it ended; and how the run before ended.
fn standing(
    pod: &Pod,
    wanted: Option<&ContainerConfig>,
    container: &Container,
) -> (Option<WaitingReason>, Option<RunEnd>, Option<RunEnd>) {
    let before = container.before.clone();
    let Some(end) = container.run.as_ref().and_then(Run::end) else {
        let waiting = container.trouble.unwrap_or_else(|| not_begun(pod));
        return ((!container.running()).then_some(waiting), None, before);
    };
    let config = pod.config.as_ref().zip(wanted);
    let starts_again = !pod.stopping
        && pod.over.is_none()
        && config.is_some_and(|(config, wanted)| !finished(container, policy(wanted, config)));
    let back_off = (container.restart.delay_ms > 0).then_some(WaitingReason::CrashLoopBackOff);
    match container.trouble.or(back_off).filter(|_| starts_again) {
        Some(waiting) => (Some(waiting), None, Some(end)),
        None => (None, Some(end), before),
    }
}

/// What a container that never ran waits for.
fn not_begun(pod: &Pod) -> WaitingReason {
    let mut config = pod.config.iter().flat_map(|config| &config.containers);
    match config.any(|c| c.role != ContainerRole::Main) {
        true => WaitingReason::PodInitializing,
        false => WaitingReason::ContainerCreating,
    }
}

fn readiness(container: &Container, wanted: &ContainerConfig) -> Readiness {
    match wanted.role {
        ContainerRole::Init if ready(container, wanted) => Readiness::Passed,
        _ => container.readiness(wanted),
    }
}

/// An init container is ready when it has done its work.
fn ready(container: &Container, wanted: &ContainerConfig) -> bool {
    match wanted.role {
        ContainerRole::Init => is_initialized(Some(container), wanted),
        ContainerRole::Main | ContainerRole::Sidecar => container.ready(wanted),
    }
}

/// In the words of Kubernetes.
fn backing_off(uid: &str, pod: &Pod, name: &str, container: &Container) -> String {
    let (namespace, pod_name) = match &pod.config {
        Some(config) => (config.namespace.as_str(), config.name.as_str()),
        None => ("", ""),
    };
    let seconds = container.restart.delay_ms / 1000;
    format!("back-off {seconds}s restarting failed container={name} pod={pod_name}_{namespace}({uid})")
}

fn troubles(container: &Container) -> String {
    let probes = container.probe_message();
    let messages = [
        container.limits_message.as_str(),
        container.cpu_message.as_str(),
        container.message.as_str(),
        probes.as_str(),
    ];
    let messages: Vec<&str> = messages.into_iter().filter(|m| !m.is_empty()).collect();
    messages.join("; ")
}

/// Why the limits of a container that runs cannot be as wanted, and what they wait for; empty when they are. Each way on which
/// [`super::cpus`] passes a container by has its word here.
fn limits(pod: &Pod, wanted: &ContainerConfig, container: &Container) -> (String, String) {
    let nothing = Default::default();
    if !container.running() || pod.stopping {
        return nothing;
    }
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
fn message(pod: &Pod, known: &[ContainerConfig]) -> String {
    if let Some(why) = &pod.evicted {
        return why.clone();
    }
    if !pod.message.is_empty() {
        return pod.message.clone();
    }
    let own = known.iter().map(|c| &c.name);
    let unknown = pod
        .containers
        .keys()
        .filter(|n| !known.iter().any(|c| c.name == **n));
    own.chain(unknown)
        .filter_map(|name| Some((name, pod.containers.get(name)?)))
        .filter(|(name, container)| {
            !has_done_its_work(pod, known.iter().find(|c| c.name == **name), container)
        })
        .map(|(name, container)| (name, troubles(container)))
        .find(|(_, message)| !message.is_empty())
        .map(|(name, message)| format!("container {name}: {message}"))
        .unwrap_or_default()
}

/// Its end is no trouble.
fn has_done_its_work(pod: &Pod, wanted: Option<&ContainerConfig>, container: &Container) -> bool {
    let policy = wanted
        .zip(pod.config.as_ref())
        .map(|(wanted, config)| policy(wanted, config));
    policy.is_some_and(|policy| policy != RestartPolicy::Always) && ended_well(container)
}
