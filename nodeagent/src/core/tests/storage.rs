//! Pods that leave too much on the disk are evicted; a disk that is short of space evicts the greediest, one at a time.

use gantry_nodeagent_api::*;

use super::node::{Node, config};
use crate::core::*;

const MI: u64 = 1 << 20;

/// Pods with one container `c` each and a volume `v`.
fn running(names: &[&str], edit: impl Fn(&str, &mut PodConfig)) -> Node {
    let pods: Vec<(&str, &str)> = names.iter().map(|name| (*name, "")).collect();
    let mut wanted = config(1, "0", &pods);
    for (name, pod) in &mut wanted.pods {
        let volume = Volume::EmptyDir { limit_bytes: 0 };
        pod.volumes.insert("v".to_owned(), volume);
        edit(name, pod);
    }
    let mut node = Node::new();
    node.config(&wanted);
    node.settle();
    node
}

fn storage(pod: &mut PodConfig) -> &mut EphemeralStorage {
    &mut pod.containers[0].ephemeral_storage
}

fn usage(container_bytes: u64, volume_bytes: u64) -> PodUsage {
    PodUsage {
        containers: [("c".to_owned(), container_bytes)].into(),
        volumes: [("v".to_owned(), volume_bytes)].into(),
        entries: 10,
    }
}

fn uses(node: &mut Node, uid: &str, usage: PodUsage) {
    let uid = uid.to_owned();
    node.event(Event::PodUsage { uid, usage });
    node.settle();
}

fn free(node: &mut Node, free_bytes: u64) {
    let space = DiskSpace {
        free_bytes,
        kept_bytes: 100 * MI,
        free_entries: 1000,
        kept_entries: 0,
    };
    node.event(Event::DiskSpace(space));
    node.settle();
    node.pass(2000);
}

/// Pods that the node has evicted.
fn gone(node: &Node) -> Vec<String> {
    let pods = node.status().pods.into_iter();
    let evicted = pods.filter(|(_, pod)| pod.reason == Some(PodReason::Evicted));
    evicted.map(|(uid, _)| uid).collect()
}

/// What one pod with these limits is told that leaves this behind.
fn told(edit: impl Fn(&mut PodConfig), usage: PodUsage) -> String {
    let mut node = running(&["a", "b"], |_, pod| edit(pod));
    uses(&mut node, "a", usage);
    assert!(node.pod("b").ready, "its neighbour lives");
    match node.pod("a") {
        pod if pod.ready => String::new(),
        pod => {
            assert_eq!(
                (pod.phase, pod.reason),
                (PodPhase::Failed, Some(PodReason::Evicted))
            );
            assert_eq!((pod.memory_bytes, pod.address), (0, None), "it holds nothing");
            pod.message
        }
    }
}

#[test]
fn a_pod_above_its_limit_is_evicted_in_the_words_of_kubernetes() {
    let limit = |pod: &mut PodConfig| storage(pod).limit_bytes = 10 * MI;
    assert_eq!(told(limit, usage(4 * MI, 6 * MI)), "");
    assert_eq!(
        told(limit, usage(4 * MI, 6 * MI + 1)),
        "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi."
    );
    let volume = |pod: &mut PodConfig| {
        let volume = Volume::EmptyDir {
            limit_bytes: 10_000_000,
        };
        pod.volumes.insert("v".to_owned(), volume);
    };
    assert_eq!(told(volume, usage(100 * MI, 10_000_000)), "");
    assert_eq!(
        told(volume, usage(0, 10_000_001)),
        "Usage of EmptyDir volume \"v\" exceeds the limit \"10M\"."
    );
    // What a ConfigMap makes is not the pod's.
    let files = |pod: &mut PodConfig| {
        limit(pod);
        pod.volumes
            .insert("v".to_owned(), Volume::Files(Default::default()));
    };
    assert_eq!(told(files, usage(0, 11 * MI)), "");
    // Two containers, of which one has all of the pod's limit for itself.
    let two = |pod: &mut PodConfig| {
        limit(pod);
        let mut other = pod.containers[0].clone();
        other.name = "d".to_owned();
        other.ephemeral_storage.limit_bytes = 90 * MI;
        pod.containers.push(other);
    };
    assert_eq!(
        told(two, usage(11 * MI, 0)),
        "Container c exceeded its local ephemeral storage limit \"10Mi\"."
    );
    let many = PodUsage {
        entries: MAX_ENTRIES + 1,
        ..usage(0, 0)
    };
    assert!(told(|_| {}, many).starts_with("Pod has more than 1000000 files"));
    assert_eq!(
        told(|_| {}, usage(1 << 40, 1 << 40)),
        "",
        "without a limit there is none"
    );
}

