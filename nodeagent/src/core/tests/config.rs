//! Generations, CPUs and memory.

use gantry_nodeagent_api::*;

use super::node::{Node, config};
use crate::core::*;

#[test]
fn a_configuration_counts_only_when_it_is_saved() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1")]));
    assert_eq!(node.status().accepted, Generation(0));
    assert!(
        matches!(node.pending[..], [Action::Persist { .. }]),
        "{:?}",
        node.pending
    );
    node.perform(0);
    assert_eq!(node.status().accepted, Generation(1));
    assert_eq!(node.disk.config.generation, Generation(1));
    node.settle();
    assert_eq!(node.status().applied, Generation(1));
    assert!(node.pod("a").ready);
    assert_eq!(node.pod("a").cpus, "1".parse().unwrap());
}

#[test]
fn a_failed_write_refuses_and_is_tried_again() {
    let mut node = Node::new();
    node.fail = 1;
    node.config(&config(1, "0", &[("a", "1")]));
    node.settle();
    assert_eq!(node.status().accepted, Generation(0));
    assert!(
        node.refused[0].reason.contains("cannot save"),
        "{:?}",
        node.refused
    );
    node.pass(2000);
    assert_eq!(node.status().accepted, Generation(1));
}

#[test]
fn older_and_different_configurations_are_refused() {
    let mut node = Node::new();
    let second = config(2, "0", &[("a", "1")]);
    node.config(&second);
    node.settle();
    node.config(&config(1, "0", &[]));
    node.config(&config(2, "0", &[]));
    assert_eq!(
        node.refused.iter().map(|r| r.generation.0).collect::<Vec<_>>(),
        [1, 2]
    );
    let (refused, sent) = (node.refused.len(), node.statuses.len());
    node.config(&second);
    assert_eq!((node.refused.len(), node.statuses.len()), (refused, sent + 1));
    assert!(node.pending.is_empty());
}

#[test]
fn a_pod_that_makes_no_sense_is_left_out_and_the_others_run() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1"), ("b", "1"), ("c", "2")]));
    node.settle();
    assert_eq!(node.status().applied, Generation(1));
    assert!(node.pod("a").ready && node.pod("c").ready && node.refused.is_empty());
    assert!(node.pod("b").message.contains("CPUs 1 have another owner"));
    assert!(!node.prepared.contains_key("b"));

    // What runs stays as it was when its new part makes no sense, also for an agent that comes back.
    let mut bad = config(2, "0", &[("a", "1"), ("c", "3")]);
    bad.pods.get_mut("c").unwrap().containers[0].mounts = vec![Mount {
        volume: "none".to_owned(),
        path: "/v".to_owned(),
        sub_path: None,
        read_only: false,
    }];
    node.config(&bad);
    node.settle();
    for _ in 0..2 {
        assert_eq!(node.status().applied, Generation(2));
        assert_eq!(node.pod("c").cpus, "2".parse().unwrap());
        assert!(node.pod("c").message.contains("no volume `none`"));
        assert!(node.pod("a").ready);
        node.crash(node.disk.clone());
        node.settle();
    }
    node.config(&config(3, "0", &[("a", "1"), ("c", "3")]));
    node.settle();
    assert!(node.pod("c").ready && node.pod("c").message.is_empty());
    assert_eq!(node.pod("c").cpus, "3".parse().unwrap());
}

#[test]
fn a_service_that_is_left_out_is_told_and_holds_up_nothing() {
    let fault = ServiceFault {
        reason: ServiceFaultReason::PortConflict,
        message: "listed twice".to_owned(),
    };
    let mut node = Node::new();
    node.service_faults = [("default/twice".to_owned(), fault)].into();
    node.config(&config(1, "0", &[("a", "1")]));
    node.settle();
    let status = node.status();
    assert_eq!(
        (status.applied, &status.services),
        (Generation(1), &node.service_faults)
    );
    assert_eq!(status.network_message, "");
    node.service_faults.clear();
    node.config(&config(2, "0", &[("a", "1")]));
    node.settle();
    assert!(node.statuses.last().unwrap().services.is_empty());
}

