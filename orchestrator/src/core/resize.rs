//! Every resize ends in force, or says on the pod why not, in Kubernetes' conditions `PodResizePending` and
//! `PodResizeInProgress`. Whatever can hold a size up on its way from the spec to the cgroup is a [`Stop`]:
//!
//! | stop | where | condition, reason |
//! |---|---|---|
//! | the pod's size is frozen: its node has not reported since the orchestrator started | `snapshot` | pending, `Deferred` |
//! | the planner's answer breaks a rule and is not taken, so that the old plan stays | `schedule` | pending, `Deferred` |
//! | it does not fit now | planner | pending, `Deferred` |
//! | it would not fit if the pod were alone on its node | planner | pending, `Infeasible` |
//! | the agent is not connected | link | in progress |
//! | the agent does not take the configuration (what it says: not well formed, its ledger cannot be written) | agent's `accept` | in progress, `Error` |
//! | the agent has not taken the configuration yet | link, agent's `accept` | in progress |
//! | the agent cannot: more memory is in use, the cgroup refuses | agent's `cpus`, cgroup | in progress, `Error` |
//! | the agent waits for CPUs of others, or is busy with the pod | agent's `cpus` | in progress, with what it waits for |
//!
//! Source: kubernetes.io, "Resize CPU and Memory Resources assigned to Containers", Pod resize status.

use gantry_nodeagent_api::{ContainerStatus, Generation, NodeConfig, PodConfig, PodDesired, PodStatus};
use gantry_plan::grants;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use super::agents::Agent;
use super::world::{Key, Work};
use super::{meta, pods, resources, size, snapshot};

const PENDING: &str = "PodResizePending";
const IN_PROGRESS: &str = "PodResizeInProgress";

/// What holds a size up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stop {
    /// The plan does not grant it, for now.
    Deferred(String),
    /// The node could never grant it.
    Infeasible(String),
    /// On its way.
    InProgress(String),
    /// On its way, and something is wrong there.
    Error(String),
}

impl Stop {
    /// Type, reason and message of its condition.
    fn condition(&self) -> (&'static str, &'static str, &str) {
        match self {
            Self::Deferred(message) => (PENDING, "Deferred", message),
            Self::Infeasible(message) => (PENDING, "Infeasible", message),
            Self::InProgress(message) => (IN_PROGRESS, "", message),
            Self::Error(message) => (IN_PROGRESS, "Error", message),
        }
    }

    /// Reason of the event, and whether it is a warning.
    fn event(&self) -> (&'static str, bool) {
        match self {
            Self::Deferred(_) => ("ResizeDeferred", true),
            Self::Infeasible(_) => ("ResizeInfeasible", true),
            Self::InProgress(_) => ("ResizeStarted", false),
            Self::Error(_) => ("ResizeError", true),
        }
    }
}

/// Looks at every pod that has a node.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<Pod>() {
        let Some(pod) = work.get::<Pod>(&key) else {
            continue;
        };
        let Some(node) = pods::node(&pod) else { continue };
        let ends = pods::is_over(&pod) || pods::is_stopping(&pod);
        let stop = if ends { None } else { look(work, &pod, node) };
        note(work, &key, &pod, stop.as_ref());
    }
}

/// What holds the pod's size up; `None` if it is in force, or the pod has not started with another one.
fn look(work: &Work<'_>, pod: &Pod, node: &str) -> Option<Stop> {
    let uid = meta::uid(&pod.metadata);
    let placement = work.plan.placements.get(uid)?;
    let extras = pods::extras(pod);
    let asked = resources::requests(pod, &extras);
    let agent = work.agents.get(node);
    if !grants(placement, &asked) {
        return Some(not_granted(work, pod, placement, agent));
    }
    // Only a pod whose spec has changed can be of another size than it should be.
    if pod.metadata.generation.unwrap_or(1) <= 1 {
        return None;
    }
    let config = work.configs.get(node)?;
    let told = config.pods.get(uid).filter(|p| p.desired == PodDesired::Run)?;
    let report = agent.and_then(|a| a.status.as_ref());
    let seen = report.and_then(|r| r.pods.get(uid));
    if seen.is_some_and(|seen| in_force(told, seen)) {
        return None;
    }
    Some(not_in_force(node, config, seen, agent))
}

