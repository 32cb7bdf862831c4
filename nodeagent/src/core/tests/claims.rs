//! Claims outlive pods: they go when nobody lists them any more and no pod has them; who fills one is evicted, once.

use gantry_nodeagent_api::*;

use super::node::{Node, config};
use crate::core::*;

const MI: u64 = 1 << 20;

/// Pods that mount the claim `x` of 10Mi, and the list of the node's claims.
fn wanted(generation: u64, pods: &[&str], listed: &[(&str, u64)]) -> NodeConfig {
    let pods: Vec<(&str, &str)> = pods.iter().map(|name| (*name, "")).collect();
    let mut config = config(generation, "0", &pods);
    for pod in config.pods.values_mut() {
        let volume = Volume::Claim {
            id: "x".to_owned(),
            read_only: false,
        };
        pod.volumes.insert("v".to_owned(), volume);
        pod.containers[0].mounts.push(Mount {
            volume: "v".to_owned(),
            path: "/v".to_owned(),
            sub_path: None,
            read_only: false,
        });
    }
    let claims = listed.iter().map(|(id, size_bytes)| {
        let claim = ClaimConfig {
            namespace: "default".to_owned(),
            name: format!("data-{id}"),
            size_bytes: *size_bytes,
        };
        ((*id).to_owned(), claim)
    });
    config.claims = Some(claims.collect());
    config
}

fn with(config: &NodeConfig) -> Node {
    let mut node = Node::new();
    node.config(config);
    node.settle();
    node
}

fn holds(node: &mut Node, bytes: u64, entries: u64) {
    let claim = "x".to_owned();
    node.event(Event::ClaimUsage {
        claim,
        bytes,
        entries,
    });
    node.settle();
    node.pass(1000);
}

fn evicted(node: &Node) -> Vec<String> {
    let pods = node.status().pods.into_iter();
    let gone = pods.filter(|(_, pod)| pod.reason == Some(PodReason::Evicted));
    gone.map(|(_, pod)| pod.message).collect()
}

#[test]
fn it_stays_over_pods_and_agents_and_goes_when_nobody_lists_it() {
    let mut node = with(&wanted(1, &["a"], &[("x", 10 * MI), ("y", MI)]));
    assert!(node.pod("a").ready);
    node.config(&wanted(2, &[], &[("x", 10 * MI)]));
    node.pass(60_000);
    assert_eq!(
        node.removed_claims,
        ["y"],
        "no pod ever had it: its directory may be there all the same"
    );
    node.crash(node.disk.clone());
    node.pass(60_000);
    node.config(&wanted(3, &["b"], &[("x", 10 * MI)]));
    node.pass(60_000);
    assert!(node.pod("b").ready);
    // Not listed while a pod that stops still has it.
    node.config(&wanted(4, &[], &[]));
    while !node.removed_claims.contains(&"x".to_owned()) {
        assert!(!node.pending.is_empty() || node.state.wake_ms().is_some());
        if node.pending.is_empty() {
            node.pass(1000);
        } else {
            let removal = |a: &Action| matches!(a, Action::RemoveClaim { .. });
            let has_pod = node.shims.contains("b");
            assert!(!(has_pod && node.pending.iter().any(removal)), "a pod has it");
            node.perform(0);
        }
    }
    node.pass(60_000);
    assert_eq!(node.removed_claims, ["y", "x"]);
    assert!(node.disk.claims.is_empty());
}

#[test]
fn what_says_nothing_of_claims_removes_none() {
    let mut node = with(&wanted(1, &["a"], &[("x", MI)]));
    // An older orchestrator; then one that is refused; then an agent without its ledger.
    let mut silent = wanted(2, &[], &[]);
    silent.claims = None;
    node.config(&silent);
    node.pass(60_000);
    node.config(&wanted(1, &[], &[]));
    node.pass(60_000);
    assert!(node.removed_claims.is_empty());
    let kept = node.disk.clone();
    node.crash(Ledger::default());
    node.config(&wanted(3, &[], &[]));
    node.pass(60_000);
    assert!(node.removed_claims.is_empty(), "nobody had listed it");
    node.crash(kept);
    node.config(&wanted(4, &[], &[]));
    node.pass(60_000);
    assert_eq!(node.removed_claims, ["x"]);
}

#[test]
fn a_removal_that_fails_or_is_cut_off_is_done_again() {
    let mut node = with(&wanted(1, &[], &[("x", MI)]));
    node.config(&wanted(2, &[], &[]));
    while !matches!(node.pending.first(), Some(Action::RemoveClaim { .. })) {
        node.perform(0);
    }
    node.fail = 1;
    node.perform(0);
    assert!(node.removed_claims.is_empty());
    node.crash(node.disk.clone());
    node.pass(60_000);
    assert_eq!(node.removed_claims, ["x"]);
}

#[test]
fn who_fills_it_is_evicted_and_nobody_begins_until_it_has_grown_or_is_emptier() {
    let mut node = with(&wanted(1, &["a"], &[("x", 10 * MI)]));
    assert_eq!(node.counted, ["x".to_owned()].into());
    holds(&mut node, 10 * MI, 5);
    assert!(node.pod("a").ready);
    holds(&mut node, 10 * MI + 1, 5);
    let words = "Usage of PersistentVolumeClaim \"data-x\" exceeds its size \"10Mi\".";
    assert_eq!(evicted(&node), [words]);
    assert_eq!(node.status().full_claims, [("x".to_owned(), 10 * MI + 1)].into());
    // Its successor waits, over restarts of the agent too.
    node.config(&wanted(2, &["b"], &[("x", 10 * MI)]));
    node.pass(60_000);
    node.crash(node.disk.clone());
    node.pass(60_000);
    let waits = node.pod("b");
    assert_eq!((waits.phase, waits.reason), (PodPhase::Pending, None));
    assert!(
        waits.message.contains("persistentvolumeclaim \"data-x\" is full") && waits.message.contains("10Mi"),
        "{}",
        waits.message
    );
    assert!(node.counted.contains("x"), "somebody may empty it");
    node.config(&wanted(3, &["b"], &[("x", 11 * MI)]));
    node.pass(60_000);
    assert!(node.pod("b").ready, "it has grown");
    assert!(node.status().full_claims.is_empty());
    holds(&mut node, 12 * MI, 5);
    assert_eq!(evicted(&node).len(), 1);
    node.config(&wanted(4, &["c"], &[("x", 11 * MI)]));
    node.pass(60_000);
    assert!(!node.pod("c").ready);
    holds(&mut node, MI, 5);
    node.pass(60_000);
    assert!(node.pod("c").ready, "it was emptied");
    holds(&mut node, MI, MAX_ENTRIES + 1);
    assert!(
        evicted(&node)[0].contains("files and directories"),
        "{:?}",
        evicted(&node)
    );
}

#[test]
fn who_only_reads_stays() {
    let mut config = wanted(1, &["a", "b"], &[("x", 10 * MI)]);
    config.pods.get_mut("b").unwrap().containers[0].mounts[0].read_only = true;
    let mut node = with(&config);
    holds(&mut node, 11 * MI, 5);
    assert_eq!(evicted(&node).len(), 1);
    assert!(node.pod("b").ready);
}
