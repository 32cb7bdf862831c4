//! Files that are replaced while their containers run.

use std::collections::BTreeMap;

use gantry_nodeagent_api::*;

use super::life::tcp_probe;
use super::node::{Node, config};
use crate::core::Action;

/// A pod with a volume that its container has as a whole, and one of which it has a part.
fn wanted(generation: u64, whole: &str, part: &str) -> NodeConfig {
    let mut wanted = config(generation, "0", &[("a", "")]);
    let pod = wanted.pods.get_mut("a").unwrap();
    for (name, text) in [("whole", whole), ("part", part)] {
        let files = BTreeMap::from([("f".to_owned(), VolumeFile::from(text))]);
        pod.volumes.insert(name.to_owned(), Volume::Files(files));
    }
    let mount = |volume: &str, sub_path: Option<&str>| Mount {
        volume: volume.to_owned(),
        path: format!("/{volume}"),
        sub_path: sub_path.map(str::to_owned),
        read_only: true,
    };
    pod.containers[0].mounts = vec![mount("whole", None), mount("part", Some("f"))];
    pod.containers[0].reload = Some(Hook::Signal { signal: 1 });
    wanted
}

fn told(node: &Node) -> usize {
    node.hooks.len()
}

#[test]
fn a_container_is_told_of_files_that_it_sees_change_and_of_no_others() {
    let mut node = Node::new();
    node.config(&wanted(1, "a", "a"));
    node.settle();
    assert_eq!(told(&node), 0, "it has read them at its start");
    node.config(&wanted(2, "a", "b"));
    node.settle();
    assert_eq!(told(&node), 0, "it does not see that");
    node.config(&wanted(3, "b", "b"));
    node.settle();
    assert_eq!(told(&node), 1);
    node.config(&wanted(4, "b", "c"));
    node.settle();
    assert_eq!(told(&node), 1);
}

#[test]
fn an_agent_that_does_not_know_what_was_read_tells_once() {
    let mut node = Node::new();
    node.config(&wanted(1, "a", "a"));
    node.settle();
    node.crash(node.disk.clone());
    node.settle();
    node.config(&wanted(1, "a", "a"));
    node.settle();
    assert_eq!(told(&node), 1);
}

/// Does all that is asked but probes.
fn settle_without_probes(node: &mut Node) {
    let is_other = |action: &Action| !matches!(action, Action::Probe { .. });
    while let Some(index) = node.pending.iter().position(is_other) {
        node.perform(index);
    }
}

#[test]
fn a_container_that_is_told_before_it_is_ready_is_told_once_more_when_it_is() {
    let probed = |generation, whole| {
        let mut wanted = wanted(generation, whole, "a");
        wanted.pods.get_mut("a").unwrap().containers[0].readiness = tcp_probe(3);
        wanted
    };
    let mut node = Node::new();
    node.config(&probed(1, "a"));
    settle_without_probes(&mut node);
    assert_eq!((node.pod("a").ready, told(&node)), (false, 0));
    node.config(&probed(2, "b"));
    settle_without_probes(&mut node);
    assert_eq!(told(&node), 1, "it may need them to become ready");
    node.config(&probed(2, "b"));
    settle_without_probes(&mut node);
    assert_eq!(told(&node), 1);
    node.settle();
    assert_eq!((node.pod("a").ready, told(&node)), (true, 2));
    node.pass(5000);
    assert_eq!(told(&node), 2);
}
