//! What agents report about their pods -> Pod.status; and pods that are gone from their node leave the store.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{ContainerRole, ContainerStatus, PodPhase, PodReason, PodStatus, Readiness};
use k8s_openapi::api::core::v1 as k8s;

use super::agents::Agent;
use super::world::{Key, Work};
use super::{containerstatus, meta, podevents, pods, quarantine};

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
        let node_key = Key::new("", node);
        let node_is_gone =
            !work.objects.nodes.contains_key(&node_key) && !quarantine::has(work, "Node", &node_key);
        if node_is_gone && pods::is_stopping(&pod) && !is_held(&pod) {
            work.remove::<k8s::Pod>(&key);
            continue;
        }
        let Some(agent) = agents.get(node) else { continue };
        let Some(report) = &agent.status else { continue };
        match report.pods.get(meta::uid(&pod.metadata)) {
            // What is known of its end is all that there will be.
            Some(_) if pods::is_over(&pod) => {}
            Some(status) => observe(work, &key, status, agent),
            None if pods::is_stopping(&pod) && is_gone(work, node, &pod) && !is_held(&pod) => {
                work.remove::<k8s::Pod>(&key);
            }
            None if pods::is_over(&pod) => {}
            None => absent(work, &key),
        }
    }
}

/// Somebody still has to clean up after it.
fn is_held(pod: &k8s::Pod) -> bool {
    pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty())
}

/// The node has reported by a configuration in which the pod stops, and does not have it any more. What else of that configuration
/// is not in force yet is other pods' matter.
fn is_gone(work: &Work<'_>, node: &str, pod: &k8s::Pod) -> bool {
    let (Some(agent), Some(config)) = (work.agents.get(node), work.sent.get(node)) else {
        return false;
    };
    let runs = config
        .pods
        .get(meta::uid(&pod.metadata))
        .is_some_and(|p| p.desired == gantry_nodeagent_api::PodDesired::Run);
    !runs && agent.reported_by() >= config.generation
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
            pods::NOT_STARTED,
            "the node does not run it yet",
            now_ms,
        );
    }
}

fn observe(work: &mut Work<'_>, key: &Key, seen: &PodStatus, agent: &Agent) {
    let now_ms = work.now_ms;
    let host = agent.hello.as_ref().map(|h| h.address.to_string());
    let uid = work
        .get::<k8s::Pod>(key)
        .map(|pod| meta::uid(&pod.metadata).to_owned());
    let placement = uid.and_then(|uid| work.plan.placements.get(&uid));
    let granted = placement.map(|p| p.containers.clone()).unwrap_or_default();
    let before = work.get::<k8s::Pod>(key);
    let Some(pod) = work.edit::<k8s::Pod>(key) else {
        return;
    };
    let images: BTreeMap<String, String> = pods::containers(pod)
        .map(|(c, _)| (c.name.clone(), c.image.clone().unwrap_or_default()))
        .collect();
    let roles: BTreeMap<String, ContainerRole> = pods::containers(pod)
        .map(|(c, role)| (c.name.clone(), role))
        .collect();
    let role = |c: &ContainerStatus| roles.get(&c.name).copied().unwrap_or_default();
    let incomplete = incomplete(seen, role);
    let ready: Vec<bool> = seen.containers.iter().map(|c| is_ready(pod, c)).collect();
    let uid = meta::uid(&pod.metadata).to_owned();
    let status = pods::status_mut(pod);
    let phase = match seen.phase {
        PodPhase::Pending => "Pending",
        // It keeps the phase that it had.
        PodPhase::Stopping => status.phase.as_deref().unwrap_or("Running"),
        PodPhase::Running => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
    };
    status.phase = Some(phase.to_owned());
    (status.reason, status.message) = said(seen);
    status.host_ip = host;
    let containers = seen.containers.iter().zip(&ready).map(|(c, ready)| {
        let image = images.get(&c.name).map_or("", String::as_str);
        let granted = granted
            .iter()
            .find(|g| g.name == c.name && role(c) != ContainerRole::Init);
        k8s::ContainerStatus {
            ready: *ready,
            ..containerstatus::container(&uid, c, image, granted)
        }
    });
    let all = seen.containers.iter().zip(containers);
    let (init, main): (Vec<_>, Vec<_>) = all.partition(|(c, _)| role(c) != ContainerRole::Main);
    let only = |list: Vec<(&ContainerStatus, _)>| list.into_iter().map(|(_, shown)| shown).collect();
    status.init_container_statuses = (!init.is_empty()).then(|| only(init));
    status.container_statuses = Some(only(main));
    // A pod that is being stopped is ready until its containers have ended, as in Kubernetes.
    let lives = matches!(seen.phase, PodPhase::Running | PodPhase::Stopping);
    let ready = lives && !ready.is_empty() && ready.into_iter().all(|ready| ready);
    let (reason, message) = match seen.phase {
        _ if ready => ("", ""),
        PodPhase::Succeeded => ("PodCompleted", ""),
        PodPhase::Failed => ("PodFailed", seen.message.as_str()),
        _ => ("ContainersNotReady", seen.message.as_str()),
    };
    let (initialized, why) = match seen.phase {
        PodPhase::Succeeded => ("PodCompleted", String::new()),
        _ if incomplete.is_empty() => ("", String::new()),
        _ => (
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", incomplete.join(" ")),
        ),
    };
    pods::set_condition(pod, "Initialized", why.is_empty(), initialized, &why, now_ms);
    for condition in ["ContainersReady", "Ready"] {
        pods::set_condition(pod, condition, ready, reason, message, now_ms);
    }
    trouble(pod, seen, now_ms);
    let told = podevents::since(before.as_ref().and_then(|b| b.status.as_ref()), pod);
    if told.is_empty() {
        return;
    }
    let pod = pod.clone();
    for word in told {
        work.tell(&pod, word.warning, &word.reason, &word.message);
    }
}

