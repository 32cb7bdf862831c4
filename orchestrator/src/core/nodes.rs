//! What agents report about their nodes -> Node and NodeTopology.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{NodeTopology, NodeTopologySpec, NodeTopologyStatus, ObjectMeta};
use gantry_nodeagent_api::Hello;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSpec, NodeStatus, NodeSystemInfo, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::agents::Agent;
use super::world::{Key, Work};
use super::{diskpressure, meta, pods, quarantine};

mod ready;

pub use ready::LOST_AFTER_MS;
use ready::{condition, readiness};

/// Most pods of a node: the addresses of a /24, with some to spare that pods which have just stopped still have.
const MAX_PODS: usize = 250;

/// Brings Node and NodeTopology of every agent up to date; lets go of nodes that were deleted.
pub fn run(work: &mut Work<'_>) {
    forget_deleted(work);
    let agents = work.agents;
    for (name, agent) in agents.iter() {
        let key = Key::new("", name);
        work.at.object("Node", &key);
        let Some(hello) = agent.hello.as_ref().filter(|_| !work.forgotten.contains(name)) else {
            ready::silent(work, &key, agent);
            continue;
        };
        if work.get::<Node>(&key).is_none_or(|node| cidr(&node).is_none()) {
            give_range(work, &key);
        }
        node_status(work, &key, agent, hello);
        topology(work, &key, agent, hello);
    }
}

/// A node whose object was deleted while its agent is away is gone for good: nobody waits for it, and its pods are no more (as
/// Kubernetes' pod garbage collector has it). Should it come back all the same, it is told so.
fn forget_deleted(work: &mut Work<'_>) {
    let agents = work.agents;
    let known: BTreeSet<&String> = agents
        .iter()
        .map(|(name, _)| name)
        .chain(work.sent.keys())
        .collect();
    for name in known {
        let key = Key::new("", name);
        let is_there = agents.get(name).is_some_and(|a| a.connected);
        if is_there || work.objects.nodes.contains_key(&key) || quarantine::has(work, "Node", &key) {
            continue;
        }
        let pods = work.objects.pods.iter();
        let orphans: Vec<Key> = pods
            .filter(|(_, p)| pods::node(p) == Some(name))
            .map(|(key, _)| key.clone())
            .collect();
        orphans.iter().for_each(|pod| work.retire::<Pod>(pod));
        work.remove::<NodeTopology>(&key);
        work.configs.remove(name);
        work.forgotten.insert(name.clone());
    }
}

/// Addresses for the node's pods: those that it has already, whoever has taken its object away meanwhile.
fn give_range(work: &mut Work<'_>, key: &Key) {
    let told = work.sent.get(&key.name).and_then(|c| c.network.as_ref());
    let own = told.map(|network| network.pod_cidr);
    let others = |range: &Ipv4Net| work.objects.nodes.values().any(|n| cidr(n) == Some(*range));
    let Some(range) = own.filter(|own| !others(own)).or_else(|| free_cidr(work)) else {
        tracing::error!(
            node = key.name,
            "no addresses left for the pods of this node: start with a larger pod range"
        );
        return;
    };
    if !work.objects.nodes.contains_key(key) {
        let labels = meta::pairs(&[
            ("kubernetes.io/hostname", &key.name),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
        ]);
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            labels: Some(labels),
            ..Default::default()
        };
        work.create(Node {
            metadata,
            ..Default::default()
        });
    }
    if let Some(node) = work.edit::<Node>(key).filter(|node| cidr(node).is_none()) {
        let spec = node.spec.get_or_insert_with(NodeSpec::default);
        let text = range.to_string();
        spec.pod_cidrs = Some(vec![text.clone()]);
        spec.pod_cidr = Some(text);
    }
}

/// The first part of the pod range that no node has.
fn free_cidr(work: &Work<'_>) -> Option<Ipv4Net> {
    let all = work.settings.pod_cidr;
    let mut taken: Vec<Ipv4Net> = work.objects.nodes.values().filter_map(|n| cidr(n)).collect();
    let told = work
        .sent
        .values()
        .filter_map(|c| Some(c.network.as_ref()?.pod_cidr));
    let unreadable = work.quarantine.values().flat_map(|q| &q.addresses);
    taken.extend(told.chain(unreadable.filter_map(|text| text.parse().ok())));
    let length = all.prefix_len().max(24);
    all.subnets(length)
        .ok()?
        .find(|net| !taken.iter().any(|t| t.contains(net) || net.contains(t)))
}

