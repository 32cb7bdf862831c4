//! Whether a pod has ended for good, and how.

use gantry_nodeagent_api::{ContainerConfig, ContainerRole, PodConfig, PodDesired, PodReason, RestartPolicy};

use super::state::{Container, HookState, Pod};

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
    let sure = !pod.containers.values().any(|c| c.presumed);
    if pod.evicted.is_some() {
        return Some(Verdict {
            failed: true,
            reason: Some(PodReason::Evicted),
            sure,
        });
    }
    let with = |role| move |c: &&ContainerConfig| c.role == role;
    let found = |c: &ContainerConfig| pod.containers.get(&c.name);
    let all = || {
        config
            .containers
            .iter()
            .filter(with(ContainerRole::Main))
            .map(found)
    };
    let over = |c: &ContainerConfig| found(c).is_some_and(|known| finished(known, policy(c, config)));
    // Sidecars do not keep a pod alive; an init container that has failed for good keeps the others from starting.
    let init_failed = config
        .containers
        .iter()
        .filter(with(ContainerRole::Init))
        .any(|c| over(c) && !found(c).is_some_and(ended_well));
    let ended = init_failed
        || config
            .containers
            .iter()
            .filter(with(ContainerRole::Main))
            .all(over);
    let last_end_ms = config
        .containers
        .iter()
        .filter(|c| c.role != ContainerRole::Sidecar)
        .filter_map(found)
        .filter_map(|c| Some(c.run.as_ref()?.exit.as_ref()?.at_ms))
        .max();
    let over_at_ms = if ended { last_end_ms } else { Some(now_ms) };
    let too_late = config
        .deadline_ms
        .is_some_and(|deadline| over_at_ms >= Some(deadline));
    if !ended && !too_late && config.desired != PodDesired::Keep {
        return None;
    }
    Some(Verdict {
        failed: too_late || init_failed || !all().all(|c| c.is_some_and(ended_well)),
        reason: too_late.then_some(PodReason::DeadlineExceeded),
        sure,
    })
}

/// When a container starts again: sidecars always, init containers until they have ended well, unless the pod never restarts.
pub(super) fn policy(container: &ContainerConfig, config: &PodConfig) -> RestartPolicy {
    match (container.role, config.restart_policy) {
        (ContainerRole::Sidecar, _) => RestartPolicy::Always,
        (ContainerRole::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    }
}

/// What is told of a container that is ended for what is wrong with it.
pub(super) fn killing(container: &ContainerConfig, config: &PodConfig, why: &str) -> String {
    let next = match policy(container, config) {
        RestartPolicy::Never => "",
        RestartPolicy::Always | RestartPolicy::OnFailure => ", will be restarted",
    };
    format!("Container {} {why}{next}", container.name)
}

/// Its last run ended with code 0.
pub(super) fn ended_well(container: &Container) -> bool {
    let exit = container.run.as_ref().and_then(|run| run.exit.as_ref());
    exit.is_some_and(|exit| exit.code == 0)
}

/// It has done what others wait for.
pub(super) fn is_initialized(container: Option<&Container>, wanted: &ContainerConfig) -> bool {
    container.is_some_and(|c| match wanted.role {
        ContainerRole::Init => ended_well(c) && !c.outdated,
        ContainerRole::Sidecar => c.started(wanted),
        // Those after it wait for the hook after its start.
        ContainerRole::Main => wanted.post_start.is_none() || !c.running() || c.post_start == HookState::Done,
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
