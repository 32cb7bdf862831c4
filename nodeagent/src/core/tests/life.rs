//! Pods come, fail, recover and go; agents come back.

use gantry_nodeagent_api::*;

use super::node::{Node, config};
use crate::core::*;

fn running(config: &NodeConfig) -> Node {
    let mut node = Node::new();
    node.config(config);
    node.settle();
    node
}

fn code(end: Option<&RunEnd>) -> Option<i32> {
    end.map(|end| end.exit_code)
}

pub(super) fn tcp_probe(failure_threshold: u32) -> Option<Probe> {
    Some(Probe {
        action: ProbeAction::TcpSocket { port: 80 },
        initial_delay_ms: 0,
        period_ms: 1000,
        timeout_ms: 500,
        failure_threshold,
        success_threshold: 1,
        termination_grace_s: None,
    })
}

#[test]
fn the_first_restart_is_at_once_and_later_ones_wait() {
    let mut node = running(&config(1, "0", &[("a", "1")]));
    node.exit("a", "c", 137);
    assert!(!node.pod("a").ready);
    node.settle();
    assert!(node.pod("a").ready);
    assert_eq!(node.pod("a").containers[0].restarts, 1);
    for wait_ms in [1000, 2000, 4000] {
        node.exit("a", "c", 1);
        node.pass(wait_ms - 1);
        assert!(!node.pod("a").ready, "{wait_ms}");
        node.pass(1);
        assert!(node.pod("a").ready, "{wait_ms}");
    }
    node.pass(60_000);
    node.exit("a", "c", 1);
    node.settle();
    assert!(node.pod("a").ready);
    assert_eq!(code(node.pod("a").containers[0].last_ended.as_ref()), Some(1));
}

#[test]
fn restart_policies_end_a_pod() {
    for (policy, code, phase) in [
        (RestartPolicy::Never, 0, PodPhase::Succeeded),
        (RestartPolicy::Never, 3, PodPhase::Failed),
        (RestartPolicy::OnFailure, 0, PodPhase::Succeeded),
        (RestartPolicy::OnFailure, 3, PodPhase::Running),
        (RestartPolicy::Always, 0, PodPhase::Running),
    ] {
        let mut wanted = config(1, "0", &[("a", "1")]);
        wanted.pods.get_mut("a").unwrap().restart_policy = policy;
        let mut node = running(&wanted);
        node.exit("a", "c", code);
        node.settle();
        assert_eq!(node.pod("a").phase, phase, "{policy:?} {code}");
    }
}

#[test]
fn what_fails_is_tried_again_and_says_why() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1")]));
    node.perform(0);
    node.perform(0);
    node.fail = 1;
    node.settle();
    assert_eq!(node.pod("a").message, "broken on purpose");
    node.pass(1000);
    assert!(node.pod("a").ready);
    assert_eq!(node.pod("a").message, "");
}

#[test]
fn readiness_follows_the_probe_at_once() {
    let mut wanted = config(1, "0", &[("a", "1")]);
    wanted.pods.get_mut("a").unwrap().containers[0].readiness = tcp_probe(1);
    let mut node = running(&wanted);
    assert!(node.pod("a").ready);
    node.now_ms += 1000;
    node.event(Event::Tick);
    let Action::Probe { id, .. } = node.pending.remove(0) else {
        panic!("{:?}", node.pending)
    };
    let sent = node.statuses.len();
    node.event(Event::Probed {
        id,
        uid: "a".to_owned(),
        container: "c".to_owned(),
        result: Err("no".to_owned()),
    });
    assert!(!node.statuses[sent].pods["a"].ready);
    assert_eq!(node.pod("a").message, "container c: readiness probe: no");
    node.pass(1000);
    assert!(node.pod("a").ready);
}

#[test]
fn an_agent_that_comes_back_does_not_know_readiness_until_it_has_asked() {
    let mut wanted = config(1, "0", &[("a", "1")]);
    wanted.pods.get_mut("a").unwrap().containers[0].readiness = tcp_probe(2);
    let mut node = running(&wanted);
    let readiness = |node: &Node| node.pod("a").containers[0].readiness;
    assert_eq!(readiness(&node), Readiness::Passed);
    node.crash(node.disk.clone());
    for (asked, wanted) in [
        (0, Readiness::Unknown),
        (1, Readiness::Unknown),
        (2, Readiness::Failed),
    ] {
        assert_eq!(readiness(&node), wanted, "after {asked} failures");
        while !node.pending.iter().any(|a| matches!(a, Action::Probe { .. })) {
            match node.pending.is_empty() {
                true => node.now_ms += 1000,
                false => node.perform(0),
            }
            node.event(Event::Tick);
        }
        let probe = node
            .pending
            .iter()
            .position(|a| matches!(a, Action::Probe { .. }));
        let Action::Probe { id, .. } = node.pending.remove(probe.unwrap()) else {
            unreachable!()
        };
        node.event(Event::Probed {
            id,
            uid: "a".to_owned(),
            container: "c".to_owned(),
            result: Err("no".to_owned()),
        });
    }
}