fn not_granted(
    work: &Work<'_>,
    pod: &Pod,
    placement: &gantry_plan::Placement,
    agent: Option<&Agent>,
) -> Stop {
    let node = &placement.node;
    if agent.is_none_or(|a| a.status.is_none()) {
        return Stop::Deferred(format!(
            "node {node} has not reported what it holds since the orchestrator started"
        ));
    }
    if let Some(violation) = work.refused.first() {
        return Stop::Deferred(format!(
            "the plan in force stays, because the planner's answer breaks a rule: {violation}"
        ));
    }
    let uid = meta::uid(&pod.metadata);
    let alone = snapshot::alone(&work.objects, work.agents, pod, placement);
    let never = alone.and_then(|(snapshot, plan)| {
        let mut outcome = gantry_plan::plan(&snapshot, &plan, work.settings.seed);
        outcome.unplaced.remove(uid)
    });
    match (never, work.unplaced.get(uid)) {
        (Some(why), _) => Stop::Infeasible(format!("even with no other pod on the node it {}", why.reason)),
        (None, Some(why)) => Stop::Deferred(why.reason.clone()),
        (None, None) => Stop::Deferred("the plan does not grant it yet".to_owned()),
    }
}

/// The node reports what it was told. A container that has not started yet starts with it.
fn in_force(told: &PodConfig, seen: &PodStatus) -> bool {
    told.containers.iter().all(|wanted| {
        let seen = seen.containers.iter().find(|c| c.name == wanted.name);
        seen.is_none_or(|seen| !seen.running || size::is_same(&seen.resources, &wanted.resources))
    })
}

fn not_in_force(node: &str, config: &NodeConfig, seen: Option<&PodStatus>, agent: Option<&Agent>) -> Stop {
    let Generation(generation) = config.generation;
    let Some(agent) = agent.filter(|a| a.connected) else {
        return Stop::InProgress(format!(
            "waits for the agent of node {node}, which is not connected"
        ));
    };
    if let Some(why) = agent.refusal() {
        return Stop::Error(format!("node {node} does not take its configuration: {why}"));
    }
    if agent.accepted() < config.generation {
        return Stop::InProgress(format!(
            "node {node} has not taken its configuration {generation} yet"
        ));
    }
    let containers = || seen.into_iter().flat_map(|pod| &pod.containers);
    let says = |text: fn(&ContainerStatus) -> &str| {
        let mut told = containers().filter(|c| !text(c).is_empty());
        told.next().map(|c| format!("container {}: {}", c.name, text(c)))
    };
    if let Some(trouble) = says(|c| &c.limits_message) {
        return Stop::Error(trouble);
    }
    let waits = says(|c| &c.limits_wait);
    Stop::InProgress(waits.unwrap_or_else(|| format!("node {node} puts it in force")))
}

/// Writes the conditions; an event whenever it is another stop than before.
fn note(work: &mut Work<'_>, key: &Key, pod: &Pod, stop: Option<&Stop>) {
    let generation = pod.metadata.generation;
    let now = meta::time(work.now_ms);
    let wanted = stop.map(|stop| {
        let (type_, reason, message) = stop.condition();
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        PodCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: some(reason),
            message: some(message),
            observed_generation: generation,
            last_transition_time: Some(now.clone()),
            ..Default::default()
        }
    });
    let had = [PENDING, IN_PROGRESS].iter().find_map(|c| pods::find(pod, c));
    let observed = pod.status.as_ref().and_then(|s| s.observed_generation);
    let same = |old: &PodCondition, new: &PodCondition| {
        let known = old.last_transition_time.clone();
        *old == PodCondition {
            last_transition_time: known,
            ..new.clone()
        }
    };
    let unchanged = match (had, &wanted) {
        (None, None) => true,
        (Some(old), Some(new)) => same(old, new),
        _ => false,
    };
    if unchanged && observed == generation {
        return;
    }
    let kind = |c: &PodCondition| (c.type_.clone(), c.reason.clone(), c.observed_generation);
    let news = had.map(kind) != wanted.as_ref().map(kind);
    let since = had
        .filter(|old| wanted.as_ref().is_some_and(|new| new.type_ == old.type_))
        .and_then(|old| old.last_transition_time.clone());
    let Some(edited) = work.edit::<Pod>(key) else {
        return;
    };
    let status = pods::status_mut(edited);
    status.observed_generation = generation;
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != PENDING && c.type_ != IN_PROGRESS);
    conditions.extend(wanted.map(|new| PodCondition {
        last_transition_time: since.or(new.last_transition_time.clone()),
        ..new
    }));
    if news {
        tell(work, pod, stop);
    }
}