/// Addresses of a node's pods.
pub fn cidr(node: &Node) -> Option<Ipv4Net> {
    node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()
}

/// How many pods a node can have: as many as it has addresses for besides the gateway's, and no more than is usual.
pub fn max_pods(node: &Node) -> u32 {
    let hosts = cidr(node).map_or(0, |range| range.hosts().skip(1).take(MAX_PODS).count());
    u32::try_from(hosts).unwrap_or(u32::MAX)
}

/// Whether a node takes new pods: connected, and not cordoned.
pub fn is_schedulable(node: &Node, agent: Option<&Agent>) -> bool {
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    !cordoned && agent.is_some_and(|a| a.connected && a.status.is_some())
}

fn node_status(work: &mut Work<'_>, key: &Key, agent: &Agent, hello: &Hello) {
    let now_ms = work.now_ms;
    let Some(node) = work.edit::<Node>(key) else {
        return;
    };
    let before = node.status.take().unwrap_or_default();
    let (capacity, allocatable) = sizes(hello, max_pods(node));
    let address = |kind: &str, address: String| NodeAddress {
        type_: kind.to_owned(),
        address,
    };
    let ready = readiness(&before, agent, now_ms);
    let mut conditions = vec![condition(&before, "Ready", ready, now_ms)];
    if let Some(report) = &agent.status {
        let pressure = diskpressure::standing(&report.disk_pressure);
        conditions.push(condition(&before, diskpressure::CONDITION, pressure, now_ms));
        diskpressure::taint(node, !report.disk_pressure.is_empty());
    } else {
        let known = before.conditions.iter().flatten();
        conditions.extend(known.filter(|c| c.type_ == diskpressure::CONDITION).cloned());
    }
    node.status = Some(NodeStatus {
        addresses: Some(vec![
            address("InternalIP", hello.address.to_string()),
            address("Hostname", hello.node.clone()),
        ]),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions),
        node_info: Some(NodeSystemInfo {
            architecture: "amd64".to_owned(),
            boot_id: hello.boot_id.clone(),
            container_runtime_version: format!("gantry://{}", hello.agent_version),
            kernel_version: hello.kernel_version.clone(),
            kubelet_version: format!("gantry-{}", hello.agent_version),
            operating_system: "linux".to_owned(),
            ..Default::default()
        }),
        ..before
    });
}

type Quantities = BTreeMap<String, Quantity>;

fn sizes(hello: &Hello, pods: u32) -> (Quantities, Quantities) {
    let cpus = hello.topology.cpus.len();
    let memory = hello.topology.memory_bytes();
    let free_cpus = hello.topology.all_cpus().difference(&hello.reserved).len();
    let storage = hello.storage;
    let table = |cpus: usize, memory: u64, storage: u64| {
        let entry = |k: &str, v: String| (k.to_owned(), Quantity(v));
        let mut table = BTreeMap::from([
            entry("cpu", cpus.to_string()),
            entry("memory", format!("{}Ki", memory / 1024)),
            entry("pods", pods.to_string()),
        ]);
        table.extend((storage > 0).then(|| entry("ephemeral-storage", format!("{}Ki", storage / 1024))));
        table
    };
    (
        table(cpus, memory, storage.bytes),
        table(
            free_cpus,
            memory.saturating_sub(hello.reserved_memory_bytes),
            storage.bytes.saturating_sub(storage.reserved_bytes),
        ),
    )
}

fn topology(work: &mut Work<'_>, key: &Key, agent: &Agent, hello: &Hello) {
    let spec = NodeTopologySpec {
        topology: hello.topology.clone(),
        reserved: hello.reserved.clone(),
        reserved_memory_bytes: hello.reserved_memory_bytes,
        storage_bytes: hello.storage.bytes,
        reserved_storage_bytes: hello.storage.reserved_bytes,
    };
    if !work.objects.topologies.contains_key(key) {
        let metadata = ObjectMeta {
            name: Some(key.name.clone()),
            ..Default::default()
        };
        work.create(NodeTopology::new(metadata, spec.clone()));
    }
    let status = agent.status.as_ref().map(|report| {
        let config = work.sent.get(&key.name);
        let mut exclusive = BTreeMap::new();
        for (uid, pod) in &report.pods {
            let Some(config) = config.and_then(|c| c.pods.get(uid)) else {
                continue;
            };
            for container in pod
                .containers
                .iter()
                .filter(|c| c.running && !c.resources.cpus.is_empty())
            {
                let name = format!("{}/{}/{}", config.namespace, config.name, container.name);
                exclusive.insert(name, container.resources.cpus.clone());
            }
        }
        let shared_cpus = config.map(|c| c.shared_cpus.clone()).unwrap_or_default();
        NodeTopologyStatus {
            shared_cpus,
            exclusive,
            generation: report.applied.0,
        }
    });
    let Some(topology) = work.edit::<NodeTopology>(key) else {
        return;
    };
    topology.spec = spec;
    if let Some(status) = status {
        topology.status = status;
    }
}