#[test]
fn liveness_restarts_and_startup_holds_the_others_back() {
    let mut wanted = config(1, "0", &[("a", "1")]);
    let container = &mut wanted.pods.get_mut("a").unwrap().containers[0];
    container.liveness = tcp_probe(2);
    container.startup = tcp_probe(30);
    let mut node = Node::new();
    node.config(&wanted);
    while !node.pending.iter().any(|a| matches!(a, Action::Probe { .. })) {
        node.perform(0);
    }
    assert!(!node.pod("a").ready, "startup has not passed");
    node.settle();
    assert!(node.pod("a").ready);
    for _ in 0..2 {
        node.now_ms += 1000;
        node.event(Event::Tick);
        let probe = node
            .pending
            .iter()
            .position(|a| matches!(a, Action::Probe { .. }))
            .unwrap();
        let Action::Probe { id, .. } = node.pending.remove(probe) else {
            unreachable!()
        };
        assert_eq!(node.starts, 1);
        node.event(Event::Probed {
            id,
            uid: "a".to_owned(),
            container: "c".to_owned(),
            result: Err("x".to_owned()),
        });
    }
    let told = &node.pod("a").troubles[&Trouble::Killing];
    assert_eq!(told, "Container c failed liveness probe, will be restarted");
    node.settle();
    assert_eq!(node.starts, 2);
}

#[test]
fn a_container_that_ignores_sigterm_is_killed_after_its_grace() {
    let mut node = running(&config(1, "0", &[("a", "1")]));
    node.config(&config(2, "0", &[]));
    assert_eq!(signals_until_gone(&mut node), [(false, 0), (true, 5000)]);
    assert!(node.cgroups.is_empty() && node.shims.is_empty());
}

#[test]
fn a_later_word_shortens_the_grace_and_never_lengthens_it() {
    for (second_s, killed_ms) in [(2, 3000), (60, 5000)] {
        let mut node = running(&config(1, "0", &[("a", "1")]));
        let mut stopping = config(2, "0", &[("a", "1")]);
        stopping.pods.get_mut("a").unwrap().desired = PodDesired::Stop;
        node.config(&stopping);
        let start_ms = node.now_ms;
        node.perform(0);
        node.now_ms += 1000;
        stopping.generation = Generation(3);
        stopping.pods.get_mut("a").unwrap().termination_grace_s = second_s;
        node.config(&stopping);
        let killed = signals_until_gone(&mut node).into_iter().find(|(kill, _)| *kill);
        let at_ms = killed.map(|(_, at_ms)| at_ms + 1000);
        assert_eq!(at_ms, Some(killed_ms), "{start_ms}");
    }
}

/// Signals as they are sent, with the time from now; the container ignores all but SIGKILL.
fn signals_until_gone(node: &mut Node) -> Vec<(bool, u64)> {
    let mut signals = Vec::new();
    let start_ms = node.now_ms;
    while node.status().pods.contains_key("a") {
        if let Some(index) = node.pending.iter().position(|a| {
            matches!(
                a,
                Action::Pod {
                    op: PodOp::Signal { .. },
                    ..
                }
            )
        }) {
            let Action::Pod {
                id,
                uid,
                op: PodOp::Signal { kill, .. },
            } = node.pending.remove(index)
            else {
                unreachable!()
            };
            signals.push((kill, node.now_ms - start_ms));
            node.event(Event::PodDone {
                id,
                uid,
                result: Ok(PodDone::Signalled),
            });
            if kill {
                node.exit("a", "c", 137);
            }
        } else if node.pending.is_empty() {
            node.now_ms = node.state.wake_ms().unwrap();
            node.event(Event::Tick);
        } else {
            node.perform(0);
        }
    }
    signals
}

#[test]
fn a_count_from_before_the_drain_does_not_count() {
    let mut wanted = config(1, "0", &[("a", "1")]);
    wanted.pods.get_mut("a").unwrap().sessions = Some(SessionProbe {
        port: 9,
        path: "/m".to_owned(),
        metric: "dialogs".to_owned(),
    });
    let mut node = running(&wanted);
    assert_eq!(node.pod("a").sessions, Some(7));
    wanted.generation = Generation(2);
    let backend = Backend {
        pod: "a".to_owned(),
        address: "10.85.0.2".parse().unwrap(),
        port: 5060,
        weight: 1,
        draining: true,
        udp_idle_s: DEFAULT_UDP_IDLE_S,
    };
    let port = ServicePort {
        port: 5060,
        protocol: Protocol::Udp,
        backends: vec![backend],
    };
    let service = ServiceConfig {
        vip: "10.86.0.1".parse().unwrap(),
        ports: vec![port],
    };
    wanted.services.insert("default/a".to_owned(), service);
    node.config(&wanted);
    node.perform(0);
    assert_eq!(node.pod("a").sessions, None);
    assert!(
        matches!(node.pending[..], [Action::SyncNetwork { .. }]),
        "{:?}",
        node.pending
    );
    node.settle();
    assert_eq!(node.pod("a").sessions, Some(7));
    node.now_ms += 500;
    node.event(Event::Tick);
    assert!(
        matches!(node.pending[..], [Action::ReadSessions { .. }]),
        "{:?}",
        node.pending
    );
}

