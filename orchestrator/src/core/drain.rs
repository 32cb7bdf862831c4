//! The drain of one pod as a typed state machine. Its state is in the pod's annotation, so it survives any restart.
//!
//! ```text
//! Draining    takes no new flows; waits until it reports no sessions, on reports made after every node applied that
//! Quiescing   its flows are gone; waits until every node applied that and it stayed without sessions for a while
//! Stopping    is being stopped
//! ```
//! There is no cap on the time. A pod that does not count its sessions passes through as soon as the nodes have applied each step.

use gantry_api::{DrainPhase, DrainState};
use gantry_nodeagent_api::NodeConfig;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::world::{Key, Work};
use super::{meta, pods, quarantine};

/// Sessions must be reported as 0 for this long before flows are taken away: longer than an agent's interval between two
/// readings while a pod drains, so that a session that began just before the drain is not overlooked.
pub const SETTLE_MS: u64 = 1_000;

/// What a step of the machine depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every node has what this phase needs in force.
    pub in_force: bool,
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
    // The time counts from the first moment, whatever else the nodes are told meanwhile.
    let since_ms = facts.in_force.then(|| state.in_force_since_ms.unwrap_or(now_ms));
    let state = DrainState {
        in_force_since_ms: since_ms,
        ..state.clone()
    };
    let quiet_ms = match state.phase {
        DrainPhase::Stopping => return state,
        DrainPhase::Draining => SETTLE_MS,
        DrainPhase::Quiescing => facts.quiet_ms,
    };
    let phase = match state.phase {
        _ if facts.lifeless => DrainPhase::Stopping,
        _ if !is_idle(&state, facts, quiet_ms) => return state,
        DrainPhase::Draining => DrainPhase::Quiescing,
        DrainPhase::Quiescing | DrainPhase::Stopping => DrainPhase::Stopping,
    };
    DrainState {
        phase,
        since_ms: now_ms,
        in_force_since_ms: None,
        ..state
    }
}

/// No sessions for `enough_ms` since the phase is in force on every node, by what was reported.
fn is_idle(state: &DrainState, facts: &Facts, enough_ms: u64) -> bool {
    let Some(in_force) = state.in_force_since_ms else {
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
        let facts = facts(work, &pod, &state);
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

fn facts(work: &Work<'_>, pod: &Pod, state: &DrainState) -> Facts {
    let uid = meta::uid(&pod.metadata);
    let agent = pods::node(pod).and_then(|node| work.agents.get(node));
    Facts {
        in_force: in_force(work, uid, state),
        counted: pods::counts_sessions(pod),
        idle_since_ms: agent.and_then(|a| a.idle_since_ms.get(uid).copied()),
        reported_ms: agent.map_or(0, |a| a.received_ms),
        quiet_ms: u64::from(pods::extras(pod).drain.quiet_seconds) * 1000,
        lifeless: pods::node(pod).is_none() || pods::is_over(pod),
    }
}

/// On every node the services of a configuration are in force that says about the pod what the phase needs. A node that was deleted
/// does not count.
fn in_force(work: &Work<'_>, uid: &str, state: &DrainState) -> bool {
    work.sent.iter().all(|(name, config)| {
        let key = Key::new("", name);
        let Some(node) = work.get::<Node>(&key) else {
            return !quarantine::has(work, "Node", &key);
        };
        let agent = work.agents.get(name);
        says(config, uid, state.phase)
            && (has_it_since(&node, state) || agent.is_some_and(|a| a.served() >= config.generation))
    })
}

/// A node on which it has been in force goes on having it: every later configuration says the same. One that joined since (whole
/// seconds are all that is known of that) has yet to apply it.
fn has_it_since(node: &Node, state: &DrainState) -> bool {
    let joined = node.metadata.creation_timestamp.as_ref().map(meta::millis);
    joined
        .zip(state.in_force_since_ms)
        .is_some_and(|(joined_ms, since_ms)| joined_ms + 1000 <= since_ms)
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
            in_force_since_ms: Some(since_ms + 500),
        }
    }

    const QUIET: Facts = Facts {
        in_force: true,
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
            step(&quiescing, &QUIET, 20_001).phase,
            DrainPhase::Quiescing,
            "quiet counts from when the phase is in force"
        );
        let in_force = step(&quiescing, &QUIET, 20_001);
        let later = Facts {
            reported_ms: 25_001,
            ..QUIET
        };
        assert_eq!(step(&in_force, &later, 25_001).phase, DrainPhase::Stopping);
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
            in_force: false,
            ..QUIET
        };
        assert_eq!(
            step(&state(DrainPhase::Draining, 500), &not_in_force, 90_000).phase,
            DrainPhase::Draining
        );
    }

    #[test]
    fn quiet_counts_from_when_the_phase_is_in_force_however_often_nodes_are_told_something_else() {
        let quiescing = DrainState {
            in_force_since_ms: None,
            ..state(DrainPhase::Quiescing, 10_000)
        };
        let facts = |reported_ms| Facts { reported_ms, ..QUIET };
        let since = step(&quiescing, &facts(11_000), 11_000);
        assert_eq!(since.in_force_since_ms, Some(11_000));
        assert_eq!(step(&since, &facts(15_000), 15_000), since);
        let lost = Facts {
            in_force: false,
            ..facts(15_000)
        };
        assert_eq!(step(&since, &lost, 15_000).in_force_since_ms, None);
        assert_eq!(step(&since, &facts(16_000), 16_000).phase, DrainPhase::Stopping);
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
