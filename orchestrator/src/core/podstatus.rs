//! What agents report about their pods -> Pod.status; and pods that are gone from their node leave the store.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{ContainerStatus, PodPhase, PodStatus};
use gantry_plan::ContainerPlacement;
use k8s_openapi::api::core::v1 as k8s;

use super::agents::Agent;
use super::world::{Key, Work};
use super::{meta, pods, size};

/// An agent that has just connected may have just started, and not have probed its pods yet: for so long a container that was
/// ready and still runs is not taken for unready, or a restart of the agent would take traffic away.
pub const FRESH_AGENT_MS: u64 = 15_000;

/// Copies reports into pods. A pod of a node that has not reported since this orchestrator started keeps its last known status.
pub fn run(work: &mut Work<'_>) {
    let agents = work.agents;
    for key in work.keys::<k8s::Pod>() {
        let Some(pod) = work.get::<k8s::Pod>(&key) else {
            continue;
        };
        let Some(node) = pods::node(&pod) else {
            if pods::is_stopping(&pod) && !is_held(&pod) {
                work.remove::<k8s::Pod>(&key);
            }
            continue;
        };
        if !work.objects.nodes.contains_key(&Key::new("", node)) && pods::is_stopping(&pod) && !is_held(&pod)
        {
            work.remove::<k8s::Pod>(&key);
            continue;
        }
        let Some(agent) = agents.get(node) else { continue };
        let Some(report) = &agent.status else { continue };
        match report.pods.get(meta::uid(&pod.metadata)) {
            Some(status) => observe(work, &key, status, agent),
            None if pods::is_stopping(&pod) && is_gone(work, node, &pod) && !is_held(&pod) => {
                work.remove::<k8s::Pod>(&key);
            }
            None => absent(work, &key),
        }
    }
}

/// Somebody still has to clean up after it.
fn is_held(pod: &k8s::Pod) -> bool {
    pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty())
}

/// The node has applied a configuration in which the pod stops, and does not have it any more.
fn is_gone(work: &Work<'_>, node: &str, pod: &k8s::Pod) -> bool {
    let (Some(agent), Some(config)) = (work.agents.get(node), work.sent.get(node)) else {
        return false;
    };
    let runs = config
        .pods
        .get(meta::uid(&pod.metadata))
        .is_some_and(|p| p.desired == gantry_nodeagent_api::PodDesired::Run);
    !runs && agent.applied() >= config.generation
}

/// The node does not (yet, or any more) have the pod: it is not ready.
fn absent(work: &mut Work<'_>, key: &Key) {
    let now_ms = work.now_ms;
    let Some(pod) = work.get::<k8s::Pod>(key) else {
        return;
    };
    if pods::find(&pod, "Ready").is_some_and(|c| c.status == "False") {
        return;
    }
    let Some(pod) = work.edit::<k8s::Pod>(key) else {
        return;
    };
    pods::status_mut(pod)
        .phase
        .get_or_insert_with(|| "Pending".to_owned());
    for condition in ["Ready", "ContainersReady"] {
        pods::set_condition(
            pod,
            condition,
            false,
            "NotStarted",
            "the node does not run it yet",
            now_ms,
        );
    }
}

fn observe(work: &mut Work<'_>, key: &Key, seen: &PodStatus, agent: &Agent) {
    let now_ms = work.now_ms;
    let host = agent.hello.as_ref().map(|h| h.address.to_string());
    let fresh = now_ms.saturating_sub(agent.since_ms) < FRESH_AGENT_MS;
    let uid = work
        .get::<k8s::Pod>(key)
        .map(|pod| meta::uid(&pod.metadata).to_owned());
    let placement = uid.and_then(|uid| work.plan.placements.get(&uid));
    let granted = placement.map(|p| p.containers.clone()).unwrap_or_default();
    let Some(pod) = work.edit::<k8s::Pod>(key) else {
        return;
    };
    let images: BTreeMap<String, String> = pod
        .spec
        .iter()
        .flat_map(|s| &s.containers)
        .map(|c| (c.name.clone(), c.image.clone().unwrap_or_default()))
        .collect();
    let initialized = seen.phase != PodPhase::Pending;
    let spared = fresh && pods::is_ready(pod) && runs_on(pod, seen);
    let status = pods::status_mut(pod);
    let phase = match seen.phase {
        PodPhase::Pending => "Pending",
        PodPhase::Running | PodPhase::Stopping => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
    };
    status.phase = Some(phase.to_owned());
    status.message = (!seen.message.is_empty()).then(|| seen.message.clone());
    status.host_ip = host;
    if seen.started_at_ms > 0 {
        status.start_time = Some(meta::time(seen.started_at_ms));
    }
    status.container_statuses = Some(
        seen.containers
            .iter()
            .map(|c| container(c, &images, granted.iter().find(|g| g.name == c.name)))
            .collect(),
    );
    let ready = (seen.ready || spared) && seen.phase == PodPhase::Running;
    let (reason, message) = if ready {
        ("", "")
    } else {
        ("ContainersNotReady", seen.message.as_str())
    };
    pods::set_condition(pod, "Initialized", initialized, "", "", now_ms);
    for condition in ["ContainersReady", "Ready"] {
        pods::set_condition(pod, condition, ready, reason, message, now_ms);
    }
}

