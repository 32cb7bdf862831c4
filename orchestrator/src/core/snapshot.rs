//! What the planner is shown.

use std::collections::BTreeMap;

use gantry_api::{NodeTopology, labels};
use gantry_nodeagent_api::{PodPhase, PodStatus};
use gantry_plan::{
    AntiAffinity, ContainerRequest, Held, NodeState, NumaPolicy, Placement, Plan, PodRequest, Snapshot,
};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::agents::Agents;
use super::quarantine::{self, Quarantine};
use super::world::Objects;
use super::{claims, meta, nodes, pods, resources, schedule};

/// The snapshot of what is in the store and of what the agents report.
pub fn take(objects: &Objects, quarantine: &Quarantine, agents: &Agents, plan: &Plan) -> Snapshot {
    let topologies = objects.topologies.values();
    let nodes = topologies.filter_map(|t| {
        let name = meta::name(&t.metadata);
        let node = objects.nodes.get(&super::world::Key::new("", name))?;
        let mut state = node_state(node, t, agents);
        // What claims may have in them is nobody's ephemeral storage.
        let kept_bytes = claims::bytes_on(objects, name);
        state.storage_bytes = state.storage_bytes.map(|bytes| bytes.saturating_sub(kept_bytes));
        Some((name.to_owned(), state))
    });
    let silent = objects
        .nodes
        .keys()
        .filter(|key| !objects.topologies.contains_key(key));
    let silent = silent.map(|key| key.name.clone());
    let wanting = objects.pods.values().filter(|p| wants_place(p));
    let pods = wanting.map(|pod| {
        let uid = meta::uid(&pod.metadata).to_owned();
        let request = PodRequest {
            volumes: claims::requests(objects, pod),
            // Who has a place keeps it.
            obstacle: claims::obstacle(objects, quarantine, agents, pod)
                .filter(|_| schedule::waits(pod) && !plan.placements.contains_key(&uid)),
            ..request(pod, plan.placements.get(&uid), agents)
        };
        (uid, request)
    });
    // A pod that cannot be read keeps what it has.
    let unreadable = plan
        .placements
        .iter()
        .filter(|(_, p)| quarantine::is_pod_of(quarantine, p));
    let unreadable = unreadable.map(|(uid, placement)| (uid.clone(), as_it_is(placement)));
    Snapshot {
        nodes: nodes.collect(),
        pods: pods.chain(unreadable).collect(),
        silent: silent.collect(),
    }
}

/// One pod on its node as if nothing else were there: what does not fit then never will.
pub fn alone(
    objects: &Objects,
    agents: &Agents,
    pod: &Pod,
    placement: &Placement,
) -> Option<(Snapshot, Plan)> {
    let uid = meta::uid(&pod.metadata).to_owned();
    let key = super::world::Key::new("", &placement.node);
    let (node, topology) = (objects.nodes.get(&key)?, objects.topologies.get(&key)?);
    let mut state = node_state(node, topology, agents);
    state.held.retain(|holder, _| *holder == uid);
    let snapshot = Snapshot {
        nodes: [(placement.node.clone(), state)].into(),
        pods: [(uid.clone(), request(pod, Some(placement), agents))].into(),
        ..Snapshot::default()
    };
    let plan = Plan {
        placements: [(uid, placement.clone())].into(),
        ..Plan::default()
    };
    Some((snapshot, plan))
}

/// A pod keeps its place until it has left the store; one that ended by itself or never ran and is to stop wants none.
fn wants_place(pod: &Pod) -> bool {
    !(pods::is_over(pod) || pods::is_stopping(pod) && pods::node(pod).is_none())
}