#[test]
fn an_evicted_pod_never_runs_again_whatever_happens_to_the_agent() {
    let mut node = running(&["a", "b"], |_, pod| storage(pod).limit_bytes = MI);
    let starts = node.starts;
    let uid = "a".to_owned();
    let usage = usage(2 * MI, 0);
    node.event(Event::PodUsage { uid, usage });
    let saved = |action: &Action| matches!(action, Action::Persist { ledger, .. } if ledger.evicted.contains_key("a"));
    assert!(
        node.pending.iter().any(saved),
        "it is in the ledger before it is done"
    );
    node.settle();
    for _ in 0..3 {
        node.crash(node.disk.clone());
        node.pass(60_000);
        let seen = node.pod("a");
        assert_eq!(
            (seen.phase, seen.reason),
            (PodPhase::Failed, Some(PodReason::Evicted))
        );
        assert!(seen.message.starts_with("Pod ephemeral"), "{}", seen.message);
    }
    assert_eq!(node.starts, starts);
    let wanted = config(2, "0", &[("b", "")]);
    node.config(&wanted);
    node.settle();
    assert!(node.disk.evicted.is_empty() && !node.status().pods.contains_key("a"));
}

#[test]
fn a_disk_that_is_short_of_space_evicts_the_greediest_one_at_a_time() {
    let mut node = running(&["a", "b", "c", "d"], |name, pod| {
        storage(pod).request_bytes = if name == "d" { 500 * MI } else { 10 * MI };
    });
    for (uid, bytes) in [("a", 20), ("b", 300), ("c", 9), ("d", 400)] {
        uses(&mut node, uid, usage(bytes * MI, 0));
    }
    free(&mut node, 200 * MI);
    assert!(node.status().disk_pressure.is_empty());
    free(&mut node, 99 * MI);
    assert_eq!(
        node.status().disk_pressure,
        "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: 99Mi."
    );
    assert!(gone(&node).is_empty() && node.sheds == 0);
    free(&mut node, 90 * MI);
    assert_eq!((gone(&node).len(), node.sheds), (0, 1), "unused layers go first");
    free(&mut node, 90 * MI);
    assert!(gone(&node).is_empty(), "a measurement may be of before");
    free(&mut node, 90 * MI);
    assert_eq!(gone(&node), ["b"]);
    assert!(node.pod("b").message.ends_with(
        "Container c was using 300Mi, request is 10Mi, has larger consumption of ephemeral-storage."
    ));
    // There is enough again; new pods come a while later.
    free(&mut node, 390 * MI);
    assert_eq!(
        (gone(&node).len(), node.status().disk_pressure.is_empty()),
        (1, false)
    );
    node.pass(30_000);
    assert!(node.status().disk_pressure.is_empty());
    // It goes on: those above their request, then those within it.
    for expected in [&["a", "b"][..], &["a", "b", "c"], &["a", "b", "c", "d"]] {
        (0..4).for_each(|_| free(&mut node, 1));
        assert_eq!(gone(&node), expected);
    }
    assert!(node.status().applied == Generation(1));
}

#[test]
fn who_carries_calls_and_keeps_within_its_request_goes_last() {
    let mut node = running(&["a", "b", "c"], |name, pod| {
        storage(pod).request_bytes = 100 * MI;
        // The node of paper says that whoever is asked has seven sessions.
        pod.sessions = (name != "b").then(|| SessionProbe {
            port: 1,
            path: "/".to_owned(),
            metric: "m".to_owned(),
        });
    });
    node.pass(5000);
    assert_eq!(node.pod("a").sessions, Some(7));
    for (uid, bytes) in [("a", 99), ("b", 2), ("c", 101)] {
        uses(&mut node, uid, usage(bytes * MI, 0));
    }
    for expected in [&["c"][..], &["b", "c"], &["a", "b", "c"]] {
        (0..5).for_each(|_| free(&mut node, 1));
        assert_eq!(gone(&node), expected);
    }
}

#[test]
fn whose_end_would_not_help_stays() {
    let mut node = running(&["a"], |_, _| {});
    uses(&mut node, "a", usage(MI - 1, 0));
    (0..10).for_each(|_| free(&mut node, 0));
    assert!(gone(&node).is_empty());
    assert!(!node.status().disk_pressure.is_empty());
}
