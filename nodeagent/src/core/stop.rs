//! Ending containers: SIGTERM, grace, SIGKILL.

use gantry_nodeagent_api::{ContainerRole, Trouble};

use super::PodOp;
use super::pods::{Next, Wake};
use super::state::{Container, Ending, HookState, Pod, UnderWay};

/// Seconds between SIGTERM and SIGKILL for a pod that no configuration knows.
const UNKNOWN_GRACE_S: u32 = 10;
/// Seconds between SIGTERM and SIGKILL for a pod that is evicted: while it ends it may go on filling the disk.
/// Source: k8s.io/kubernetes/pkg/kubelet/eviction, `immediateEvictionGracePeriodSeconds`.
const EVICTED_GRACE_S: u32 = 1;
/// Milliseconds between SIGTERM and SIGKILL for one that is told when the pod's time is over, as in Kubernetes.
pub(super) const LEAST_GRACE_MS: u64 = 2000;
/// Milliseconds after SIGKILL after which a pod is taken down although no end was reported.
const KILL_PATIENCE_MS: u64 = 5000;
/// Milliseconds after which a signal that did not help is sent again.
const SIGNAL_RETRY_MS: u64 = 1000;

/// Ends all containers; when none runs any more, or none can be ended, `last`.
pub(super) fn wind_down(pod: &mut Pod, now_ms: u64, wake: &mut Wake, last: (UnderWay, PodOp)) -> Next {
    let grace_s = pod
        .config
        .as_ref()
        .map_or(UNKNOWN_GRACE_S, |c| c.termination_grace_s);
    let grace_s = match pod.evicted {
        Some(_) => grace_s.min(EVICTED_GRACE_S),
        None => grace_s,
    };
    let asked_ms = now_ms + u64::from(grace_s) * 1000;
    // Whoever asks again may shorten the time, never lengthen it.
    let end_at_ms = pod.end_at_ms.map_or(asked_ms, |before| before.min(asked_ms));
    if pod.end_at_ms.is_some_and(|before| end_at_ms < before) {
        let endings = pod.containers.values_mut().filter_map(|c| c.ending.as_mut());
        endings.for_each(|ending| ending.kill_at_ms = ending.kill_at_ms.min(end_at_ms));
    }
    pod.end_at_ms = Some(end_at_ms);
    for name in to_end(pod, wake.later(now_ms, end_at_ms)) {
        if let Some(container) = pod.containers.get_mut(&name) {
            container.ending.get_or_insert(Ending {
                kill_at_ms: end_at_ms.max(now_ms + LEAST_GRACE_MS.min(u64::from(grace_s) * 1000)),
                ..Ending::default()
            });
        }
    }
    if let Some(next) = signal(pod, now_ms, wake) {
        return Some(next);
    }
    let mut hopeless_ms = 0;
    for container in pod.containers.values().filter(|c| c.running()) {
        // Without an order to end it waits for others, at most until the pod's time is over.
        let kill_at_ms = container.ending.map_or(end_at_ms, |ending| ending.kill_at_ms);
        hopeless_ms = hopeless_ms.max(kill_at_ms + KILL_PATIENCE_MS);
    }
    if wake.later(now_ms, hopeless_ms) || wake.later(now_ms, pod.backoff.not_before_ms) {
        return None;
    }
    Some(last)
}

/// Which containers have to end now: sidecars after all others, the last of them first. When the time is over, all.
fn to_end(pod: &Pod, in_time: bool) -> Vec<String> {
    let running = |name: &String| pod.containers.get(name).is_some_and(Container::running);
    let config = pod.config.iter().flat_map(|config| &config.containers);
    let sidecars: Vec<&String> = config
        .filter(|c| c.role == ContainerRole::Sidecar)
        .map(|c| &c.name)
        .collect();
    let others = pod.containers.keys().filter(|name| !sidecars.contains(name));
    let others: Vec<String> = others.filter(|name| running(name)).cloned().collect();
    let mut last_sidecars = sidecars.into_iter().rev().filter(|name| running(name)).cloned();
    if !in_time {
        others.into_iter().chain(last_sidecars).collect()
    } else if others.is_empty() {
        last_sidecars.next().into_iter().collect()
    } else {
        others
    }
}

/// SIGTERM to those that were not told yet, SIGKILL to those whose time is over.
pub(super) fn signal(pod: &mut Pod, now_ms: u64, wake: &mut Wake) -> Next {
    let (mut term, mut kill) = (Vec::new(), Vec::new());
    let config = pod.config.clone();
    let hooked = |name: &String| {
        let mut all = config.iter().flat_map(|config| &config.containers);
        all.any(|c| c.name == *name && c.pre_stop.is_some())
    };
    for (name, container) in &mut pod.containers {
        if !container.running() {
            continue;
        }
        let Some(ending) = &mut container.ending else {
            continue;
        };
        if hooked(name) && ending.pre_stop != HookState::Done {
            // A hook that hangs until the time is over is given up.
            if wake.later(now_ms, ending.kill_at_ms) {
                continue;
            }
            // Without any time it was not begun.
            if ending.pre_stop != HookState::Due {
                ending.kill_at_ms = now_ms + LEAST_GRACE_MS;
                let why = format!("container {name}: PreStopHook failed: it did not end in the time to end");
                pod.troubles.note(now_ms, Trouble::FailedPreStopHook, why);
            }
            ending.pre_stop = HookState::Done;
        }
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
