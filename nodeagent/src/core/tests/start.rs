//! Starts that fail: what a container is held to is in force before the next one.

use gantry_nodeagent_api::*;

use super::node::{Node, config};
use crate::core::*;

/// What could not be started has no cgroup any more: its limits are in force again before it is tried once more, whichever
/// container it is, and the status tells of them only then.
#[test]
fn limits_are_in_force_again_before_a_failed_start_is_repeated() {
    for role in [ContainerRole::Main, ContainerRole::Init, ContainerRole::Sidecar] {
        for made in [false, true] {
            let mut wanted = config(1, "0", &[("a", "1"), ("b", "")]);
            let pod = wanted.pods.get_mut("b").unwrap();
            let first = ContainerConfig {
                name: "first".to_owned(),
                role,
                ..pod.containers[0].clone()
            };
            pod.containers.insert(0, first);
            let mut node = Node::new();
            node.config(&wanted);
            let is_start = |a: &Action| matches!(a, Action::Pod { uid, op: PodOp::Start { container, .. }, .. } if uid == "b" && container == "first");
            let next_start = |node: &mut Node| {
                while !node.pending.first().is_some_and(is_start) {
                    node.perform(0);
                }
            };
            let key = ("b".to_owned(), "first".to_owned());
            let known = |node: &Node| {
                let known = node.pod("b").containers;
                let first = known.into_iter().find(|c| c.name == "first");
                first.map(|c| c.resources.memory_bytes)
            };
            next_start(&mut node);
            match made {
                false => node.fail = 1,
                true => node.cannot_run = 1,
            }
            node.perform(0);
            assert!(!node.cgroups.contains_key(&key), "{role:?}, made: {made}");
            assert_eq!(known(&node), Some(0), "{role:?}, made: {made}");
            node.pass(10_000);
            assert_eq!(node.cgroups[&key].resources.memory_bytes, 100 << 20);
            assert_eq!(known(&node), Some(100 << 20), "{role:?}, made: {made}");
            assert!(node.runs[&key].exit.is_none(), "{role:?}, made: {made}");
        }
    }
}

/// What is refused before anything is made leaves all as it is.
#[test]
fn a_start_that_makes_no_sense_changes_no_limits() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1")]));
    let is_start = |a: &Action| {
        matches!(
            a,
            Action::Pod {
                op: PodOp::Start { .. },
                ..
            }
        )
    };
    while !node.pending.first().is_some_and(is_start) {
        node.perform(0);
    }
    let Action::Pod { id, uid, .. } = node.pending.remove(0) else {
        unreachable!()
    };
    let failure = PodFailure {
        message: "no such user".to_owned(),
        kind: FailureKind::Config,
    };
    node.event(Event::PodDone {
        id,
        uid,
        result: Err(failure),
    });
    assert_eq!(node.pod("a").containers[0].resources.memory_bytes, 100 << 20);
    assert!(node.pending.is_empty(), "{:?}", node.pending);
    node.pass(2000);
    assert!(node.pod("a").ready);
}
