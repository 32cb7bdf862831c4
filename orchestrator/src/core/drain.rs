//! The drain of one pod as a typed state machine. Its state is in the pod's annotation, so it survives any restart.
//!
//! ```text
//! Draining    takes no new flows; waits until it reports no sessions, on reports made after every node applied that
//! Quiescing   its flows are gone; waits until every node applied that and it stayed without sessions for a while
//! Stopping    is being stopped
//! ```
//! There is no cap on the time. A pod that does not count its sessions passes through as soon as the nodes have applied each step.

use gantry_api::{DrainPhase, DrainState, PodExtras};
use gantry_catalog::DrainMethod;
use gantry_nodeagent_api::NodeConfig;
use k8s_openapi::api::core::v1::Pod;

use super::world::Work;
use super::{meta, pods};

/// Sessions must be reported as 0 for this long before flows are taken away: longer than an agent's interval between two
/// readings while a pod drains, so that a session that began just before the drain is not overlooked.
pub const SETTLE_MS: u64 = 1_000;

/// What a step of the machine depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Since when every node has had the configuration that this phase needs; `None` while one has not.
    pub in_force_since_ms: Option<u64>,
    /// The function counts its sessions.
    pub counted: bool,
    /// Since when it has reported no sessions; `None` while it reports some, or nothing.
    pub idle_since_ms: Option<u64>,
    /// When its node reported last.
    pub reported_ms: u64,
    /// How long it must stay without sessions once its flows are gone.
    pub quiet_ms: u64,
    /// It never got a node, or has ended by itself: there is nothing to wait for.
    pub lifeless: bool,
}

/// The next state; the same one while there is something to wait for.
pub fn step(state: &DrainState, facts: &Facts, now_ms: u64) -> DrainState {
    let next = |phase| DrainState {
        phase,
        since_ms: now_ms,
        ..state.clone()
    };
    if facts.lifeless {
        return if state.phase == DrainPhase::Stopping {
            state.clone()
        } else {
            next(DrainPhase::Stopping)
        };
    }
    match state.phase {
        DrainPhase::Draining if is_idle(state, facts, SETTLE_MS) => next(DrainPhase::Quiescing),
        DrainPhase::Quiescing if is_idle(state, facts, facts.quiet_ms) => next(DrainPhase::Stopping),
        _ => state.clone(),
    }
}

/// No sessions for `enough_ms` since the phase is in force on every node, by what was reported.
fn is_idle(state: &DrainState, facts: &Facts, enough_ms: u64) -> bool {
    let Some(in_force) = facts.in_force_since_ms else {
        return false;
    };
    if !facts.counted {
        return true;
    }
    let Some(idle) = facts.idle_since_ms else {
        return false;
    };
    facts.reported_ms >= idle.max(in_force).max(state.since_ms) + enough_ms
}

/// Steps the drain of every pod, and stops those that have nothing left to lose.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<Pod>() {
        let Some(pod) = work.get::<Pod>(&key) else {
            continue;
        };
        let Some(state) = pods::drain(&pod) else { continue };
        let facts = facts(work, &pod, &state, &pods::extras(&pod));
        let next = step(&state, &facts, work.now_ms);
        if next != state
            && let Some(pod) = work.edit::<Pod>(&key)
        {
            pods::set_drain(pod, Some(&next));
        }
        if next.phase == DrainPhase::Stopping {
            work.retire::<Pod>(&key);
        }
    }
}

fn facts(work: &Work<'_>, pod: &Pod, state: &DrainState, extras: &PodExtras) -> Facts {
    let uid = meta::uid(&pod.metadata);
    let agent = pods::node(pod).and_then(|node| work.agents.get(node));
    let counted = extras.drain.method != DrainMethod::None && extras.drain.sessions.is_some();
    Facts {
        in_force_since_ms: in_force_since(work, uid, state.phase),
        counted,
        idle_since_ms: agent.and_then(|a| a.idle_since_ms.get(uid).copied()),
        reported_ms: agent.map_or(0, |a| a.received_ms),
        quiet_ms: u64::from(extras.drain.quiet_seconds) * 1000,
        lifeless: pods::node(pod).is_none() || pods::is_over(pod),
    }
}

