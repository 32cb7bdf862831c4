//! The planner loop: snapshot -> plan -> check -> bind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gantry_nodeagent_api::PodDesired;
use gantry_plan::{Outcome, Placement};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::world::{Key, Work};
use super::{meta, nodes, pods, quarantine, snapshot};

/// Plans, refuses a plan that breaks a rule, gives every newly placed pod its node and address.
pub fn run(work: &mut Work<'_>) {
    let snapshot = snapshot::take(&work.objects, work.quarantine, work.agents, &work.plan);
    let outcome = gantry_plan::plan(&snapshot, &work.plan, work.settings.seed);
    let violations = gantry_plan::check(&snapshot, &work.plan, &outcome.plan);
    if !violations.is_empty() {
        work.refused = violations;
        return;
    }
    explain(work, &outcome);
    work.at.nothing();
    work.unplaced = outcome.unplaced;
    work.plan = outcome.plan;
    bind_all(work);
}

/// Reason of a pod that fits no node.
const UNSCHEDULABLE: &str = "Unschedulable";
/// So many of an owner's waiting pods always say exactly what is in their way; the others keep what they were told first. What
/// a neighbour does must not rewrite a thousand objects.
const EXACT: usize = 50;

/// Pods without a place say why, those too that name the node where they want to be.
fn explain(work: &mut Work<'_>, outcome: &Outcome) {
    let now_ms = work.now_ms;
    let mut told: BTreeMap<(String, String), usize> = BTreeMap::new();
    for why in outcome.unplaced.values() {
        let key = Key::new(&why.namespace, &why.name);
        let Some(pod) = work.get::<Pod>(&key).filter(|p| waits(p)) else {
            continue;
        };
        work.at.object("Pod", &key);
        let crowd = meta::controller(&pod.metadata).unwrap_or((&key.namespace, ""));
        let number = told.entry((crowd.0.to_owned(), crowd.1.to_owned())).or_default();
        *number += 1;
        let said = pods::find(&pod, "PodScheduled").filter(|c| c.reason.as_deref() == Some(UNSCHEDULABLE));
        let same = said.is_some_and(|c| c.message.as_ref() == Some(&why.reason));
        if same || said.is_some() && *number > EXACT {
            continue;
        }
        if said.is_none() {
            work.tell(&*pod, true, "FailedScheduling", &why.reason);
        }
        if let Some(edited) = work.edit::<Pod>(&key) {
            let phase = &mut pods::status_mut(edited).phase;
            phase.get_or_insert_with(|| "Pending".to_owned());
            pods::set_condition(edited, "PodScheduled", false, UNSCHEDULABLE, &why.reason, now_ms);
        }
    }
}

/// It has no place yet, whatever node it names.
pub(crate) fn waits(pod: &Pod) -> bool {
    pods::node(pod).is_none() || !pods::is_true(pod, "PodScheduled")
}

fn bind_all(work: &mut Work<'_>) {
    let mut addresses = Addresses::default();
    let placed = work.plan.placements.iter().filter_map(|(uid, placement)| {
        let key = Key::new(&placement.namespace, &placement.name);
        let pod = work
            .objects
            .pods
            .get(&key)
            .filter(|p| meta::uid(&p.metadata) == uid)?;
        (!pods::is_stopping(pod) && waits(pod)).then(|| (key, pod.clone(), placement.clone()))
    });
    let placed: Vec<_> = placed.collect();
    for (key, pod, placement) in placed {
        work.at.object("Pod", &key);
        bind(work, &mut addresses, &key, &pod, &placement);
    }
}

fn bind(work: &mut Work<'_>, addresses: &mut Addresses, key: &Key, pod: &Pod, placement: &Placement) {
    let now_ms = work.now_ms;
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
    let address = if host_network {
        host_address(work, &placement.node)
    } else {
        let free = addresses.free(work, &placement.node, meta::uid(&pod.metadata));
        if free.is_none() {
            no_address(work, key, pod, &placement.node);
            return;
        }
        free
    };
    if let Some(edited) = work.edit::<Pod>(key) {
        nodes::bind(edited, &placement.node, address, now_ms);
        pods::status_mut(edited)
            .phase
            .get_or_insert_with(|| "Pending".to_owned());
    }
    let full = Key::of(&pod.metadata);
    let text = format!(
        "Successfully assigned {full} to {}{}",
        placement.node,
        exclusive_text(placement)
    );
    work.tell(pod, false, "Scheduled", &text);
}

/// Said once: what is told on every pass would itself cause the next one.
fn no_address(work: &mut Work<'_>, key: &Key, pod: &Pod, node: &str) {
    const REASON: &str = "NoAddress";
    let now_ms = work.now_ms;
    let why = format!("no pod address is left on node {node}: start with a larger pod range");
    if let Some(edited) = work.edit::<Pod>(key)
        && pods::set_condition(edited, "PodScheduled", false, REASON, &why, now_ms)
    {
        work.tell(pod, true, REASON, &why);
    }
}

fn exclusive_text(placement: &Placement) -> String {
    let sets = placement.containers.iter().filter(|c| !c.cpus.is_empty());
    let texts: Vec<String> = sets.map(|c| format!("{} has CPUs {}", c.name, c.cpus)).collect();
    if texts.is_empty() {
        String::new()
    } else {
        format!(": {}", texts.join(", "))
    }
}

