//! Life of a pod: prepare, start, restart; when it has ended, release what it held; tear down.

use std::sync::Arc;

use gantry_nodeagent_api::{ContainerConfig, ContainerRole, PodConfig, PodUid};

use super::end::{Verdict, finished, is_initialized, policy, verdict};
use super::state::{Container, Pod, UnderWay};
use super::stop::{signal, wind_down};
use super::{Action, Limits, PodOp, State, claims, cpus};

/// Asks for the next thing to do of each pod that has nothing under way.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    let eager = state.eager;
    for uid in state.uids() {
        let obstacle = obstacle(state, &uid);
        let pod = state.pods.get_mut(&uid).expect("just listed");
        let mut wake = Wake(None);
        judge(pod, now_ms, &mut wake);
        if pod.under_way.is_some() {
            if let Some(at_ms) = wake.0 {
                state.wake_at(at_ms);
            }
            continue;
        }
        let next = if pod.stopping {
            wind_down(pod, now_ms, &mut wake, (UnderWay::Teardown, PodOp::Teardown))
        } else if pod.released {
            None
        } else if let Some(verdict) = pod.over {
            let release = PodOp::Release {
                sure: verdict.sure,
                keep_logs: pod.evicted.is_none(),
            };
            wind_down(pod, now_ms, &mut wake, (UnderWay::Release, release))
        } else if let Some(config) = pod.config.clone() {
            let network = state.ledger.config.network.clone();
            let network_ready = state.network.synced.is_some();
            match signal(pod, now_ms, &mut wake) {
                Some(op) => Some(op),
                None if obstacle.is_some() => {
                    pod.message = obstacle.unwrap_or_default();
                    None
                }
                None if !pod.prepared => prepare(pod, &config, network, network_ready, now_ms, &mut wake),
                None => start(pod, &config, eager, now_ms, &mut wake)
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

/// Why a pod that is not set up yet cannot be, whatever else is ready.
fn obstacle(state: &State, uid: &PodUid) -> Option<String> {
    let pod = state.pods.get(uid).filter(|pod| !pod.prepared)?;
    claims::obstacle(state, pod.config.as_deref()?)
}

/// Whether the pod has ended. One that was released has, whatever is known of it.
fn judge(pod: &mut Pod, now_ms: u64, wake: &mut Wake) {
    let Some(config) = pod.config.clone().filter(|_| !pod.stopping) else {
        return;
    };
    if pod.released && pod.over.is_some() {
        return;
    }
    pod.over = verdict(pod, &config, now_ms).or(pod.released.then_some(Verdict::UNKNOWN));
    if pod.over.is_none() {
        pod.end_at_ms = None;
    }
    if let (None, Some(deadline_ms)) = (pod.over, config.deadline_ms) {
        wake.later(now_ms, deadline_ms);
    }
}

/// The earliest time at which there is more to do.
pub(super) struct Wake(Option<u64>);

impl Wake {
    /// True if `at_ms` is still to come; then it is remembered.
    pub(super) fn later(&mut self, now_ms: u64, at_ms: u64) -> bool {
        if now_ms < at_ms {
            self.0 = Some(self.0.map_or(at_ms, |w| w.min(at_ms)));
        }
        now_ms < at_ms
    }
}

pub(super) type Next = Option<(UnderWay, PodOp)>;

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

/// The first container, in order, that can be started now. An init container holds back those after it until it has ended
/// well, a sidecar until it is up; once a main container has run, only its own. A main container holds back those that have not
/// run yet until the hook after its start has ended.
fn start(pod: &mut Pod, config: &PodConfig, eager: bool, now_ms: u64, wake: &mut Wake) -> Next {
    let ran = |c: &ContainerConfig| {
        let known = pod.containers.get(&c.name);
        c.role == ContainerRole::Main && known.is_some_and(Container::has_run)
    };
    let begun = config.containers.iter().any(ran);
    let mut hook_runs = false;
    for wanted in &config.containers {
        let container = pod.containers.entry(wanted.name.clone()).or_default();
        let passed = is_initialized(Some(&*container), wanted);
        let again = !(wanted.role == ContainerRole::Init && passed);
        let held = hook_runs && !container.has_run();
        if !container.running()
            && again
            && !held
            && let Some(limits) = startable_in(container, wanted, config).cloned()
            && (eager || !wake.later(now_ms, container.restart.not_before_ms))
            && !wake.later(now_ms, pod.backoff.not_before_ms)
        {
            // A start that fails is no run: its number is given again.
            let attempt = container.last_attempt.map_or(0, |last| last + 1);
            let name = wanted.name.clone();
            let op = PodOp::Start {
                container: name.clone(),
                bounds: cpus::bounds(pod, &name, limits),
                attempt,
                pod: Box::new(PodConfig::clone(config)),
            };
            return Some((UnderWay::Start { container: name }, op));
        }
        if !passed && !begun {
            break;
        }
        hook_runs |= !passed && wanted.role == ContainerRole::Main;
    }
    None
}

/// The limits that are in force, if it may start in them and has not ended for good. A first start waits for all its CPUs, a
/// restart does not.
fn startable_in<'a>(
    container: &'a Container,
    wanted: &ContainerConfig,
    config: &PodConfig,
) -> Option<&'a Limits> {
    let limits = container.in_force.as_ref()?;
    let all_cpus = limits.resources.cpus == wanted.resources.cpus;
    let anew = container.outdated && wanted.role == ContainerRole::Init;
    let over = finished(container, policy(wanted, config)) && !anew;
    (!over && (all_cpus || container.run.is_some())).then_some(limits)
}
