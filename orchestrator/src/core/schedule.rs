//! The planner loop: snapshot -> plan -> check -> bind.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use gantry_plan::{Outcome, Placement};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::world::{Key, Work};
use super::{meta, nodes, pods, snapshot};

/// Plans, refuses a plan that breaks a rule, gives every newly placed pod its node and address.
pub fn run(work: &mut Work<'_>) {
    let snapshot = snapshot::take(&work.objects, work.agents, &work.plan);
    let outcome = gantry_plan::plan(&snapshot, &work.plan, work.settings.seed);
    let violations = gantry_plan::check(&snapshot, &work.plan, &outcome.plan);
    if !violations.is_empty() {
        work.refused = violations;
        return;
    }
    explain(work, &outcome);
    work.unplaced = outcome.unplaced;
    work.plan = outcome.plan;
    bind_all(work);
}

/// Pods without a place say why.
fn explain(work: &mut Work<'_>, outcome: &Outcome) {
    let now_ms = work.now_ms;
    for key in work.keys::<Pod>() {
        let Some(pod) = work.get::<Pod>(&key) else {
            continue;
        };
        let Some(why) = outcome.unplaced.get(meta::uid(&pod.metadata)) else {
            continue;
        };
        if pods::node(&pod).is_some() {
            continue;
        }
        let Some(edited) = work.edit::<Pod>(&key) else {
            continue;
        };
        pods::status_mut(edited)
            .phase
            .get_or_insert_with(|| "Pending".to_owned());
        if pods::set_condition(
            edited,
            "PodScheduled",
            false,
            "Unschedulable",
            &why.reason,
            now_ms,
        ) {
            work.tell(&*pod, true, "FailedScheduling", &why.reason);
        }
    }
}

fn bind_all(work: &mut Work<'_>) {
    for key in work.keys::<Pod>() {
        let Some(pod) = work.get::<Pod>(&key) else {
            continue;
        };
        if pods::is_stopping(&pod) {
            continue;
        }
        let Some(placement) = work.plan.placements.get(meta::uid(&pod.metadata)).cloned() else {
            continue;
        };
        if pods::node(&pod).is_none() || pods::find(&pod, "PodScheduled").is_none() {
            bind(work, &key, &pod, &placement);
        }
    }
}

fn bind(work: &mut Work<'_>, key: &Key, pod: &Pod, placement: &Placement) {
    let now_ms = work.now_ms;
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
    let address = if host_network {
        host_address(work, &placement.node)
    } else {
        let free = free_address(work, &placement.node, meta::uid(&pod.metadata));
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
    let text = format!("placed on {}{}", placement.node, exclusive_text(placement));
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

/// An address of the node that nobody has: no pod in the store, none in the node's configuration, none that it still reports.
fn free_address(work: &Work<'_>, node: &str, uid: &str) -> Option<Ipv4Addr> {
    let range = nodes::cidr(&*work.get::<Node>(&Key::new("", node))?)?;
    let mut taken: BTreeSet<Ipv4Addr> = work
        .objects
        .pods
        .values()
        .filter_map(|p| pods::address(p))
        .collect();
    taken.extend(
        work.sent
            .get(node)
            .iter()
            .flat_map(|c| c.pods.values().filter_map(|p| p.address)),
    );
    let report = work.agents.get(node).and_then(|a| a.status.as_ref());
    taken.extend(
        report
            .iter()
            .flat_map(|r| r.pods.values().filter_map(|p| p.address)),
    );
    // The first address is the gateway's. Starting where the uid says keeps an address from coming back soon.
    let hosts: Vec<Ipv4Addr> = range.hosts().skip(1).collect();
    let start = usize::from_str_radix(uid.get(..8)?, 16).unwrap_or(0) % hosts.len().max(1);
    hosts[start..]
        .iter()
        .chain(&hosts[..start])
        .find(|a| !taken.contains(a))
        .copied()
}