#[test]
fn a_grow_waits_for_the_shrink_to_be_confirmed() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1"), ("b", "2-3")]));
    node.settle();
    node.config(&config(2, "0", &[("a", "1,3"), ("b", "2")]));
    while !node.pending.iter().any(|a| matches!(a, Action::Pod { .. })) {
        node.perform(0);
    }
    let pods: Vec<_> = (node.pending.iter())
        .filter_map(|a| match a {
            Action::Pod {
                uid,
                op: PodOp::Apply { bounds, .. },
                ..
            } => Some((uid.as_str(), bounds.limits.resources.cpus.to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(pods, [("b", "2".to_owned())]);
    assert_eq!(node.pod("b").cpus, "2-3".parse().unwrap());
    assert!(
        node.pod("a").message.contains("waits for CPUs 3"),
        "{}",
        node.pod("a").message
    );
    node.settle();
    assert_eq!(node.pod("a").cpus, "1,3".parse().unwrap());
    assert_eq!(node.status().applied, Generation(2));
    assert_eq!(node.starts, 2);
}

#[test]
fn the_shared_pool_shrinks_before_its_cpus_are_given_away() {
    let mut node = Node::new();
    node.config(&config(1, "0-1", &[("a", ""), ("b", ""), ("c", "2")]));
    node.settle();
    node.config(&config(2, "0", &[("a", ""), ("b", ""), ("c", "1-2")]));
    node.settle();
    assert_eq!(node.pod("c").cpus, "1-2".parse().unwrap());
    assert_eq!(node.pod("a").cpus, "".parse().unwrap());
    node.config(&config(3, "0-1", &[("a", ""), ("b", ""), ("c", "2")]));
    node.settle();
    assert_eq!(node.status().applied, Generation(3));
    assert_eq!(
        node.cgroups[&("a".to_owned(), "c".to_owned())].effective_cpus(),
        &"0-1".parse().unwrap()
    );
}

#[test]
fn a_new_pod_waits_for_the_cpus_of_a_leaving_one() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1")]));
    node.settle();
    node.config(&config(2, "0", &[("b", "1")]));
    node.settle();
    assert!(!node.status().pods.contains_key("a"));
    assert!(node.pod("b").ready);
    assert!(node.disk.leaving.is_empty());
}

#[test]
fn two_that_swap_their_cpus_get_there() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1"), ("b", "2")]));
    node.settle();
    node.config(&config(2, "0", &[("a", "2"), ("b", "1")]));
    node.settle();
    assert_eq!(node.status().applied, Generation(2));
    assert_eq!(
        (node.pod("a").cpus, node.pod("b").cpus),
        ("2".parse().unwrap(), "1".parse().unwrap())
    );
    assert_eq!(node.starts, 2);
}

#[test]
fn memory_in_use_stays_and_is_tried_again() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1-2")]));
    node.settle();
    node.memory_used = 80 << 20;
    let mut smaller = config(2, "0", &[("a", "1")]);
    let container = &mut smaller.pods.get_mut("a").unwrap().containers[0];
    container.resources.memory_bytes = 50 << 20;
    container.memory_request_bytes = 50 << 20;
    node.config(&smaller);
    node.settle();
    // The CPUs are given back all the same.
    assert_eq!(
        (node.pod("a").memory_bytes, node.pod("a").cpus),
        (100 << 20, "1".parse().unwrap())
    );
    assert!(
        node.pod("a").message.contains("in use"),
        "{}",
        node.pod("a").message
    );
    // It holds up nothing of others: names and services are in force, and the whole will be.
    assert_eq!(
        (node.status().served, node.status().applied),
        (Generation(2), Generation(1))
    );
    node.memory_used = 10 << 20;
    node.pass(4000);
    assert_eq!(
        (node.pod("a").memory_bytes, node.pod("a").message.as_str()),
        (50 << 20, "")
    );
    assert_eq!(node.status().applied, Generation(2));
    assert_eq!(node.starts, 1);
}

