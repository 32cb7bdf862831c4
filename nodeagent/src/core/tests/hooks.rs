//! Hooks after the start and before the end.

use gantry_nodeagent_api::*;

use super::node::{Node, config};
use crate::core::*;

fn hook(name: &str) -> Option<Hook> {
    Some(Hook::Exec {
        command: vec![name.to_owned()],
    })
}

fn hooked() -> NodeConfig {
    let mut wanted = config(1, "0", &[("a", "")]);
    let pod = wanted.pods.get_mut("a").unwrap();
    let mut second = pod.containers[0].clone();
    second.name = "d".to_owned();
    pod.containers.push(second);
    pod.containers[0].post_start = hook("after");
    pod.containers[0].pre_stop = hook("before");
    wanted
}

fn begun(wanted: &NodeConfig) -> Node {
    let mut node = Node::new();
    node.config(wanted);
    node.settle();
    node
}

fn hooks(node: &Node) -> Vec<usize> {
    let all = node.pending.iter().enumerate();
    all.filter(|(_, a)| matches!(a, Action::Hook { .. }))
        .map(|(i, _)| i)
        .collect()
}

/// Lets time pass and does all that is asked, while no hook ends.
fn pass_without_hooks(node: &mut Node, ms: u64) {
    node.now_ms += ms;
    node.event(Event::Tick);
    while let Some(index) = (0..node.pending.len()).find(|i| !hooks(node).contains(i)) {
        node.perform(index);
    }
}

#[test]
fn the_next_waits_for_the_hook_after_a_start_and_an_agent_does_it_once() {
    let mut node = Node::new();
    node.config(&hooked());
    while hooks(&node).is_empty() {
        node.perform(0);
    }
    for _ in 0..3 {
        pass_without_hooks(&mut node, 20_000);
    }
    assert_eq!((node.starts, hooks(&node).len()), (1, 1));
    let first = &node.pod("a").containers[0];
    assert!(first.running && !first.started && !first.ready);
    node.settle();
    assert_eq!((node.starts, node.hooks.len()), (2, 1));
    assert!(node.pod("a").containers[0].started && node.pod("a").ready);
    node.crash(node.disk.clone());
    node.settle();
    assert_eq!(node.hooks.len(), 1);
}

#[test]
fn the_next_waits_again_once_its_pod_was_set_up_anew() {
    let mut node = begun(&hooked());
    for run in node.runs.values_mut() {
        run.exit = Some(Exit::with(137, 0));
    }
    node.shims.clear();
    node.event(Event::ShimGone { uid: "a".to_owned() });
    while hooks(&node).is_empty() {
        node.perform(0);
    }
    pass_without_hooks(&mut node, 20_000);
    assert_eq!(node.starts, 3);
    node.settle();
    assert_eq!((node.starts, node.hooks.len()), (4, 2));
}

#[test]
fn what_has_run_waits_for_no_hook_of_another() {
    let mut node = begun(&hooked());
    node.exit("a", "c", 1);
    node.exit("a", "d", 1);
    pass_without_hooks(&mut node, 20_000);
    assert_eq!((node.starts, hooks(&node).len()), (4, 1));
    assert!(node.pod("a").containers.iter().all(|c| c.running));
}

#[test]
fn a_new_agent_waits_for_no_hook_of_the_one_before() {
    let mut node = Node::new();
    node.config(&hooked());
    while hooks(&node).is_empty() {
        node.perform(0);
    }
    node.crash(node.disk.clone());
    node.settle();
    assert_eq!((node.starts, node.hooks.len()), (2, 0));
    assert!(node.pod("a").ready);
}

#[test]
fn a_start_whose_hook_fails_ends_and_begins_anew() {
    let mut node = Node::new();
    node.config(&hooked());
    while hooks(&node).is_empty() {
        node.perform(0);
    }
    node.fail = 1;
    node.perform(hooks(&node)[0]);
    node.settle();
    assert_eq!(node.hooks.len(), 3, "after, before, after: {:?}", node.hooks);
    assert_eq!(node.pod("a").containers[0].restarts, 1);
    assert!(node.pod("a").ready);
}

#[test]
fn sigterm_waits_for_the_hook_and_not_longer_than_the_grace() {
    let mut node = begun(&hooked());
    node.config(&config(2, "0", &[]));
    while hooks(&node).is_empty() {
        node.perform(0);
    }
    // The other is told at once.
    node.perform(hooks(&node)[0]);
    node.settle();
    assert!(node.shims.is_empty());
    assert_eq!(node.hooks.len(), 2);

    let mut node = begun(&hooked());
    let start_ms = node.now_ms;
    node.config(&config(2, "0", &[]));
    let mut told = Vec::new();
    while node.status().pods.contains_key("a") {
        // The hook never answers.
        let hangs = hooks(&node);
        match (0..node.pending.len()).find(|i| !hangs.contains(i)) {
            Some(index) => {
                if let Action::Pod {
                    op: PodOp::Signal { containers, kill },
                    ..
                } = &node.pending[index]
                {
                    told.push((containers.join(" "), *kill, node.now_ms - start_ms));
                }
                node.perform(index);
            }
            None => {
                node.now_ms = node.state.wake_ms().unwrap();
                node.event(Event::Tick);
            }
        }
    }
    assert_eq!(told, [("d".to_owned(), false, 0), ("c".to_owned(), false, 5000)]);
}
