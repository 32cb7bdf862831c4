//! Whether a pod has ended for good, and how.

use gantry_nodeagent_api::{PodConfig, PodDesired, PodReason, RestartPolicy};

use super::state::{Container, Pod};

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) failed: bool,
    /// Why the node has ended it; `None` if it ended by itself.
    pub(super) reason: Option<PodReason>,
    /// False: an end was concluded from the silence of its shim.
    pub(super) sure: bool,
}

impl Verdict {
    /// On a pod of which no record tells more than that it has ended.
    pub(super) const UNKNOWN: Self = Self {
        failed: true,
        reason: None,
        sure: true,
    };
}

/// The verdict on a pod, if it has ended or has to end now.
pub(super) fn verdict(pod: &Pod, config: &PodConfig, now_ms: u64) -> Option<Verdict> {
    let all = || config.containers.iter().map(|c| pod.containers.get(&c.name));
    let ended = all().all(|c| c.is_some_and(|c| finished(c, config.restart_policy)));
    let last_end_ms = all()
        .flatten()
        .filter_map(|c| Some(c.run.as_ref()?.exit.as_ref()?.at_ms))
        .max();
    let over_at_ms = if ended { last_end_ms } else { Some(now_ms) };
    let too_late = config
        .deadline_ms
        .is_some_and(|deadline| over_at_ms >= Some(deadline));
    if !ended && !too_late && config.desired != PodDesired::Keep {
        return None;
    }
    let well = |c: &Container| {
        c.run
            .as_ref()
            .and_then(|run| run.exit.as_ref())
            .is_some_and(|e| e.code == 0)
    };
    Some(Verdict {
        failed: too_late || !all().all(|c| c.is_some_and(well)),
        reason: too_late.then_some(PodReason::DeadlineExceeded),
        sure: !all().flatten().any(|c| c.presumed),
    })
}

/// It ended, and does not start again.
pub(super) fn finished(container: &Container, policy: RestartPolicy) -> bool {
    let Some(exit) = container.run.as_ref().and_then(|run| run.exit.as_ref()) else {
        return false;
    };
    match policy {
        RestartPolicy::Always => false,
        RestartPolicy::OnFailure => exit.code == 0,
        RestartPolicy::Never => true,
    }
}