/// What the pod does wrong, one in a line; no such condition on a pod that never did anything wrong.
fn trouble(pod: &mut k8s::Pod, seen: &PodStatus, now_ms: u64) {
    let first = seen.troubles.keys().next().map(|trouble| trouble.reason());
    if first.is_none() && pods::find(pod, podevents::TROUBLE).is_none() {
        return;
    }
    let lines = seen.troubles.iter();
    let lines: Vec<String> = lines
        .map(|(trouble, message)| format!("{}: {}", trouble.reason(), message.replace('\n', " ")))
        .collect();
    let message = lines.join("\n");
    let reason = first.unwrap_or_default();
    pods::set_condition(pod, podevents::TROUBLE, first.is_some(), reason, &message, now_ms);
}

/// The init containers and sidecars that others still wait for. Once a main container has run, none is.
fn incomplete(seen: &PodStatus, role: impl Fn(&ContainerStatus) -> ContainerRole) -> Vec<String> {
    let ran = |c: &ContainerStatus| c.running || c.ended.is_some() || c.last_ended.is_some();
    let mut main = seen.containers.iter().filter(|c| role(c) == ContainerRole::Main);
    if main.any(ran) {
        return Vec::new();
    }
    let done = |c: &ContainerStatus| match role(c) {
        ContainerRole::Init => c.ready,
        ContainerRole::Sidecar => c.started,
        ContainerRole::Main => true,
    };
    let open = seen.containers.iter().filter(|c| !done(c));
    open.map(|c| c.name.clone()).collect()
}

/// Reason and message of the pod itself.
fn said(seen: &PodStatus) -> (Option<String>, Option<String>) {
    match seen.reason {
        Some(PodReason::DeadlineExceeded) => (
            Some("DeadlineExceeded".to_owned()),
            Some("Pod was active on the node longer than the specified deadline".to_owned()),
        ),
        Some(PodReason::Evicted) => (Some(podevents::EVICTED.to_owned()), Some(seen.message.clone())),
        None => (None, (!seen.message.is_empty()).then(|| seen.message.clone())),
    }
}

