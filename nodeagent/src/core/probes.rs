//! Startup, readiness and liveness, by the rules of Kubernetes.

use gantry_nodeagent_api::{ContainerConfig, Probe, Readiness, Trouble};

use super::state::{Container, Ending, HookState};
use super::{Action, RequestId, State, end, sessions};

/// Shortest time between two probes in milliseconds.
const SHORTEST_PERIOD_MS: u64 = 100;
const DEFAULT_TIMEOUT_MS: u64 = 1000;

/// The three probes of one run of a container.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    /// When the run began: by its shim's clock, but no later than when this core first saw it. The two clocks need not agree.
    since_ms: Option<u64>,
    startup: Check,
    readiness: Check,
    liveness: Check,
}

/// Results of one probe.
#[derive(Clone, Debug, Default)]
struct Check {
    /// Passed (startup, readiness) as often in a row as it takes.
    decided: bool,
    /// Failed (readiness) as often in a row as it takes. Neither of the two: it is not known yet.
    failed: bool,
    successes: u32,
    failures: u32,
    next_ms: u64,
    under_way: Option<RequestId>,
    message: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }
}

impl Probes {
    fn check(&mut self, purpose: Purpose) -> &mut Check {
        match purpose {
            Purpose::Startup => &mut self.startup,
            Purpose::Readiness => &mut self.readiness,
            Purpose::Liveness => &mut self.liveness,
        }
    }

    /// The first probe that fails, and why.
    fn complaint(&self) -> Option<(&'static str, &str)> {
        let checks = [
            ("Startup", &self.startup),
            ("Readiness", &self.readiness),
            ("Liveness", &self.liveness),
        ];
        let mut said = checks
            .into_iter()
            .map(|(name, check)| (name, check.message.as_str()));
        said.find(|(_, message)| !message.is_empty())
    }

    /// Which checks are due for a container that runs.
    fn active(&self, config: &ContainerConfig) -> Vec<(Purpose, Probe)> {
        let list = match &config.startup {
            Some(probe) if !self.startup.decided => vec![(Purpose::Startup, Some(probe.clone()))],
            _ => vec![
                (Purpose::Readiness, config.readiness.clone()),
                (Purpose::Liveness, config.liveness.clone()),
            ],
        };
        list.into_iter()
            .filter_map(|(purpose, probe)| Some((purpose, probe?)))
            .collect()
    }
}

impl Container {
    /// Runs, and the hook after its start and its startup probe have passed, if it has any.
    pub(super) fn started(&self, config: &ContainerConfig) -> bool {
        let hooked = config.post_start.is_none() || self.post_start == HookState::Done;
        self.running() && hooked && (config.startup.is_none() || self.probes.startup.decided)
    }

    /// Has started, and passed its readiness probe, if it has one.
    pub(super) fn ready(&self, config: &ContainerConfig) -> bool {
        self.started(config)
            && self.ending.is_none()
            && (config.readiness.is_none() || self.probes.readiness.decided)
    }

    /// What its probes say of this run. A pod that is being stopped is not asked any more.
    pub(super) fn readiness(&self, config: &ContainerConfig) -> Readiness {
        if self.ready(config) {
            Readiness::Passed
        } else if !self.running() || self.ending.is_some() || self.probes.readiness.failed {
            Readiness::Failed
        } else {
            Readiness::Unknown
        }
    }

    /// What the probes have against it.
    pub(super) fn probe_message(&self) -> String {
        let found = self.probes.complaint();
        found.map_or_else(String::new, |(name, message)| {
            format!("{} probe: {message}", name.to_ascii_lowercase())
        })
    }
}