#[test]
fn a_limit_beyond_what_was_promised_is_nothing_that_others_lack() {
    let with = |generation, request: u64, limit: u64| {
        let mut config = config(generation, "0", &[("a", "")]);
        let container = &mut config.pods.get_mut("a").unwrap().containers[0];
        container.memory_request_bytes = request << 20;
        container.resources.memory_bytes = limit << 20;
        config
    };
    let mut node = Node::new();
    let mut promised = |config: NodeConfig, used: u64| {
        node.memory_used = used << 20;
        node.config(&config);
        node.pass(4000);
        node.pod("a").memory_bytes >> 20
    };
    assert_eq!(promised(with(1, 8, 20_000), 0), 8);
    // Less than it uses: refused, and it goes on with what it had.
    assert_eq!(promised(with(2, 8, 50), 100), 8);
    assert_eq!(promised(with(3, 60, 200), 100), 60);
    assert_eq!(promised(with(4, 10, 200), 100), 10);
    assert_eq!(promised(with(5, 200, 200), 100), 200);
    assert_eq!(promised(with(6, 50, 50), 100), 200, "it may still use them");
    assert_eq!(promised(with(7, 50, 50), 10), 50);
}

#[test]
fn new_files_reach_a_running_pod_before_they_count_as_applied() {
    let with = |generation, text: &str| {
        let mut config = config(generation, "0", &[("a", "1")]);
        let files = Volume::Files([("f".to_owned(), text.into())].into());
        let pod = config.pods.get_mut("a").unwrap();
        pod.volumes.insert("v".to_owned(), files);
        config
    };
    let mut node = Node::new();
    node.config(&with(1, "old"));
    node.settle();
    node.config(&with(2, "new"));
    let prepare = |node: &Node| {
        let of = |a: &Action| {
            matches!(
                a,
                Action::Pod {
                    op: PodOp::Prepare { .. },
                    ..
                }
            )
        };
        node.pending.iter().position(of)
    };
    while let Some(other) = (0..node.pending.len()).find(|i| Some(*i) != prepare(&node)) {
        node.perform(other);
    }
    assert_eq!(node.status().applied, Generation(1));
    // What cannot be written is told and tried again, and the rest of the node does not wait for it.
    node.fail = 1;
    node.settle();
    assert_eq!(node.status().applied, Generation(2));
    assert!(!node.status().pods["a"].message.is_empty());
    node.pass(1000);
    assert!(node.status().pods["a"].message.is_empty());
    assert_eq!(node.prepared["a"], with(2, "new").pods["a"]);
    assert_eq!(node.starts, 1);

    // An agent that comes back cannot know whether its predecessor got that far.
    node.prepared.clear();
    node.crash(node.disk.clone());
    node.settle();
    assert!(node.prepared.contains_key("a"));
    assert_eq!((node.status().applied, node.starts), (Generation(2), 1));
}

#[test]
fn memory_nodes_follow_the_configuration() {
    let on = |generation, nodes: &[u32]| {
        let mut config = config(generation, "0", &[("a", "1")]);
        config.pods.get_mut("a").unwrap().numa_nodes = nodes.to_vec();
        config
    };
    let key = ("a".to_owned(), "c".to_owned());
    let mut node = Node::new();
    node.config(&on(1, &[0]));
    node.settle();
    assert_eq!(node.numa_nodes[&key], [0]);
    node.config(&on(2, &[1]));
    node.settle();
    assert_eq!(
        (&node.numa_nodes[&key][..], node.status().applied),
        (&[1][..], Generation(2))
    );
    node.numa_nodes.insert(key.clone(), vec![0]);
    node.crash(node.disk.clone());
    node.settle();
    assert_eq!(node.numa_nodes[&key], [1]);
}

