//! What events change in the state. Deciding comes after.

use gantry_nodeagent_api::{EndReason, Trouble, WaitingReason};

use super::reload::Reload;
use super::state::{Container, HookState, MemoryRefused, Owned, Pod, UnderWay};
use super::{
    Action, Bounds, Event, Exit, FailureKind, PodDone, PodFailure, Run, State, accept, adopt, claims, cpus,
    hooks, network, probes, reload, stop, storage, troubles,
};

/// Milliseconds of running after which a container counts as healthy again.
const STABLE_MS: u64 = 60_000;
/// Most characters of a program's last line that are passed on.
const LAST_WORDS: usize = 200;

pub(super) fn note(state: &mut State, now_ms: u64, event: Event, actions: &mut Vec<Action>) {
    match event {
        Event::Start(observed) => adopt::start(state, now_ms, observed),
        Event::Connected => state.status_due = true,
        Event::Config(config) => accept::receive(state, config, actions),
        Event::Persisted { id, result } => accept::persisted(state, now_ms, id, result, actions),
        Event::NetworkSynced { id, result } => network::synced(state, now_ms, id, result),
        Event::PodDone { id, uid, result } => {
            if let Some(pod) = state.pods.get_mut(&uid)
                && let Some((_, what)) = pod.under_way.take_if(|(awaited, _)| *awaited == id)
            {
                match result {
                    Ok(done) => {
                        state.network.stale |= moves_subnets(pod, &done);
                        succeeded(pod, now_ms, what, done);
                    }
                    Err(failure) => failed(pod, now_ms, what, failure),
                }
            }
        }
        Event::Container { uid, container, run } => {
            if let Some(pod) = state.pods.get_mut(&uid) {
                let container = pod.containers.entry(container).or_default();
                let presumed = container.presumed;
                observe_run(container, now_ms, run);
                // The shim was not dead: what ran before it fell silent counts.
                if presumed && container.running() {
                    pod.containers.values_mut().for_each(|c| c.outdated = false);
                }
            }
        }
        Event::ShimGone { uid } => {
            if let Some(pod) = state.pods.get_mut(&uid) {
                shim_gone(pod, now_ms);
            }
        }
        Event::Probed {
            id,
            uid,
            container,
            result,
        } => {
            probes::answered(state, now_ms, id, &uid, &container, result);
        }
        Event::Hooked {
            id,
            uid,
            container,
            result,
        } => {
            if let Some(pod) = state.pods.get_mut(&uid) {
                let reloaded = reload::done(pod, &container, now_ms, id, &result);
                if !reloaded {
                    hooks::done(pod, &container, now_ms, id, result);
                }
            }
        }
        Event::Sessions { id, uid, result } => {
            if let Some(pod) = state.pods.get_mut(&uid) {
                let unknown = pod.sessions.answered(id, result);
                match unknown {
                    Some(why) => pod.troubles.note(now_ms, Trouble::SessionsUnknown, why),
                    None => pod.troubles.clear(Trouble::SessionsUnknown),
                }
            }
        }
        Event::Trouble {
            pod,
            trouble,
            message,
        } => troubles::seen(state, now_ms, &pod, trouble, message),
        Event::DiskSpace(space) => storage::measured(state, now_ms, space),
        Event::PodUsage { uid, usage } => {
            if let Some(pod) = state.pods.get_mut(&uid) {
                pod.usage = Some(usage);
            }
        }
        Event::ClaimUsage {
            claim,
            bytes,
            entries,
        } => claims::counted(state, &claim, bytes, entries),
        Event::ClaimRemoved { id, result } => claims::removed(state, now_ms, id, &result),
        Event::LayersShed { id } => storage::shed(state, id),
        Event::Counters(counters) => state.counters = counters,
        Event::Tick => {}
    }
}

/// Its subnets have gone with the network that it had before, or are free for another.
fn moves_subnets(pod: &Pod, done: &PodDone) -> bool {
    let ends = match done {
        PodDone::Prepared(_) => !pod.prepared,
        PodDone::Released | PodDone::TornDown => true,
        PodDone::Applied | PodDone::Started(_) | PodDone::Signalled => false,
    };
    ends && pod
        .config
        .as_ref()
        .is_some_and(|config| !config.subnets.is_empty())
}

fn succeeded(pod: &mut Pod, now_ms: u64, what: UnderWay, done: PodDone) {
    match (what, done) {
        (UnderWay::Prepare { config }, PodDone::Prepared(images)) => {
            pod.prepared = true;
            pod.files_of = Some(config);
            pod.files_backoff.reset();
            pod.backoff.reset();
            pod.message.clear();
            for (name, image_id) in images {
                let container = pod.containers.entry(name).or_default();
                container.image_id = image_id;
                container.trouble = None;
            }
        }
        (UnderWay::Apply { container, bounds }, PodDone::Applied) => {
            let Bounds {
                limits, numa_nodes, ..
            } = bounds;
            let container = pod.containers.entry(container).or_default();
            container
                .memory_refused
                .take_if(|refused| refused.is(&limits.resources));
            container.owned = Owned {
                exclusive: limits.resources.cpus.clone(),
                shared: limits.shared_cpus.clone(),
            };
            container.guessed = false;
            container.in_force = Some(limits);
            container.numa_nodes = Some(numa_nodes);
            pod.backoff.reset();
            if container.memory_refused.is_none() {
                container.limits_message.clear();
            }
        }
        (UnderWay::Start { container }, PodDone::Started(run)) => {
            let container = pod.containers.entry(container).or_default();
            if run
                .exit
                .as_ref()
                .is_some_and(|exit| exit.reason == EndReason::StartError)
            {
                container.forget_limits();
            }
            observe_run(container, now_ms, run);
            container.reload = Reload::started(pod.files_of.clone());
        }
        (UnderWay::Release, PodDone::Released) => released(pod),
        (UnderWay::Teardown, PodDone::TornDown) => {
            *pod = Pod {
                stopping: true,
                ..Pod::default()
            }
        }
        // A signal needs no more; an answer of another kind is none.
        _ => {}
    }
}