/// Since when every node that has a configuration has applied one that says about the pod what the phase needs.
fn in_force_since(work: &Work<'_>, uid: &str, phase: DrainPhase) -> Option<u64> {
    let mut since_ms = 0;
    for (node, config) in work.sent {
        let agent = work.agents.get(node)?;
        if !says(config, uid, phase) || agent.applied() < config.generation {
            return None;
        }
        since_ms = since_ms.max(agent.applied_at_ms);
    }
    Some(since_ms)
}

/// In `Draining` the pod is no backend that takes new flows; from then on it is no backend.
fn says(config: &NodeConfig, uid: &str, phase: DrainPhase) -> bool {
    let ports = config.services.values().flat_map(|s| &s.ports);
    let mut entries = ports.flat_map(|p| &p.backends).filter(|b| b.pod == uid);
    entries.all(|b| phase == DrainPhase::Draining && b.draining)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(phase: DrainPhase, since_ms: u64) -> DrainState {
        DrainState {
            phase,
            since_ms,
            sessions_before: 3,
        }
    }

    const QUIET: Facts = Facts {
        in_force_since_ms: Some(1_000),
        counted: true,
        idle_since_ms: Some(2_000),
        reported_ms: 20_000,
        quiet_ms: 5_000,
        lifeless: false,
    };

    #[test]
    fn walks_through_its_phases_when_all_is_quiet() {
        let draining = state(DrainPhase::Draining, 500);
        let quiescing = step(&draining, &QUIET, 20_000);
        assert_eq!(
            (quiescing.phase, quiescing.since_ms, quiescing.sessions_before),
            (DrainPhase::Quiescing, 20_000, 3)
        );
        assert_eq!(
            step(&quiescing, &QUIET, 20_001),
            quiescing,
            "quiet counts from the start of the phase"
        );
        let later = Facts {
            reported_ms: 25_000,
            ..QUIET
        };
        assert_eq!(step(&quiescing, &later, 25_000).phase, DrainPhase::Stopping);
    }

    #[test]
    fn waits_while_there_are_sessions_however_long() {
        let busy = Facts {
            idle_since_ms: None,
            reported_ms: u64::MAX / 2,
            ..QUIET
        };
        for phase in [DrainPhase::Draining, DrainPhase::Quiescing] {
            assert_eq!(step(&state(phase, 0), &busy, u64::MAX / 2).phase, phase);
        }
    }

    #[test]
    fn a_report_from_before_the_nodes_applied_it_does_not_count() {
        let stale = Facts {
            reported_ms: 2_500,
            ..QUIET
        };
        assert_eq!(
            step(&state(DrainPhase::Draining, 500), &stale, 90_000).phase,
            DrainPhase::Draining
        );
        let not_in_force = Facts {
            in_force_since_ms: None,
            ..QUIET
        };
        assert_eq!(
            step(&state(DrainPhase::Draining, 500), &not_in_force, 90_000).phase,
            DrainPhase::Draining
        );
    }

    #[test]
    fn without_a_count_only_the_nodes_are_waited_for() {
        let uncounted = Facts {
            counted: false,
            idle_since_ms: None,
            ..QUIET
        };
        assert_eq!(
            step(&state(DrainPhase::Draining, 0), &uncounted, 1).phase,
            DrainPhase::Quiescing
        );
        assert_eq!(
            step(&state(DrainPhase::Quiescing, 0), &uncounted, 1).phase,
            DrainPhase::Stopping
        );
    }

    #[test]
    fn what_never_ran_stops_at_once() {
        let lifeless = Facts {
            lifeless: true,
            ..Facts::default()
        };
        assert_eq!(
            step(&state(DrainPhase::Draining, 0), &lifeless, 1).phase,
            DrainPhase::Stopping
        );
    }
}