fn host_address(work: &Work<'_>, node: &str) -> Option<Ipv4Addr> {
    let hello = work.agents.get(node)?.hello.as_ref()?;
    match hello.address {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

/// Addresses of a node that are looked at: more than a range that is given out has.
const MOST_ADDRESSES: usize = 1 << 12;

/// The addresses that somebody has, looked up once a pass.
#[derive(Default)]
struct Addresses {
    /// Of pods in the store, by any node's configuration, or still reported by any.
    taken: Option<BTreeSet<Ipv4Addr>>,
}

impl Addresses {
    /// An address of the node that nobody has: no pod in the store, none in a node's configuration, none that one still reports.
    fn free(&mut self, work: &Work<'_>, node: &str, uid: &str) -> Option<Ipv4Addr> {
        let range = nodes::cidr(&*work.get::<Node>(&Key::new("", node))?)?;
        let taken = self.taken.get_or_insert_with(|| all_addresses(work));
        // The first address is the gateway's. Starting where the uid says keeps an address from coming back soon.
        let hosts: Vec<Ipv4Addr> = range.hosts().skip(1).take(MOST_ADDRESSES).collect();
        let start = usize::from_str_radix(uid.get(..8)?, 16).unwrap_or(0) % hosts.len().max(1);
        let free = hosts[start..]
            .iter()
            .chain(&hosts[..start])
            .find(|a| !taken.contains(a))
            .copied();
        taken.extend(free);
        free
    }
}

fn all_addresses(work: &Work<'_>) -> BTreeSet<Ipv4Addr> {
    // A pod that has ended has none any more, whatever its status says.
    let pods = work.objects.pods.values().filter(|p| !pods::is_over(p));
    let pods = pods.filter_map(|p| pods::address(p));
    let told = work.sent.values().flat_map(|c| c.pods.values());
    let told = told
        .filter(|p| p.desired != PodDesired::Keep)
        .filter_map(|p| p.address);
    let reports = work.agents.iter().filter_map(|(_, a)| a.status.as_ref());
    let reported = reports.flat_map(|r| r.pods.values().filter_map(|p| p.address));
    let unreadable = quarantine::addresses(work);
    pods.chain(told).chain(reported).chain(unreadable).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::lab::Lab;
    use super::super::world::Object;
    use super::*;

    /// What a pod with these fields in its spec says of where it is to be.
    fn said(lab: &mut Lab, more: Value) -> (String, String, String) {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        let metadata = json!({"name": "p", "namespace": "default", "uid": "00000001"});
        let pod = json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}});
        lab.world
            .objects
            .put(Object::Pod(Arc::new(serde_json::from_value(pod).unwrap())));
        lab.settle();
        condition(lab)
    }

    fn condition(lab: &Lab) -> (String, String, String) {
        let pod = &lab.world.objects.pods[&Key::new("default", "p")];
        let condition = pods::find(pod, "PodScheduled").cloned().expect("it says so");
        (
            condition.status,
            condition.reason.unwrap_or_default(),
            condition.message.unwrap_or_default(),
        )
    }

    #[test]
    fn a_pod_for_a_node_that_is_not_there_says_so_until_it_comes() {
        let mut lab = Lab::new(&["a"]);
        let (status, reason, message) = said(&mut lab, json!({"nodeName": "b"}));
        assert_eq!((status.as_str(), reason.as_str()), ("False", UNSCHEDULABLE));
        assert_eq!(message, "there is no node b, which the pod names in `nodeName`");
        // An object that somebody has made, and no agent.
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "b"}})).unwrap();
        lab.world.objects.put(Object::Node(Arc::new(node)));
        lab.settle();
        let (.., message) = condition(&lab);
        assert!(
            message.contains("b, which the pod names in `nodeName`: the node has not reported"),
            "{message}"
        );
        lab.world.objects.remove("Node", &Key::new("", "b"));
        lab.connect("b");
        lab.settle();
        assert_eq!(condition(&lab).0, "True");
    }

    #[test]
    fn a_pod_says_what_is_in_the_way_on_the_node_that_it_names() {
        let mut lab = Lab::new(&["a", "b"]);
        lab.settle();
        let mut node = lab.world.objects.nodes[&Key::new("", "b")].as_ref().clone();
        node.spec.get_or_insert_default().unschedulable = Some(true);
        lab.world.objects.put(Object::Node(Arc::new(node)));
        let (status, reason, message) = said(&mut lab, json!({"nodeName": "b"}));
        assert_eq!((status.as_str(), reason.as_str()), ("False", UNSCHEDULABLE));
        assert!(message.contains("b: cordoned"), "{message}");
    }

    #[test]
    fn a_pod_for_labels_that_no_node_has_says_so() {
        let mut lab = Lab::new(&["a"]);
        let selector = json!({"nodeSelector": {"kubernetes.io/hostname": "b"}});
        let (status, reason, message) = said(&mut lab, selector);
        assert_eq!((status.as_str(), reason.as_str()), ("False", UNSCHEDULABLE));
        assert_eq!(message, "0/1 nodes fit: a: no label kubernetes.io/hostname=b");
    }
}