/// Whether a container is ready. While its agent does not know yet, what was last known of the same run counts.
fn is_ready(pod: &k8s::Pod, seen: &ContainerStatus) -> bool {
    match seen.readiness {
        Readiness::Passed => true,
        Readiness::Failed => false,
        Readiness::Unknown => {
            let lists =
                |s: &'_ k8s::PodStatus| [s.init_container_statuses.clone(), s.container_statuses.clone()];
            let known: Vec<k8s::ContainerStatus> =
                pod.status.iter().flat_map(lists).flatten().flatten().collect();
            let before = known.iter().filter(|c| c.ready).find(|c| c.name == seen.name);
            let run = before.and_then(|c| c.state.as_ref()?.running.as_ref());
            let started_at = run.and_then(|r| r.started_at.clone());
            seen.running && started_at == Some(meta::time(seen.started_at_ms))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_nodeagent_api::{Hello, NodeStatus, PodDesired, RunEnd};
    use serde_json::json;

    use super::super::lab::Lab;
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
            storage: Default::default(),
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

    /// A pod that asks for three exclusive CPUs.
    fn job(name: &str) -> Object {
        let metadata = json!({"name": name, "namespace": "default", "uid": format!("0000000{name}"),
            "annotations": {"gantry.dev/extras": r#"{"exclusive": {"c": {"count": 3}}}"#}});
        let spec = json!({"restartPolicy": "Never", "activeDeadlineSeconds": 60, "containers": [{"name": "c", "image": "i"}]});
        let pod = json!({"metadata": metadata, "spec": spec});
        Object::Pod(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[test]
    fn what_an_ended_pod_held_is_given_to_others() {
        let mut lab = Lab::new(&["n"]);
        lab.world.objects.put(job("a"));
        lab.settle();
        let config = lab.world.configs["n"].pods["0000000a"].clone();
        let (cpus, address) = (config.containers[0].resources.cpus.clone(), config.address);
        assert!(cpus.len() == 3 && address.is_some() && config.deadline_ms.is_some());
        lab.obey();
        lab.settle();
        let end = RunEnd {
            finished_at_ms: 2_000,
            ..RunEnd::default()
        };
        let mut seen = PodStatus {
            phase: PodPhase::Succeeded,
            cpus,
            address,
            containers: vec![ContainerStatus {
                name: "c".to_owned(),
                ended: Some(end),
                ..ContainerStatus::default()
            }],
            ..PodStatus::default()
        };
        lab.world.objects.put(job("b"));
        let report = |lab: &mut Lab, seen: &PodStatus| {
            let generation = lab.world.configs["n"].generation;
            let status = NodeStatus {
                accepted: generation,
                applied: generation,
                pods: [("0000000a".to_owned(), seen.clone())].into(),
                ..NodeStatus::default()
            };
            lab.world.agents.reported("n", status, lab.now_ms);
            lab.settle();
        };
        report(&mut lab, &seen);
        let pod = |lab: &Lab, name: &str| lab.world.objects.pods[&Key::new("default", name)].clone();
        assert_eq!(pods::phase(&pod(&lab, "a")), "Succeeded");
        assert_eq!(lab.world.configs["n"].pods["0000000a"].desired, PodDesired::Keep);
        let condition = pods::find(&pod(&lab, "a"), "Ready").unwrap().reason.clone();
        assert_eq!(condition.as_deref(), Some("PodCompleted"));
        seen.cpus = Default::default();
        seen.address = None;
        seen.phase = PodPhase::Stopping;
        report(&mut lab, &seen);
        assert_eq!(pods::phase(&pod(&lab, "a")), "Succeeded", "an end is for good");
        seen.phase = PodPhase::Succeeded;
        report(&mut lab, &seen);
        assert!(!lab.world.plan.placements.contains_key("0000000a"));
        let heir = &lab.world.configs["n"].pods["0000000b"];
        assert_eq!(heir.containers[0].resources.cpus.len(), 3);
        assert!(lab.world.configs["n"].faults(|_| false).is_empty());
    }

    #[test]
    fn while_the_agent_does_not_know_what_was_known_of_the_run_counts() {
        let seen = |readiness, started_at_ms| ContainerStatus {
            name: "c".to_owned(),
            running: true,
            readiness,
            started_at_ms,
            ..ContainerStatus::default()
        };
        let pod = |ready: bool| -> k8s::Pod {
            let state = json!({"running": {"startedAt": "1970-01-01T00:00:05Z"}});
            let status = json!({"name": "c", "image": "", "imageID": "", "restartCount": 0, "ready": ready,
                "state": state});
            serde_json::from_value(json!({"status": {"containerStatuses": [status]}})).unwrap()
        };
        for (known, readiness, started_at_ms, ready) in [
            (true, Readiness::Unknown, 5_000, true),
            (false, Readiness::Unknown, 5_000, false),
            (true, Readiness::Unknown, 6_000, false),
            (true, Readiness::Failed, 5_000, false),
            (false, Readiness::Passed, 5_000, true),
        ] {
            assert_eq!(is_ready(&pod(known), &seen(readiness, started_at_ms)), ready);
        }
    }

    #[test]
    fn a_pod_is_gone_whatever_else_of_the_configuration_is_not_in_force() {
        let mut lab = Lab::new(&["n"]);
        lab.settle();
        let pod = json!({"metadata": {"name": "a", "namespace": "default", "uid": "0000000a"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let pod: k8s::Pod = serde_json::from_value(pod).unwrap();
        lab.world.objects.put(Object::Pod(Arc::new(pod)));
        lab.settle();
        lab.run_for(1_000);
        let before = lab.world.agents.get("n").unwrap().status.clone().unwrap();
        let key = Key::new("default", "a");
        let mut work = Work::new(&lab.world, lab.now_ms);
        work.retire::<k8s::Pod>(&key);
        let going = work.get::<k8s::Pod>(&key).unwrap();
        lab.world.objects.put(Object::Pod(going));
        lab.settle();
        let accepted = lab.world.configs["n"].generation;
        let mut status = NodeStatus { accepted, ..before };
        assert!(status.applied < accepted);
        lab.world.agents.reported("n", status.clone(), lab.now_ms);
        lab.settle();
        assert!(lab.world.objects.pods.contains_key(&key), "the node has it still");
        status.pods.clear();
        lab.world.agents.reported("n", status, lab.now_ms);
        lab.settle();
        assert!(!lab.world.objects.pods.contains_key(&key));
    }
}