/// Gives a pod its node and its address.
pub fn bind(pod: &mut Pod, node: &str, address: Option<std::net::Ipv4Addr>, now_ms: u64) {
    pod.spec.get_or_insert_with(PodSpec::default).node_name = Some(node.to_owned());
    let status = pods::status_mut(pod);
    if let Some(address) = address {
        let text = address.to_string();
        status.pod_ips = Some(vec![k8s_openapi::api::core::v1::PodIP { ip: text.clone() }]);
        status.pod_ip = Some(text);
    }
    status.start_time.get_or_insert_with(|| meta::time(now_ms));
    pods::set_condition(pod, "PodScheduled", true, "", "", now_ms);
}

#[cfg(test)]
mod tests {
    use gantry_api::OperationPhase;
    use serde_json::json;

    use super::super::lab::Lab;
    use super::*;

    #[test]
    fn a_node_that_is_deleted_while_it_is_away_holds_nothing_up() {
        let mut lab = Lab::new(&["a", "b"]);
        lab.publish("sbc", "1.0.0", json!({}));
        lab.deploy("sbc", json!({"replicas": 2}));
        lab.settle();
        lab.run_for(2_000);
        lab.world.agents.disconnected("b", lab.now_ms);
        lab.change("sbc", |spec| spec.replicas = 1);
        lab.settle();
        lab.run_for(60_000);
        let phase = |lab: &Lab| {
            lab.world.objects.operations[&Key::new("default", "sbc-2")]
                .status
                .phase
        };
        assert_eq!(phase(&lab), OperationPhase::Running, "it may still carry flows");
        lab.world.objects.remove("Node", &Key::new("", "b"));
        lab.settle();
        lab.run_for(10_000);
        assert_eq!(phase(&lab), OperationPhase::Succeeded);
        assert!(lab.world.agents.get("b").is_none() && !lab.world.configs.contains_key("b"));
        assert_eq!(
            lab.world.objects.nodes.keys().collect::<Vec<_>>(),
            [&Key::new("", "a")]
        );
        let on = |p: &std::sync::Arc<Pod>| pods::node(p).map(str::to_owned);
        assert!(
            lab.world
                .objects
                .pods
                .values()
                .all(|p| on(p).as_deref() == Some("a"))
        );
    }

    #[test]
    fn a_node_keeps_its_addresses_whoever_makes_its_object_anew() {
        let mut lab = Lab::new(&["a", "b"]);
        lab.settle();
        let key = Key::new("", "a");
        let range = |lab: &Lab| lab.world.objects.nodes.get(&key).and_then(|n| cidr(n));
        let before = range(&lab);
        assert!(before.is_some());
        lab.world.objects.remove("Node", &key);
        lab.settle();
        assert_eq!(range(&lab), before);
        let metadata = ObjectMeta {
            name: Some("a".to_owned()),
            ..Default::default()
        };
        let bare = Node {
            metadata,
            ..Default::default()
        };
        lab.world
            .objects
            .put(super::super::world::Object::Node(bare.into()));
        lab.settle();
        assert_eq!(range(&lab), before);
    }

    #[test]
    fn a_node_has_as_many_pods_as_addresses() {
        let mut lab = Lab::new(&["a"]);
        lab.world.settings.pod_cidr = "10.85.0.0/30".parse().unwrap();
        lab.publish("sbc", "1.0.0", json!({}));
        lab.deploy("sbc", json!({"replicas": 2}));
        let told = lab.settle();
        let failed = told.iter().filter(|t| t.ends_with(" FailedScheduling"));
        assert_eq!(failed.count(), 1, "{told:?}");
        assert_eq!(lab.world.plan.placements.len(), 1);
    }
}
