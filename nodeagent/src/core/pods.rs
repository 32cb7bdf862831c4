//! Life of a pod: prepare, start, restart; term, kill, tear down.

use std::sync::Arc;

use gantry_nodeagent_api::{ContainerConfig, PodConfig, RestartPolicy};

use super::state::{Container, Ending, Pod, UnderWay};
use super::{Action, PodOp, State};

/// Seconds between SIGTERM and SIGKILL for a pod that no configuration knows.
const UNKNOWN_GRACE_S: u32 = 10;
/// Milliseconds after SIGKILL after which a pod is torn down although no end was reported.
const KILL_PATIENCE_MS: u64 = 5000;
/// Milliseconds after which a signal that did not help is sent again.
const SIGNAL_RETRY_MS: u64 = 1000;

/// Asks for the next thing to do of each pod that has nothing under way.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    for uid in state.uids() {
        let pod = state.pods.get_mut(&uid).expect("just listed");
        if pod.under_way.is_some() {
            continue;
        }
        let mut wake = Wake(None);
        let next = if pod.stopping {
            stop(pod, now_ms, &mut wake)
        } else if let Some(config) = pod.config.clone() {
            let network = state.ledger.config.network.clone();
            let network_ready = state.network.synced.is_some();
            match signal(pod, now_ms, &mut wake) {
                Some(op) => Some(op),
                None if !pod.prepared => prepare(pod, &config, network, network_ready, now_ms, &mut wake),
                None => start(pod, &config, now_ms, &mut wake)
                    .or_else(|| refresh_files(pod, &config, network, now_ms, &mut wake)),
            }
        } else {
            None
        };
        if let Some(at_ms) = wake.0 {
            state.wake_at(at_ms);
        }
        if let Some((what, op)) = next {
            let id = state.next_id();
            let pod = state.pods.get_mut(&uid).expect("just listed");
            pod.under_way = Some((id, what));
            pod.touched = true;
            actions.push(Action::Pod { id, uid, op });
        }
    }
}

struct Wake(Option<u64>);

impl Wake {
    /// True if `at_ms` is still to come; then it is remembered.
    fn later(&mut self, now_ms: u64, at_ms: u64) -> bool {
        if now_ms < at_ms {
            self.0 = Some(self.0.map_or(at_ms, |w| w.min(at_ms)));
        }
        now_ms < at_ms
    }
}

type Next = Option<(UnderWay, PodOp)>;

fn prepare(
    pod: &mut Pod,
    config: &Arc<PodConfig>,
    network: Option<gantry_nodeagent_api::NodeNetwork>,
    network_ready: bool,
    now_ms: u64,
    wake: &mut Wake,
) -> Next {
    if !config.host_network && !network_ready {
        pod.message = "waits for the node's network".to_owned();
        return None;
    }
    if wake.later(now_ms, pod.backoff.not_before_ms) {
        return None;
    }
    Some(preparation(config, network))
}

/// New content for the files of a pod that runs: what else is there already stays. Nothing waits for it.
fn refresh_files(
    pod: &Pod,
    config: &Arc<PodConfig>,
    network: Option<gantry_nodeagent_api::NodeNetwork>,
    now_ms: u64,
    wake: &mut Wake,
) -> Next {
    if pod.files_in_force(config) || wake.later(now_ms, pod.files_backoff.not_before_ms) {
        return None;
    }
    Some(preparation(config, network))
}

fn preparation(
    config: &Arc<PodConfig>,
    network: Option<gantry_nodeagent_api::NodeNetwork>,
) -> (UnderWay, PodOp) {
    let under_way = UnderWay::Prepare {
        config: config.clone(),
    };
    let pod = Box::new(PodConfig::clone(config));
    (under_way, PodOp::Prepare { pod, network })
}

