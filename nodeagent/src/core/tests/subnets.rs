//! What is behind pods follows them.

use gantry_nodeagent_api::{NodeConfig, Trouble};

use super::node::{Node, config};

const POOL: &str = "10.45.0.0/16";

/// Two pods of one namespace, of which these want the pool.
fn wanting(generation: u64, pods: &[&str], pool: &[&str]) -> NodeConfig {
    let named: Vec<_> = pods.iter().map(|uid| (*uid, "")).collect();
    let mut config = config(generation, "0", &named);
    for uid in pool {
        config.pods.get_mut(*uid).unwrap().subnets = vec![POOL.parse().unwrap()];
    }
    config
}

fn leads_to(node: &Node) -> Option<&str> {
    let pool = ("default".to_owned(), POOL.to_owned());
    node.routes.get(&pool).map(String::as_str)
}

fn trouble(node: &Node, uid: &str) -> Option<String> {
    node.pod(uid).troubles.get(&Trouble::SubnetNotRouted).cloned()
}

#[test]
fn the_first_keeps_it_while_it_stops_and_then_the_other_gets_it() {
    let mut node = Node::new();
    node.config(&wanting(1, &["b"], &["b"]));
    node.settle();
    node.config(&wanting(2, &["a", "b"], &["a", "b"]));
    node.settle();
    assert_eq!(leads_to(&node), Some("b"));
    assert_eq!(trouble(&node, "a").unwrap(), "10.45.0.0/16 is behind b");
    assert_eq!(trouble(&node, "b"), None);
    assert!(node.pod("a").ready, "it goes on");
    // A minute later it is still told.
    node.pass(120_000);
    assert!(trouble(&node, "a").is_some());

    node.config(&wanting(3, &["a"], &["a"]));
    while node.state.accepted().0 < 3 || node.state.network.synced.unwrap().0 < 3 {
        node.perform(0);
    }
    assert_eq!(leads_to(&node), Some("b"), "as long as it is there");
    node.pass(60_000);
    assert_eq!((leads_to(&node), trouble(&node, "a")), (Some("a"), None));
}

#[test]
fn a_pod_whose_network_is_made_is_routed_once_more_and_others_are_not() {
    let mut node = Node::new();
    node.config(&wanting(1, &["a"], &[]));
    node.settle();
    assert_eq!(node.syncs, 1);
    node.config(&wanting(2, &["a", "b"], &["b"]));
    node.settle();
    assert_eq!(node.syncs, 3);
    node.pass(600_000);
    assert_eq!(node.syncs, 3);
}

#[test]
fn a_subnet_comes_and_goes_on_a_live_pod_and_is_known_after_a_crash() {
    let mut node = Node::new();
    for (generation, pool) in [(1, &[][..]), (2, &["a"]), (3, &[]), (4, &["a"])] {
        node.config(&wanting(generation, &["a"], pool));
        node.settle();
        assert_eq!(leads_to(&node), pool.first().copied());
    }
    let starts = node.starts;
    node.crash(node.disk.clone());
    node.settle();
    assert_eq!((leads_to(&node), node.starts), (Some("a"), starts));
}
