//! Ending containers: SIGTERM, grace, SIGKILL.

use super::PodOp;
use super::pods::{Next, Wake};
use super::state::{Ending, Pod, UnderWay};

/// Seconds between SIGTERM and SIGKILL for a pod that no configuration knows.
const UNKNOWN_GRACE_S: u32 = 10;
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
    Some(last)
}

/// SIGTERM to those that were not told yet, SIGKILL to those whose time is over.
pub(super) fn signal(pod: &mut Pod, now_ms: u64, wake: &mut Wake) -> Next {
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