/// The first container, in order, that can be started now. One that never ran holds back those after it.
fn start(pod: &mut Pod, config: &PodConfig, now_ms: u64, wake: &mut Wake) -> Next {
    for wanted in &config.containers {
        let container = pod.containers.entry(wanted.name.clone()).or_default();
        if container.running() {
            continue;
        }
        if may_start(container, wanted, config.restart_policy)
            && !wake.later(now_ms, container.restart.not_before_ms)
            && !wake.later(now_ms, pod.backoff.not_before_ms)
        {
            let attempt = container.last_attempt.map_or(0, |last| last + 1);
            container.last_attempt = Some(attempt);
            let name = wanted.name.clone();
            let op = PodOp::Start {
                container: name.clone(),
                attempt,
                pod: Box::new(PodConfig::clone(config)),
            };
            return Some((UnderWay::Start { container: name }, op));
        }
        if container.run.is_none() {
            break;
        }
    }
    None
}

/// Its limits are in force, and it has not ended for good. A first start waits for all its CPUs, a restart does not.
fn may_start(container: &Container, wanted: &ContainerConfig, policy: RestartPolicy) -> bool {
    let Some(limits) = &container.in_force else {
        return false;
    };
    let all_cpus = limits.resources.cpus == wanted.resources.cpus;
    !finished(container, policy) && (all_cpus || container.run.is_some())
}

/// It ended, and does not start again.
pub(super) fn finished(container: &Container, policy: RestartPolicy) -> bool {
    let Some(exit) = container.run.and_then(|run| run.exit) else {
        return false;
    };
    match policy {
        RestartPolicy::Always => false,
        RestartPolicy::OnFailure => exit.code == 0,
        RestartPolicy::Never => true,
    }
}

fn stop(pod: &mut Pod, now_ms: u64, wake: &mut Wake) -> Next {
    let grace_s = pod
        .config
        .as_ref()
        .map_or(UNKNOWN_GRACE_S, |c| c.termination_grace_s);
    let kill_at_ms = now_ms + u64::from(grace_s) * 1000;
    for container in pod.containers.values_mut().filter(|c| c.running()) {
        container.ending.get_or_insert(Ending {
            kill_at_ms,
            ..Ending::default()
        });
    }
    if let Some(next) = signal(pod, now_ms, wake) {
        return Some(next);
    }
    let mut hopeless_ms = 0;
    for container in pod.containers.values().filter(|c| c.running()) {
        let ending = container.ending.expect("set above");
        hopeless_ms = hopeless_ms.max(ending.kill_at_ms + KILL_PATIENCE_MS);
    }
    if wake.later(now_ms, hopeless_ms) || wake.later(now_ms, pod.backoff.not_before_ms) {
        return None;
    }
    Some((UnderWay::Teardown, PodOp::Teardown))
}

/// SIGTERM to those that were not told yet, SIGKILL to those whose time is over.
fn signal(pod: &mut Pod, now_ms: u64, wake: &mut Wake) -> Next {
    let (mut term, mut kill) = (Vec::new(), Vec::new());
    for (name, container) in &mut pod.containers {
        if !container.running() {
            continue;
        }
        let Some(ending) = &mut container.ending else {
            continue;
        };
        if ending.kill_sent {
            // Sent again by and by: the answer may have been lost.
            if !wake.later(now_ms, ending.resend_ms) {
                ending.resend_ms = now_ms + SIGNAL_RETRY_MS;
                kill.push(name.clone());
            }
        } else if !ending.term_sent && !wake.later(now_ms, ending.resend_ms) {
            ending.term_sent = true;
            term.push(name.clone());
        } else if !wake.later(now_ms, ending.kill_at_ms) {
            ending.kill_sent = true;
            ending.resend_ms = now_ms + SIGNAL_RETRY_MS;
            kill.push(name.clone());
        }
    }
    let (containers, kill) = if term.is_empty() {
        (kill, true)
    } else {
        (term, false)
    };
    let under_way = UnderWay::Signal {
        containers: containers.clone(),
        kill,
    };
    (!containers.is_empty()).then_some((under_way, PodOp::Signal { containers, kill }))
}

/// A signal that could not be sent: SIGTERM counts as not sent and follows in a moment, SIGKILL is sent again anyway.
pub(super) fn not_signalled(pod: &mut Pod, now_ms: u64, containers: &[String], kill: bool) {
    for name in containers.iter().filter(|_| !kill) {
        let container = pod.containers.get_mut(name);
        if let Some(ending) = container.and_then(|c| c.ending.as_mut()) {
            ending.term_sent = false;
            ending.resend_ms = now_ms + SIGNAL_RETRY_MS;
        }
    }
}
