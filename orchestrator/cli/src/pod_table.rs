//! Pods as a table: where they are, what they have, what is the matter.

use gantry_api::{NodeTopology, labels};
use gantry_orchestrator::core::pods;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::output::{colour, table};

/// One line per pod; `wide` adds address, memory and network function.
pub fn render(pods: &[Pod], topologies: &[NodeTopology], wide: bool) -> String {
    let rows = pods.iter().map(|pod| row(pod, topologies));
    if wide {
        let headings = [
            "POD", "NODE", "CPUS", "READY", "RESTARTS", "ADDRESS", "MEMORY", "FUNCTION", "MESSAGE",
        ];
        return table(headings, rows.zip(pods).map(|(row, pod)| widened(row, pod)));
    }
    table(["POD", "NODE", "CPUS", "READY", "RESTARTS", "MESSAGE"], rows)
}

/// Of all their containers.
pub fn restarts(pods: &[Pod]) -> i32 {
    let all = pods.iter().flat_map(|pod| containers(pod.status.as_ref()));
    all.map(|c| c.restart_count).sum()
}

fn row(pod: &Pod, topologies: &[NodeTopology]) -> [String; 6] {
    [
        pod.metadata.name.clone().unwrap_or_default(),
        or_dash(pod.spec.as_ref().and_then(|s| s.node_name.clone())),
        cpus(pod, topologies),
        ready(pod),
        restarts(std::slice::from_ref(pod)).to_string(),
        message(pod),
    ]
}

fn widened([name, node, cpus, ready, restarts, message]: [String; 6], pod: &Pod) -> [String; 9] {
    let status = pod.status.as_ref();
    let memory =
        containers(status).filter_map(|c| Some(c.allocated_resources.as_ref()?.get("memory")?.0.clone()));
    let memory: Vec<String> = memory.collect();
    let function = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|all| all.get(labels::NF).cloned());
    [
        name,
        node,
        cpus,
        ready,
        restarts,
        or_dash(status.and_then(|s| s.pod_ip.clone())),
        or_dash(Some(memory.join("+"))),
        or_dash(function),
        message,
    ]
}

fn containers(
    status: Option<&PodStatus>,
) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ContainerStatus> {
    status
        .into_iter()
        .flat_map(|s| s.container_statuses.iter().flatten())
}

/// Exclusive CPUs by number, or else the share.
fn cpus(pod: &Pod, topologies: &[NodeTopology]) -> String {
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    let prefix = format!("{}/{}/", namespace.unwrap_or_default(), name.unwrap_or_default());
    let held = topologies.iter().flat_map(|t| &t.status.exclusive);
    let exclusive: Vec<String> = held
        .filter(|(holder, _)| holder.starts_with(&prefix))
        .map(|(_, cpus)| cpus.to_string())
        .collect();
    if !exclusive.is_empty() {
        return exclusive.join("+");
    }
    let shares = containers(pod.status.as_ref())
        .filter_map(|c| Some(c.allocated_resources.as_ref()?.get("cpu")?.0.clone()));
    // Nothing is reported before a container has started.
    let shares: Vec<String> = shares.filter(|share| share != "0").collect();
    if shares.is_empty() {
        "-".to_owned()
    } else {
        format!("{} shared", shares.join("+"))
    }
}

fn ready(pod: &Pod) -> String {
    let drains = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(labels::DRAIN));
    if pod.metadata.deletion_timestamp.is_some() {
        "stopping".to_owned()
    } else if drains {
        "draining".to_owned()
    } else if pods::is_ready(pod) {
        colour("yes", true)
    } else {
        colour("no", false)
    }
}

/// What keeps it from being ready: its node says it, or why it has none, or has not got there.
fn message(pod: &Pod) -> String {
    let hindrance = pods::hindrance(pod, &["PodScheduled", pods::READY_TO_START]);
    hindrance.unwrap_or_default().to_owned()
}

fn or_dash(text: Option<String>) -> String {
    text.filter(|t| !t.is_empty()).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, status: Value) -> Pod {
        let metadata =
            json!({"name": name, "namespace": "default", "labels": {"gantry.dev/network-function": "f"}});
        serde_json::from_value(
            json!({"metadata": metadata, "spec": {"containers": [], "nodeName": "n"}, "status": status}),
        )
        .unwrap()
    }

    #[test]
    fn a_pod_says_where_it_is_and_what_is_the_matter() {
        let container = json!({
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2,
            "allocatedResources": {"cpu": "2", "memory": "64Mi"},
        });
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let scheduled = json!([{"type": "PodScheduled", "status": "False", "message": "0/1 nodes fit"}]);
        let held = json!([
            {"type": "PodScheduled", "status": "True"},
            {"type": "PodReadyToStartContainers", "status": "False", "message": "it waits"},
        ]);
        let pods = [
            pod(
                "f-1",
                json!({"conditions": ready, "containerStatuses": [container], "podIP": "10.85.0.2"}),
            ),
            pod("f-2", json!({"conditions": scheduled})),
            pod("f-3", json!({"conditions": held})),
        ];
        let topology: NodeTopology = serde_json::from_value(json!({
            "spec": {"topology": gantry_topology::Topology::default()},
            "status": {"exclusive": {"default/f-1/c": "2-3", "default/f-10/c": "4"}},
        }))
        .unwrap();
        let text = render(&pods, &[topology], false);
        let words = |line: usize| {
            text.lines()
                .nth(line)
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        assert_eq!(words(1), ["f-1", "n", "2-3", "yes", "2"]);
        assert_eq!(words(2), ["f-2", "n", "-", "no", "0", "0/1", "nodes", "fit"]);
        assert_eq!(words(3)[5..], ["it", "waits"]);
        let wide = render(&pods, &[], true);
        assert!(
            wide.contains("2 shared") && wide.contains("10.85.0.2") && wide.contains("64Mi"),
            "{wide}"
        );
    }
}