#[test]
fn a_new_agent_adopts_without_a_restart() {
    let wanted = config(1, "0", &[("a", "1"), ("b", "")]);
    let mut node = running(&wanted);
    let before = node.status();
    node.crash(node.disk.clone());
    node.settle();
    assert_eq!(node.starts, 2);
    let after = node.status();
    assert_eq!(after.accepted, before.accepted);
    assert_eq!(after.pods["a"].cpus, before.pods["a"].cpus);
    assert!(after.pods.values().all(|p| p.ready));
}

#[test]
fn without_a_ledger_nothing_is_stopped_until_a_configuration_says_so() {
    let mut node = running(&config(1, "0", &[("a", "1"), ("b", "2")]));
    node.crash(Ledger::default());
    node.pass(10_000);
    assert_eq!(node.shims.len(), 2);
    assert_eq!(node.status().pods["a"].cpus, "1".parse().unwrap());
    node.config(&config(2, "0", &[("a", "1")]));
    node.settle();
    assert_eq!(node.starts, 2, "a went on");
    assert!(node.pod("a").ready);
    assert_eq!(node.shims.len(), 1, "b was stopped");
}

#[test]
fn a_leaving_pod_goes_on_leaving_after_a_crash() {
    let mut node = running(&config(1, "0", &[("a", "1")]));
    node.config(&config(2, "0", &[]));
    node.perform(0);
    assert_eq!(node.pod("a").phase, PodPhase::Stopping);
    node.crash(node.disk.clone());
    assert_eq!(node.pod("a").phase, PodPhase::Stopping);
    node.settle();
    assert!(node.shims.is_empty() && node.status().pods.is_empty() && node.disk.leaving.is_empty());
}

#[test]
fn a_dead_shim_is_started_again() {
    let mut node = running(&config(1, "0", &[("a", "1")]));
    node.shims.remove("a");
    node.runs.get_mut(&("a".to_owned(), "c".to_owned())).unwrap().exit = Some(Exit::with(137, 0));
    node.event(Event::ShimGone { uid: "a".to_owned() });
    assert!(!node.pod("a").ready);
    node.settle();
    assert!(node.pod("a").ready);
    assert_eq!(node.pod("a").containers[0].restarts, 1);
}

#[test]
fn a_shim_that_was_only_slow_has_the_last_word() {
    let mut node = running(&config(1, "0", &[("a", "1")]));
    let run = node.runs[&("a".to_owned(), "c".to_owned())].clone();
    let told = |run| Event::Container {
        uid: "a".to_owned(),
        container: "c".to_owned(),
        run,
    };
    node.event(Event::ShimGone { uid: "a".to_owned() });
    assert_eq!(code(node.pod("a").containers[0].ended.as_ref()), Some(137));
    // It is listened to again, and its container has been running all the time.
    node.event(told(run.clone()));
    assert!(node.pod("a").ready, "{:?}", node.pod("a"));
    assert_eq!(code(node.pod("a").containers[0].ended.as_ref()), None);
    node.settle();
    assert_eq!((node.starts, node.pod("a").message.as_str()), (1, ""));

    // Or it has ended in its own way; and an end that was told is no guess.
    node.event(Event::ShimGone { uid: "a".to_owned() });
    let ended = Run {
        exit: Some(Exit::with(3, 1)),
        ..run.clone()
    };
    node.event(told(ended));
    assert_eq!(code(node.pod("a").containers[0].last_ended.as_ref()), Some(3));
    node.event(told(run));
    assert!(!node.pod("a").containers[0].running);
}

#[test]
fn a_sigterm_that_was_not_sent_is_sent_again() {
    let mut node = running(&config(1, "0", &[("a", "1")]));
    node.config(&config(2, "0", &[]));
    let signals = |node: &Node| {
        let of = |a: &Action| {
            matches!(
                a,
                Action::Pod {
                    op: PodOp::Signal { kill: false, .. },
                    ..
                }
            )
        };
        node.pending.iter().position(of)
    };
    while signals(&node).is_none() {
        node.perform(0);
    }
    node.fail = 1;
    node.perform(signals(&node).unwrap());
    assert_eq!(signals(&node), None, "not at once");
    node.now_ms += 1000;
    node.event(Event::Tick);
    assert!(signals(&node).is_some());
    node.settle();
    assert!(node.shims.is_empty());
}

#[test]
fn probes_begin_though_the_shims_clock_is_ahead() {
    let mut wanted = config(1, "0", &[("a", "1")]);
    wanted.pods.get_mut("a").unwrap().containers[0].readiness = tcp_probe(1);
    let mut node = Node::new();
    node.clock_ahead_ms = 3_600_000;
    node.config(&wanted);
    node.settle();
    assert!(node.pod("a").ready);
}