/// Every container still is in the run that was last known.
fn runs_on(pod: &k8s::Pod, seen: &PodStatus) -> bool {
    let known = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_deref())
        .unwrap_or_default();
    let same = |now: &ContainerStatus| {
        let before = known.iter().find(|c| c.name == now.name);
        let run = before.and_then(|c| c.state.as_ref()?.running.as_ref());
        let started_at = run.and_then(|r| r.started_at.clone());
        now.running && started_at == Some(meta::time(now.started_at_ms))
    };
    !seen.containers.is_empty() && seen.containers.iter().all(same)
}

fn container(
    seen: &ContainerStatus,
    images: &BTreeMap<String, String>,
    granted: Option<&ContainerPlacement>,
) -> k8s::ContainerStatus {
    let started_at = (seen.started_at_ms > 0).then(|| meta::time(seen.started_at_ms));
    let ended = seen.exit_code.map(|exit_code| k8s::ContainerStateTerminated {
        exit_code,
        reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
        ..Default::default()
    });
    let state = if seen.running {
        k8s::ContainerState {
            running: Some(k8s::ContainerStateRunning { started_at }),
            ..Default::default()
        }
    } else if let (Some(ended), true) = (&ended, seen.message.is_empty()) {
        k8s::ContainerState {
            terminated: Some(ended.clone()),
            ..Default::default()
        }
    } else {
        let reason = if seen.restarts > 0 {
            "CrashLoopBackOff"
        } else {
            "ContainerCreating"
        };
        let message = (!seen.message.is_empty()).then(|| seen.message.clone());
        let waiting = k8s::ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        };
        k8s::ContainerState {
            waiting: Some(waiting),
            ..Default::default()
        }
    };
    let last_state = ended
        .filter(|_| seen.running)
        .map(|terminated| k8s::ContainerState {
            terminated: Some(terminated),
            ..Default::default()
        });
    let allocated = granted.map(size::allocated).unwrap_or_default();
    k8s::ContainerStatus {
        name: seen.name.clone(),
        image: images.get(&seen.name).cloned().unwrap_or_default(),
        image_id: seen.image_id.clone(),
        container_id: seen.pid.map(|pid| format!("gantry://{pid}")),
        ready: seen.ready,
        started: Some(seen.running),
        restart_count: i32::try_from(seen.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state,
        resources: Some(size::in_force(&seen.resources, &allocated)),
        allocated_resources: Some(allocated),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_nodeagent_api::{Hello, NodeStatus};
    use serde_json::json;

    use super::super::world::{Object, Settings, World};
    use super::*;

    #[test]
    fn a_pod_that_is_gone_stays_while_finalizers_hold_it() {
        let mut world = World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        });
        let hello = Hello {
            node: "n".to_owned(),
            boot_id: String::new(),
            agent_version: String::new(),
            kernel_version: String::new(),
            address: [192, 0, 2, 1].into(),
            topology: Default::default(),
            reserved: Default::default(),
            reserved_memory_bytes: 0,
            generation: Default::default(),
            cluster: String::new(),
        };
        world.agents.connected(hello, 1);
        world.agents.reported("n", NodeStatus::default(), 1);
        world.configs.insert("n".to_owned(), Arc::default());
        for node in ["", "n"] {
            for finalizers in [&[][..], &["example.com/x"]] {
                let metadata = json!({"name": format!("p{node}{}", finalizers.len()), "namespace": "default",
                    "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers});
                let pod = json!({"metadata": metadata, "spec": {"nodeName": node, "containers": []}});
                world
                    .objects
                    .put(Object::Pod(Arc::new(serde_json::from_value(pod).unwrap())));
            }
        }
        let mut work = Work::new(&world, 2);
        run(&mut work);
        let left: Vec<&str> = work.objects.pods.keys().map(|k| k.name.as_str()).collect();
        assert_eq!(left, ["p1", "pn1"]);
    }
}
