//! Pods end, and what they held is free.

use gantry_nodeagent_api::*;

use super::node::{Node, config};
use crate::core::*;

fn with_policy(policy: RestartPolicy) -> NodeConfig {
    let mut wanted = config(1, "0", &[("a", "1")]);
    wanted.pods.get_mut("a").unwrap().restart_policy = policy;
    wanted
}

fn settled(wanted: &NodeConfig) -> Node {
    let mut node = Node::new();
    node.config(wanted);
    node.settle();
    node
}

#[test]
fn what_an_ended_pod_held_is_free_and_its_record_stays() {
    let mut wanted = with_policy(RestartPolicy::Never);
    let mut node = settled(&wanted);
    node.exit("a", "c", 0);
    let told = node.pod("a");
    assert_eq!(
        (told.phase, told.cpus.to_string().as_str()),
        (PodPhase::Succeeded, "1")
    );
    node.settle();
    assert!(node.cgroups.is_empty() && node.shims.is_empty());
    let released = node.pod("a");
    assert_eq!(
        (released.phase, released.memory_bytes, released.address),
        (PodPhase::Succeeded, 0, None)
    );
    assert!(released.cpus.is_empty() && node.state.settled());
    assert_eq!(node.status().applied, Generation(1));
    let end = released.containers[0].ended.as_ref().unwrap();
    assert_eq!(
        (end.reason, end.exit_code, end.attempt),
        (EndReason::Completed, 0, 0)
    );

    // Its CPU is another's, and it neither runs again nor is forgotten, whatever happens to the agent.
    wanted = config(2, "0", &[("a", "1"), ("b", "1")]);
    wanted.pods.get_mut("a").unwrap().desired = PodDesired::Keep;
    assert!(wanted.faults(|_| false).is_empty());
    node.config(&wanted);
    node.settle();
    assert!(node.pod("b").ready);
    node.crash(node.disk.clone());
    node.pass(60_000);
    assert_eq!((node.starts, node.pod("a").phase), (2, PodPhase::Succeeded));
    assert!(node.state.settled());
    wanted.generation = Generation(3);
    wanted.pods.remove("a");
    node.config(&wanted);
    node.settle();
    assert!(!node.status().pods.contains_key("a") && node.released.is_empty());
}

#[test]
fn an_agent_that_was_away_finds_the_end_and_releases() {
    for policy in [RestartPolicy::Never, RestartPolicy::OnFailure] {
        let mut node = settled(&with_policy(policy));
        let run = node.runs.get_mut(&("a".to_owned(), "c".to_owned())).unwrap();
        run.exit = Some(Exit::with(0, 5));
        node.crash(node.disk.clone());
        node.settle();
        assert_eq!((node.pod("a").phase, node.starts), (PodPhase::Succeeded, 1));
        assert!(node.cgroups.is_empty());
    }
}

#[test]
fn a_shim_that_runs_after_all_keeps_its_pod() {
    let mut node = settled(&with_policy(RestartPolicy::Never));
    node.event(Event::ShimGone { uid: "a".to_owned() });
    assert_eq!(node.pod("a").phase, PodPhase::Failed, "as far as is known");
    node.settle();
    assert_eq!(node.pod("a").phase, PodPhase::Running, "{:?}", node.pod("a"));
    assert!(node.shims.contains("a") && node.starts == 1);
}

#[test]
fn back_off_has_the_words_of_kubernetes_and_restarts_count_runs() {
    let mut node = settled(&with_policy(RestartPolicy::Always));
    node.exit("a", "c", 1);
    node.settle();
    node.exit("a", "c", 1);
    node.settle();
    let container = node.pod("a").containers.remove(0);
    assert_eq!(
        (container.waiting, container.restarts),
        (Some(WaitingReason::CrashLoopBackOff), 1)
    );
    assert_eq!(
        container.message,
        "back-off 1s restarting failed container=c pod=a_default(a)"
    );
    assert_eq!(container.last_ended.unwrap().attempt, 1);
    node.fail = 1;
    node.pass(1000);
    let container = node.pod("a").containers.remove(0);
    assert_eq!(
        (container.waiting, container.restarts),
        (Some(WaitingReason::CreateContainerError), 1)
    );
    node.pass(4000);
    let container = node.pod("a").containers.remove(0);
    assert_eq!(
        (container.waiting, container.restarts, container.running),
        (None, 2, true)
    );
    assert_eq!(container.last_ended.unwrap().attempt, 1);
}

#[test]
fn a_pod_that_is_too_late_is_stopped_and_has_failed() {
    let mut wanted = with_policy(RestartPolicy::OnFailure);
    wanted.pods.get_mut("a").unwrap().deadline_ms = Some(1_010_000);
    let mut node = settled(&wanted);
    node.pass(1_009_999 - node.now_ms);
    assert!(node.pod("a").ready);
    node.pass(1);
    let pod = node.pod("a");
    assert_eq!(
        (pod.phase, pod.reason),
        (PodPhase::Failed, Some(PodReason::DeadlineExceeded))
    );
    assert!(node.cgroups.is_empty());

    let mut node = settled(&wanted);
    node.exit("a", "c", 0);
    node.pass(20_000);
    let pod = node.pod("a");
    assert_eq!((pod.phase, pod.reason), (PodPhase::Succeeded, None));
}