fn tell(work: &mut Work<'_>, pod: &Pod, stop: Option<&Stop>) {
    match stop {
        Some(stop) => {
            let (reason, warning) = stop.event();
            work.tell(pod, warning, reason, stop.condition().2);
        }
        None if pods::is_over(pod) || pods::is_stopping(pod) => {}
        None => work.tell(pod, false, "ResizeCompleted", "the pod's size is as asked"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_nodeagent_api::NodeStatus;
    use serde_json::{Value, json};

    use super::super::lab::Lab;
    use super::super::world::Object;
    use super::*;

    /// A pod with a memory limit and no CPU limit, running on a node of 4 CPUs and 4 GiB.
    fn lab() -> Lab {
        let mut lab = Lab::new(&["n"]);
        lab.settle();
        let resources = json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "32Mi"}});
        let pod = json!({
            "metadata": {"name": "grow", "namespace": "default", "uid": "00000001-0", "generation": 1},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": resources}]},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        lab.world.objects.put(Object::Pod(Arc::new(pod)));
        lab.settle();
        lab.run_for(1_000);
        assert_eq!(told(&lab), None);
        lab
    }

    fn pod(lab: &Lab) -> Arc<Pod> {
        lab.world.objects.pods[&Key::new("default", "grow")].clone()
    }

    fn resize(lab: &mut Lab, resources: Value) {
        let mut pod = (*pod(lab)).clone();
        pod.metadata.generation = pod.metadata.generation.map(|g| g + 1);
        let container = &mut pod.spec.as_mut().unwrap().containers[0];
        container.resources = serde_json::from_value(resources).unwrap();
        lab.world.objects.put(Object::Pod(Arc::new(pod)));
        lab.settle();
    }

    fn with_cpu_limit() -> Value {
        json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}})
    }

    fn with_cpu(cpu: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": "32Mi"}, "limits": {"memory": "32Mi"}})
    }

    /// Type, reason and message of what the pod says about its size.
    fn told(lab: &Lab) -> Option<(String, String, String)> {
        let pod = pod(lab);
        let found = [PENDING, IN_PROGRESS].iter().find_map(|c| pods::find(&pod, c));
        assert_eq!(
            pod.status.as_ref().unwrap().observed_generation,
            pod.metadata.generation
        );
        let found = found?;
        assert_eq!(found.observed_generation, pod.metadata.generation);
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        Some((found.type_.clone(), text(&found.reason), text(&found.message)))
    }

    fn says(lab: &Lab, type_: &str, reason: &str, part: &str) {
        let told = told(lab).unwrap_or_else(|| panic!("nothing says: {part}"));
        assert_eq!((told.0.as_str(), told.1.as_str()), (type_, reason));
        assert!(told.2.contains(part), "{}", told.2);
    }

    fn quota(lab: &Lab) -> Option<u32> {
        let config = lab.world.configs["n"].pods.values().next().unwrap();
        config.containers[0].resources.cpu_limit_milli
    }

    #[test]
    fn a_limit_that_was_not_there_comes_in_force() {
        let mut lab = lab();
        resize(&mut lab, with_cpu_limit());
        assert_eq!(quota(&lab), Some(100));
        says(&lab, IN_PROGRESS, "", "node n");
        lab.run_for(1_000);
        assert_eq!(told(&lab), None);
        let status = pod(&lab).status.clone().unwrap().container_statuses.unwrap();
        let limits = status[0].resources.clone().unwrap().limits.unwrap();
        assert_eq!(limits["cpu"].0, "100m");
        resize(&mut lab, with_cpu("20m"));
        lab.run_for(1_000);
        assert_eq!((told(&lab), quota(&lab)), (None, None));
    }

    #[test]
    fn a_pod_with_init_containers_and_sidecars_is_of_its_size_and_resized() {
        let mut lab = Lab::new(&["n"]);
        lab.settle();
        let size = |memory: &str| json!({"requests": {"cpu": "10m", "memory": memory}});
        let pod = json!({
            "metadata": {"name": "grow", "namespace": "default", "uid": "00000001-0", "generation": 1},
            "spec": {
                "initContainers": [
                    {"name": "make", "image": "x", "resources": size("64Mi")},
                    {"name": "side", "image": "x", "restartPolicy": "Always", "resources": size("8Mi")},
                ],
                "containers": [{"name": "c", "image": "x", "resources": size("8Mi")}],
            },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        lab.world.objects.put(Object::Pod(Arc::new(pod)));
        assert!(!lab.settle().iter().any(|word| word.contains("Resize")));
        lab.run_for(1_000);
        resize(&mut lab, size("16Mi"));
        lab.run_for(1_000);
        assert_eq!(told(&lab), None);
    }

    #[test]
    fn what_does_not_fit_is_deferred_or_infeasible_down_to_the_numa_node() {
        let mut lab = lab();
        let memory = |memory: &str| json!({"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": memory}});
        resize(&mut lab, memory("8Gi"));
        says(&lab, PENDING, "Infeasible", "NUMA node 0");
        let other = json!({
            "metadata": {"name": "other", "namespace": "default", "uid": "00000002-0"},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"memory": "2Gi"}}}]},
        });
        let other: Pod = serde_json::from_value(other).unwrap();
        lab.world.objects.put(Object::Pod(Arc::new(other)));
        lab.run_for(1_000);
        resize(&mut lab, memory("3Gi"));
        says(&lab, PENDING, "Deferred", "NUMA node 0");
        lab.world.objects.remove("Pod", &Key::new("default", "other"));
        lab.run_for(2_000);
        assert_eq!(told(&lab), None, "room appears");
    }

    #[test]
    fn a_limit_above_the_request_stays_while_a_resize_waits() {
        let mut lab = lab();
        let size = |memory: &str| json!({"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": "64Gi"}});
        resize(&mut lab, size("16Mi"));
        lab.run_for(1_000);
        resize(&mut lab, size("8Gi"));
        says(&lab, PENDING, "Infeasible", "");
        let config = lab.world.configs["n"].pods.values().next().unwrap();
        assert_eq!(config.containers[0].resources.memory_bytes, 64 << 30);
    }

    #[test]
    fn a_node_that_is_away_refuses_or_cannot_says_so() {
        let mut lab = lab();
        lab.world.agents.disconnected("n", lab.now_ms);
        resize(&mut lab, with_cpu_limit());
        says(&lab, IN_PROGRESS, "", "not connected");

        let mut lab = self::lab();
        resize(&mut lab, with_cpu_limit());
        let generation = lab.world.configs["n"].generation;
        let why = "cannot save the ledger: no space";
        lab.world.agents.refused("n", generation, why);
        lab.settle();
        says(&lab, IN_PROGRESS, "Error", "no space");

        let mut lab = self::lab();
        resize(&mut lab, with_cpu_limit());
        for (error, wait, reason) in [("uses 5 bytes", "", "Error"), ("", "waits for CPUs 1", "")] {
            let mut status = lab.world.agents.get("n").unwrap().status.clone().unwrap();
            status.accepted = lab.world.configs["n"].generation;
            let container = &mut status.pods.values_mut().next().unwrap().containers[0];
            container.limits_message = error.to_owned();
            container.limits_wait = wait.to_owned();
            lab.world.agents.reported("n", status, lab.now_ms);
            lab.settle();
            says(
                &lab,
                IN_PROGRESS,
                reason,
                if error.is_empty() { wait } else { error },
            );
        }
    }

    #[test]
    fn an_orchestrator_that_does_not_know_what_is_held_says_so() {
        let mut lab = lab();
        let world = &mut lab.world;
        world.agents = Default::default();
        resize(&mut lab, with_cpu_limit());
        says(&lab, PENDING, "Deferred", "has not reported");
    }

    #[test]
    fn each_stop_is_told_once() {
        let mut lab = lab();
        resize(&mut lab, with_cpu_limit());
        lab.now_ms += 500;
        lab.obey();
        assert_eq!(lab.settle(), ["grow ResizeCompleted"]);
        lab.world.agents.reported("n", NodeStatus::default(), lab.now_ms);
        lab.run_for(1_000);
        assert_eq!(told(&lab), None);
    }
}