#[test]
fn a_pod_that_takes_its_time_to_stop_holds_up_no_swap_of_others() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[("a", "1"), ("b", "2"), ("c", "3")]));
    node.settle();
    node.config(&config(2, "0", &[("a", "2"), ("b", "1")]));
    let others = |a: &Action| !matches!(a, Action::Pod { uid, .. } if uid == "c");
    while let Some(index) = node.pending.iter().position(others) {
        node.perform(index);
    }
    assert_eq!(
        (node.pod("a").cpus, node.pod("b").cpus),
        ("2".parse().unwrap(), "1".parse().unwrap())
    );
    assert_eq!(node.pod("c").phase, PodPhase::Stopping);
}

#[test]
fn trouble_with_the_network_is_told() {
    let mut node = Node::new();
    node.config(&config(1, "0", &[]));
    node.perform(0);
    node.fail = 1;
    node.perform(0);
    assert_eq!(node.statuses.last().unwrap().network_message, "broken on purpose");
    node.pass(1000);
    assert_eq!(node.statuses.last().unwrap().network_message, "");
}

/// What is there after the configuration `second` of another store came: both pods run, and it is refused.
fn refused(node: &mut Node, second: &NodeConfig) {
    let before = node.refused.len();
    node.config(second);
    node.settle();
    assert_eq!(node.refused.len(), before + 1, "{:?}", node.refused);
    let reason = &node.refused[before].reason;
    assert!(reason.contains("gantry restore"), "{reason}");
    assert!(node.pod("a").ready && node.pod("b").ready);
}

#[test]
fn no_pod_is_stopped_on_the_word_of_another_store() {
    let of = |generation, pods: &[(&str, &str)], cluster: &str| NodeConfig {
        cluster: cluster.to_owned(),
        ..config(generation, "0", pods)
    };
    let both: &[(&str, &str)] = &[("a", "1"), ("b", "2")];
    let mut node = Node::new();
    node.config(&of(1, both, "mine"));
    node.settle();
    refused(&mut node, &of(2, &[], "other"));
    refused(&mut node, &of(3, both, "other"));
    refused(&mut node, &of(4, &[], ""));
    // Its own store may take all of them away.
    node.config(&of(5, &[], "mine"));
    node.settle();
    assert!(node.status().pods.is_empty());
}

#[test]
fn a_ledger_without_an_id_is_taken_over_by_a_store_that_knows_its_pods() {
    let marked = |generation, pods: &[(&str, &str)]| NodeConfig {
        cluster: "c".to_owned(),
        ..config(generation, "0", pods)
    };
    let both: &[(&str, &str)] = &[("a", "1"), ("b", "2")];
    let mut node = Node::new();
    // The first version's configuration names no cluster.
    node.config(&config(1, "0", both));
    node.settle();
    refused(&mut node, &marked(2, &[]));
    refused(&mut node, &marked(3, &[("x", "3")]));
    let starts = node.starts;
    node.config(&marked(4, both));
    node.settle();
    assert_eq!((node.starts, node.disk.config.cluster.as_str()), (starts, "c"));
    node.config(&marked(5, &[("a", "1")]));
    node.settle();
    assert_eq!(node.status().pods.len(), 1);
}

#[test]
fn a_pod_may_have_what_its_containers_may_have_at_once() {
    let mut node = Node::new();
    let mut wanted = config(1, "0", &[("a", "1")]);
    let mut init = wanted.pods["a"].containers[0].clone();
    init.name = "i".to_owned();
    init.role = ContainerRole::Init;
    init.resources = ContainerResources {
        memory_bytes: 100,
        ..ContainerResources::default()
    };
    wanted.pods.get_mut("a").unwrap().containers.insert(0, init);
    for (generation, main, expected) in [(1, 64, 100), (2, 200, 200), (3, 150, 150), (4, 0, 0)] {
        wanted.generation = Generation(generation);
        wanted.pods.get_mut("a").unwrap().containers[1]
            .resources
            .memory_bytes = main;
        node.config(&wanted);
        node.settle();
        assert_eq!(node.pod_memory["a"], expected);
    }
}
