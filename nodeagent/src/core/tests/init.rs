//! Init containers and sidecars: the order in which they start, and in which they end.

use gantry_nodeagent_api::*;

use super::node::{Node, config};
use crate::core::*;

fn with(roles: &[(&str, ContainerRole)], policy: RestartPolicy) -> NodeConfig {
    let mut wanted = config(1, "0", &[("a", "")]);
    let pod = wanted.pods.get_mut("a").unwrap();
    pod.restart_policy = policy;
    let plain = pod.containers.remove(0);
    pod.containers = roles
        .iter()
        .map(|(name, role)| ContainerConfig {
            name: (*name).to_owned(),
            role: *role,
            ..plain.clone()
        })
        .collect();
    wanted
}

const ALL: &[(&str, ContainerRole)] = &[
    ("first", ContainerRole::Init),
    ("side", ContainerRole::Sidecar),
    ("second", ContainerRole::Init),
    ("c", ContainerRole::Main),
];

fn running(node: &Node) -> Vec<String> {
    let runs = node.runs.iter().filter(|(_, run)| run.exit.is_none());
    runs.map(|((_, name), _)| name.clone()).collect()
}

fn begun(wanted: &NodeConfig) -> Node {
    let mut node = Node::new();
    node.config(wanted);
    node.settle();
    node
}

#[test]
fn each_waits_for_those_before_it() {
    let mut node = begun(&with(ALL, RestartPolicy::Always));
    assert_eq!(running(&node), ["first"]);
    let pod = node.pod("a");
    assert_eq!((pod.phase, pod.ready), (PodPhase::Pending, false));
    assert_eq!(pod.memory_bytes, 200 << 20, "the most at once, not all together");
    assert_eq!(pod.containers[3].waiting, Some(WaitingReason::PodInitializing));
    // One that fails is tried again, and holds the others back.
    node.exit("a", "first", 1);
    node.settle();
    assert_eq!(running(&node), ["first"]);
    node.exit("a", "first", 1);
    node.settle();
    assert_eq!(
        node.pod("a").containers[0].waiting,
        Some(WaitingReason::CrashLoopBackOff)
    );
    node.pass(1000);
    node.exit("a", "first", 0);
    node.settle();
    assert_eq!(running(&node), ["second", "side"]);
    node.exit("a", "second", 0);
    node.settle();
    assert_eq!(running(&node), ["c", "side"]);
    let pod = node.pod("a");
    assert_eq!((pod.phase, pod.ready), (PodPhase::Running, true));
    // A new agent repeats nothing, and what runs is started again by itself alone.
    let starts = node.starts;
    node.crash(node.disk.clone());
    node.settle();
    assert_eq!((node.starts, node.pod("a").ready), (starts, true));
    node.exit("a", "side", 0);
    node.exit("a", "c", 1);
    node.settle();
    assert_eq!(
        (node.starts, running(&node)),
        (starts + 2, vec!["c".to_owned(), "side".to_owned()])
    );
}

#[test]
fn a_sidecar_is_up_when_its_startup_probe_says_so() {
    let mut wanted = with(ALL, RestartPolicy::Always);
    let side = &mut wanted.pods.get_mut("a").unwrap().containers[1];
    side.startup = Some(Probe {
        action: ProbeAction::TcpSocket { port: 80 },
        initial_delay_ms: 5000,
        period_ms: 1000,
        timeout_ms: 500,
        failure_threshold: 30,
        success_threshold: 1,
        termination_grace_s: None,
    });
    let mut node = begun(&wanted);
    node.exit("a", "first", 0);
    node.settle();
    assert_eq!(running(&node), ["side"]);
    assert!(!node.pod("a").containers[1].started);
    node.pass(5000);
    assert_eq!(running(&node), ["second", "side"]);
}

#[test]
fn an_init_container_that_fails_for_good_fails_its_pod() {
    let mut node = begun(&with(ALL, RestartPolicy::Never));
    node.exit("a", "first", 0);
    node.settle();
    node.exit("a", "second", 3);
    node.settle();
    let pod = node.pod("a");
    assert_eq!(pod.phase, PodPhase::Failed);
    assert!(running(&node).is_empty() && node.cgroups.is_empty());
    assert_eq!(pod.containers[3].waiting, Some(WaitingReason::PodInitializing));
}

#[test]
fn sidecars_end_last_and_keep_no_pod_alive() {
    let roles = [
        ("one", ContainerRole::Sidecar),
        ("two", ContainerRole::Sidecar),
        ("c", ContainerRole::Main),
    ];
    let told = |node: &Node| -> Vec<String> {
        let of = |a: &Action| match a {
            Action::Pod {
                op: PodOp::Signal { containers, .. },
                ..
            } => Some(containers.join(" ")),
            _ => None,
        };
        node.pending.iter().filter_map(of).collect()
    };
    let mut node = begun(&with(&roles, RestartPolicy::Never));
    assert_eq!(running(&node), ["c", "one", "two"]);
    node.exit("a", "c", 0);
    assert_eq!(node.pod("a").phase, PodPhase::Running, "sidecars still run");
    node.settle();
    assert_eq!(node.pod("a").phase, PodPhase::Succeeded);

    let mut node = begun(&with(&roles, RestartPolicy::Always));
    node.config(&config(2, "0", &[]));
    let mut order = Vec::new();
    while !node.pending.is_empty() {
        order.extend(told(&node));
        node.perform(0);
    }
    order.dedup();
    assert_eq!(order, ["c", "two", "one"]);
}

#[test]
fn a_pod_that_was_set_up_anew_is_initialized_anew() {
    let mut node = begun(&with(ALL, RestartPolicy::Always));
    for name in ["first", "second"] {
        node.exit("a", name, 0);
        node.settle();
    }
    for name in ["c", "side"] {
        node.runs
            .get_mut(&("a".to_owned(), name.to_owned()))
            .unwrap()
            .exit = Some(Exit::with(137, 0));
    }
    node.shims.clear();
    node.event(Event::ShimGone { uid: "a".to_owned() });
    node.settle();
    assert_eq!(running(&node), ["first"]);
    for name in ["first", "second"] {
        node.exit("a", name, 0);
        node.settle();
    }
    assert_eq!(running(&node), ["c", "side"]);
}