/// Asks what is due.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    for uid in state.uids() {
        let pod = &state.pods[&uid];
        let Some(config) = pod.config.clone().filter(|_| !pod.stopping) else {
            continue;
        };
        let address = sessions::address_of(pod);
        for wanted in &config.containers {
            let Some(container) = state.pods[&uid].containers.get(&wanted.name) else {
                continue;
            };
            if !container.running() || container.ending.is_some() {
                continue;
            }
            let started_at_ms = container.run.as_ref().map_or(now_ms, |run| run.started_at_ms);
            for (purpose, mut probe) in container.probes.active(wanted) {
                let id = state.last_id + 1;
                let pod = state.pods.get_mut(&uid).expect("just listed");
                let container = pod.containers.get_mut(&wanted.name).expect("just found");
                let since_ms = container.probes.since_ms.get_or_insert(started_at_ms.min(now_ms));
                let first_ms = *since_ms + probe.initial_delay_ms;
                let check = container.probes.check(purpose);
                if check.under_way.is_some() {
                    continue;
                }
                let due_ms = check.next_ms.max(first_ms);
                if now_ms < due_ms {
                    state.wake_at(due_ms);
                    continue;
                }
                check.under_way = Some(id);
                check.next_ms = now_ms + probe.period_ms.max(SHORTEST_PERIOD_MS);
                if probe.timeout_ms == 0 {
                    probe.timeout_ms = DEFAULT_TIMEOUT_MS;
                }
                state.last_id = id;
                let container = wanted.name.clone();
                actions.push(Action::Probe {
                    id,
                    uid: uid.clone(),
                    container,
                    address,
                    probe,
                });
            }
        }
    }
}

/// A probe was answered.
pub(super) fn answered(
    state: &mut State,
    now_ms: u64,
    id: RequestId,
    uid: &str,
    name: &str,
    result: Result<(), String>,
) {
    let Some(pod) = state.pods.get_mut(uid) else {
        return;
    };
    let Some(config) = pod.config.as_ref() else { return };
    let Some(wanted) = config.containers.iter().find(|c| c.name == name) else {
        return;
    };
    let grace_s = config.termination_grace_s;
    let Some(container) = pod.containers.get_mut(name) else {
        return;
    };
    let purposes = [
        (Purpose::Startup, &wanted.startup),
        (Purpose::Readiness, &wanted.readiness),
        (Purpose::Liveness, &wanted.liveness),
    ];
    for (purpose, probe) in purposes {
        let check = container.probes.check(purpose);
        if check.under_way != Some(id) {
            continue;
        }
        check.under_way = None;
        let Some(probe) = probe else { return };
        let grace_ms = u64::from(probe.termination_grace_s.unwrap_or(grace_s)) * 1000;
        let passed = result.is_ok();
        let kills = count(check, purpose, probe, result) && container.ending.is_none();
        if kills {
            container.ending = Some(Ending {
                kill_at_ms: now_ms + grace_ms,
                ..Ending::default()
            });
        }
        match container.probes.complaint() {
            Some((name, why)) if !passed => {
                let why = format!("{name} probe failed: {why}");
                pod.troubles.note(now_ms, Trouble::Unhealthy, why);
            }
            Some(_) => {}
            None => pod.troubles.clear(Trouble::Unhealthy),
        }
        if kills && !pod.stopping {
            let why = format!("failed {} probe", purpose.name());
            pod.troubles
                .note(now_ms, Trouble::Killing, end::killing(wanted, config, &why));
        }
        return;
    }
}

/// Takes a result in; true if the container has to be restarted for it.
fn count(check: &mut Check, purpose: Purpose, probe: &Probe, result: Result<(), String>) -> bool {
    match result {
        Ok(()) => {
            check.message.clear();
            check.failures = 0;
            check.successes = check.successes.saturating_add(1);
            let enough = if purpose == Purpose::Readiness {
                probe.success_threshold.max(1)
            } else {
                1
            };
            if purpose != Purpose::Liveness && check.successes >= enough {
                (check.decided, check.failed) = (true, false);
            }
            false
        }
        Err(message) => {
            check.message = message;
            check.successes = 0;
            check.failures = check.failures.saturating_add(1);
            let failed = check.failures >= probe.failure_threshold.max(1);
            if failed && purpose == Purpose::Readiness {
                (check.decided, check.failed) = (false, true);
            }
            failed && purpose != Purpose::Readiness
        }
    }
}