fn node_state(node: &Node, topology: &NodeTopology, agents: &Agents) -> NodeState {
    let agent = agents.get(meta::name(&node.metadata));
    let report = agent.and_then(|a| a.status.as_ref());
    let reported = report.into_iter().flat_map(|r| &r.pods);
    let reported = reported.filter(|(_, pod)| holds(pod)).map(|(uid, pod)| {
        (
            uid.clone(),
            Held {
                cpus: pod.cpus.clone(),
                memory_bytes: pod.memory_bytes,
            },
        )
    });
    let mut held: BTreeMap<String, Held> = reported.collect();
    for (uid, cpus) in agent.into_iter().flat_map(|a| a.told()) {
        let held = held.entry(uid.clone()).or_default();
        held.cpus = held.cpus.union(cpus);
    }
    NodeState {
        topology: topology.spec.topology.clone(),
        reserved: topology.spec.reserved.clone(),
        reserved_memory_bytes: topology.spec.reserved_memory_bytes,
        labels: node.metadata.labels.clone().unwrap_or_default(),
        max_pods: Some(nodes::max_pods(node)),
        storage_bytes: match topology.spec.storage_bytes {
            0 => None,
            bytes => Some(bytes.saturating_sub(topology.spec.reserved_storage_bytes)),
        },
        schedulable: nodes::is_schedulable(node, agent),
        disk_pressure: report.is_some_and(|r| !r.disk_pressure.is_empty()),
        held,
    }
}

/// Of a pod that has ended there may be nothing left but its logs.
fn holds(seen: &PodStatus) -> bool {
    let over = matches!(seen.phase, PodPhase::Succeeded | PodPhase::Failed);
    !over || seen.address.is_some() || seen.memory_bytes > 0 || !seen.cpus.is_empty()
}

/// What a pod asks. On a node that has not reported yet (what it holds is not known), or while it stops, it asks for what it has.
fn request(pod: &Pod, placement: Option<&Placement>, agents: &Agents) -> PodRequest {
    let extras = pods::extras(pod);
    let spec = pod.spec.as_ref();
    let unknown = |node: &str| agents.get(node).is_none_or(|a| a.status.is_none());
    let frozen = placement.filter(|p| pods::is_stopping(pod) || unknown(&p.node));
    let containers = match frozen {
        Some(placement) => granted(placement),
        None => resources::requests(pod, &extras),
    };
    PodRequest {
        namespace: meta::namespace(&pod.metadata).to_owned(),
        name: meta::name(&pod.metadata).to_owned(),
        group: extras
            .group
            .map(|g| format!("{}/{g}", meta::namespace(&pod.metadata))),
        containers,
        numa: NumaPolicy::Prefer,
        node_selector: spec.and_then(|s| s.node_selector.clone()).unwrap_or_default(),
        node_name: pods::node(pod).map(str::to_owned),
        anti_affinity: spread_key(pod)
            .into_iter()
            .map(|key| AntiAffinity { key, required: false })
            .collect(),
        priority: spec.and_then(|s| s.priority).unwrap_or(0),
        ..PodRequest::default()
    }
}

/// A request for exactly what a placement is.
fn as_it_is(placement: &Placement) -> PodRequest {
    PodRequest {
        namespace: placement.namespace.clone(),
        name: placement.name.clone(),
        group: None,
        containers: granted(placement),
        numa: NumaPolicy::Prefer,
        node_selector: BTreeMap::new(),
        node_name: Some(placement.node.clone()),
        ..PodRequest::default()
    }
}

/// What a placement holds, as a request.
fn granted(placement: &Placement) -> Vec<ContainerRequest> {
    let container = |c: &gantry_plan::ContainerPlacement| {
        let mut hugepages = BTreeMap::new();
        for (size, amount) in c.hugepages.values().flatten() {
            *hugepages.entry(*size).or_default() += amount;
        }
        ContainerRequest {
            name: c.name.clone(),
            cpu: c.cpu,
            memory_bytes: c.memory_bytes.values().sum(),
            hugepages,
            storage_bytes: c.storage_bytes,
        }
    };
    placement.containers.iter().map(container).collect()
}

/// Instances of one function, or of one ReplicaSet, spread over nodes.
fn spread_key(pod: &Pod) -> Option<String> {
    let namespace = meta::namespace(&pod.metadata);
    if let Some(function) = meta::label(&pod.metadata, labels::NF) {
        return Some(format!("nf={namespace}/{function}"));
    }
    meta::controller_uid(&pod.metadata).map(|uid| format!("controller={namespace}/{uid}"))
}