/// Nothing of the pod is in force any more.
fn released(pod: &mut Pod) {
    pod.prepared = false;
    pod.released = true;
    pod.end_at_ms = None;
    pod.backoff.reset();
    pod.message.clear();
    for container in pod.containers.values_mut() {
        *container = Container {
            run: container.run.take(),
            before: container.before.take(),
            last_attempt: container.last_attempt,
            image_id: std::mem::take(&mut container.image_id),
            message: std::mem::take(&mut container.message),
            trouble: container.trouble,
            ..Container::default()
        };
    }
}

fn failed(pod: &mut Pod, now_ms: u64, what: UnderWay, failure: PodFailure) {
    match what {
        UnderWay::Prepare { .. } if pod.prepared => {
            pod.files_backoff.failed(now_ms);
            pod.message = failure.message;
        }
        UnderWay::Prepare { .. } | UnderWay::Release | UnderWay::Teardown => {
            pod.backoff.failed(now_ms);
            if let FailureKind::Image { container } = failure.kind {
                let again = pod.backoff.is_repeated();
                pod.containers.entry(container).or_default().trouble = Some(match again {
                    false => WaitingReason::ErrImagePull,
                    true => WaitingReason::ImagePullBackOff,
                });
            }
            pod.message = failure.message;
        }
        UnderWay::Apply { container, bounds } => {
            let resources = bounds.limits.resources;
            let container = pod.containers.entry(container).or_default();
            container.limits_message = failure.message;
            if failure.kind == FailureKind::MemoryInUse && container.in_force.is_some() {
                container.memory_refused = Some(MemoryRefused {
                    memory_bytes: resources.memory_bytes,
                    hugepages: resources.hugepages,
                    retry_ms: now_ms + cpus::MEMORY_RETRY_MS,
                });
                if let Some(current) = &container.in_force {
                    let (exclusive, shared) = (current.resources.cpus.clone(), current.shared_cpus.clone());
                    container.owned = Owned { exclusive, shared };
                }
            } else {
                container.forget_limits();
                pod.backoff.failed(now_ms);
            }
        }
        UnderWay::Start { container } => {
            let container = pod.containers.entry(container).or_default();
            container.restart.failed(now_ms);
            // What makes no sense is found before anything is made. Whatever else failed may have taken the cgroup with it.
            if failure.kind != FailureKind::Config {
                container.forget_limits();
            }
            if !container.running() {
                container.message = failure.message;
                container.trouble = Some(match failure.kind {
                    FailureKind::Config => WaitingReason::CreateContainerConfigError,
                    _ => WaitingReason::CreateContainerError,
                });
            }
        }
        UnderWay::Signal { containers, kill } => stop::not_signalled(pod, now_ms, &containers, kill),
    }
}

/// Takes in what is known of a run; news may come late or twice.
fn observe_run(container: &mut Container, now_ms: u64, run: Run) {
    let known = container.run.as_ref();
    let same = known.filter(|known| known.attempt == run.attempt);
    let older = known.is_some_and(|known| known.attempt > run.attempt);
    if container.presumed && same.is_some() {
        return correct(container, run);
    }
    if older || same.is_some_and(|known| known.exit.is_some() || run.exit.is_none()) {
        return;
    }
    if same.is_none() {
        container.probes = Default::default();
        container.ending = None;
        container.message.clear();
        container.trouble = None;
        container.outdated = false;
        container.post_start = HookState::Due;
        if let Some(ended) = known.and_then(Run::end) {
            container.before = Some(ended);
        }
    }
    container.last_attempt = container.last_attempt.max(Some(run.attempt));
    container.presumed = false;
    if let Some(exit) = &run.exit {
        ended(container, now_ms, &run, exit);
    }
    container.run = Some(run);
}

/// A run of which the end was presumed: this is what became of it.
fn correct(container: &mut Container, run: Run) {
    container.presumed = false;
    container.message = run.exit.as_ref().map(ended_with).unwrap_or_default();
    container.run = Some(run);
}

fn ended(container: &mut Container, now_ms: u64, run: &Run, exit: &Exit) {
    if exit.at_ms.saturating_sub(run.started_at_ms) >= STABLE_MS {
        container.restart.reset();
    }
    container.restart.ended(now_ms);
    container.probes = Default::default();
    container.ending = None;
    container.message = ended_with(exit);
}

/// With the last line of what it said of its end, which is the cause where a program tells a chain of them.
fn ended_with(exit: &Exit) -> String {
    if exit.reason == EndReason::StartError {
        return exit.message.clone();
    }
    let code = format!("ended with code {}", exit.code);
    match exit.message.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(last) => format!("{code}: {}", last.chars().take(LAST_WORDS).collect::<String>()),
        None => code,
    }
}

/// A shim's containers die with it. If it was there all the same, it tells when it is listened to again.
fn shim_gone(pod: &mut Pod, now_ms: u64) {
    pod.prepared = false;
    for container in pod.containers.values_mut() {
        container.outdated = true;
        if let Some(run) = container.run.clone().filter(|run| run.exit.is_none()) {
            let exit = Some(Exit::with(adopt::KILLED, now_ms));
            observe_run(container, now_ms, Run { exit, ..run });
            container.presumed = true;
        }
    }
}
