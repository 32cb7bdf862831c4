//! What is done when a container has started, and before it is told to end: by the rules of Kubernetes.

use gantry_nodeagent_api::{ContainerConfig, Hook, PodConfig, Trouble};

use super::state::{Container, Ending, HookState, Pod};
use super::stop::LEAST_GRACE_MS;
use super::{Action, RequestId, State, end, sessions};

/// How long a hook after the start may take, in milliseconds. Kubernetes sets no bound; this one is on a helper's life.
const POST_START_MS: u64 = 3_600_000;
/// After how long a hook after the start that has not ended is told, in milliseconds.
const SLOW_MS: u64 = 10_000;

/// Asks for the hooks that are due.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    for uid in state.uids() {
        let pod = &state.pods[&uid];
        let Some(config) = pod.config.clone() else {
            continue;
        };
        let address = sessions::address_of(pod);
        for wanted in &config.containers {
            let id = state.last_id + 1;
            let pod = state.pods.get_mut(&uid).expect("just listed");
            if let Some(at_ms) = slow(pod, &wanted.name, now_ms) {
                state.wake_at(at_ms);
            }
            let pod = state.pods.get_mut(&uid).expect("just listed");
            let container = pod.containers.get_mut(&wanted.name);
            let Some((hook, timeout_ms)) = container.and_then(|c| due(c, wanted, now_ms, id)) else {
                continue;
            };
            state.last_id = id;
            actions.push(Action::Hook {
                id,
                uid: uid.clone(),
                container: wanted.name.clone(),
                address,
                hook,
                timeout_ms,
            });
        }
    }
}

/// Tells of a hook after the start that does not end; or when that is to be looked at.
fn slow(pod: &mut Pod, name: &str, now_ms: u64) -> Option<u64> {
    let container = pod.containers.get(name)?;
    let run = container.run.as_ref().filter(|_| container.running())?;
    if !matches!(container.post_start, HookState::UnderWay(_)) {
        return None;
    }
    let at_ms = run.started_at_ms.saturating_add(SLOW_MS);
    if now_ms < at_ms {
        return Some(at_ms);
    }
    let why =
        format!("container {name}: its PostStartHook has not ended yet; until then it counts as not started");
    pod.troubles.note(now_ms, Trouble::FailedPostStartHook, why);
    None
}

fn due(
    container: &mut Container,
    wanted: &ContainerConfig,
    now_ms: u64,
    id: RequestId,
) -> Option<(Hook, u64)> {
    if !container.running() {
        return None;
    }
    let (stage, hook, timeout_ms) = match &mut container.ending {
        None => (&mut container.post_start, &wanted.post_start, POST_START_MS),
        Some(ending) => {
            let left_ms = ending.kill_at_ms.saturating_sub(now_ms);
            (&mut ending.pre_stop, &wanted.pre_stop, left_ms)
        }
    };
    if *stage != HookState::Due {
        return None;
    }
    let hook = hook.clone()?;
    *stage = HookState::UnderWay(id);
    Some((hook, timeout_ms))
}

/// A container's hook was done, or failed: what is to be told of it is.
pub(super) fn done(pod: &mut Pod, name: &str, now_ms: u64, id: RequestId, result: Result<(), String>) {
    let (Some(config), Some(container)) = (pod.config.clone(), pod.containers.get_mut(name)) else {
        return;
    };
    let goes_on = container.running() && container.ending.is_none() && !pod.stopping;
    let Some(trouble) = answered(container, &config, now_ms, id, result) else {
        return;
    };
    let message = format!("container {name}: {}", container.message);
    pod.troubles.note(now_ms, trouble, message);
    let wanted = config.containers.iter().find(|c| c.name == name);
    let kills = goes_on && trouble == Trouble::FailedPostStartHook;
    if let Some(wanted) = wanted.filter(|_| kills) {
        let why = end::killing(wanted, &config, "failed its PostStartHook");
        pod.troubles.note(now_ms, Trouble::Killing, why);
    }
}

/// A hook was done, or failed: a container whose hook after the start fails is ended, one that is to end is told now. What is
/// to be told of it is returned, in the container's message.
fn answered(
    container: &mut Container,
    config: &PodConfig,
    now_ms: u64,
    id: RequestId,
    result: Result<(), String>,
) -> Option<Trouble> {
    if container.post_start == HookState::UnderWay(id) {
        container.post_start = HookState::Done;
        if let Err(why) = result {
            container.message = format!("PostStartHook failed: {why}");
            container.ending.get_or_insert(Ending {
                kill_at_ms: now_ms + u64::from(config.termination_grace_s) * 1000,
                ..Ending::default()
            });
            return Some(Trouble::FailedPostStartHook);
        }
    } else if let Some(ending) = &mut container.ending
        && ending.pre_stop == HookState::UnderWay(id)
    {
        ending.pre_stop = HookState::Done;
        ending.kill_at_ms = ending.kill_at_ms.max(now_ms + LEAST_GRACE_MS);
        if let Err(why) = result {
            container.message = format!("PreStopHook failed: {why}");
            return Some(Trouble::FailedPreStopHook);
        }
    }
    None
}
