//! A second opinion: verifies a plan against the invariants. It shares no code with the planner beyond CPU sets and
//! topology, and it looks at what a plan changes: what an earlier plan decided under other circumstances stays valid
//! where it is.

mod cpus;
mod memory;
mod pods;
mod storage;
mod violation;

use std::collections::BTreeSet;

use gantry_topology::CpuSet;

pub use violation::Violation;

use crate::{CpuRequest, Placement, Plan, PodUid, SmtPolicy, Snapshot};

/// Everything that is wrong with `next` as the successor of `current` for this snapshot; empty if nothing is.
pub fn check(snapshot: &Snapshot, current: &Plan, next: &Plan) -> Vec<Violation> {
    let mut found = Vec::new();
    let change = Change {
        snapshot,
        current,
        next,
    };
    if next == current {
        found.extend(pods::anyone_lost(&change));
    } else if next.parent != current.id || next.id <= current.id {
        found.push(Violation::Lineage {
            id: next.id,
            parent: next.parent,
            current: current.id,
        });
    }
    found.extend(pods::check(&change));
    for node in snapshot.nodes.keys() {
        found.extend(pods::too_many(&change, node));
        found.extend(cpus::check(&change, node));
        found.extend(memory::check(&change, node));
        found.extend(storage::check(&change, node));
    }
    found
}

/// A plan, its predecessor, and what it was made for.
struct Change<'a> {
    snapshot: &'a Snapshot,
    current: &'a Plan,
    next: &'a Plan,
}

impl<'a> Change<'a> {
    /// The next plan's pods on a node.
    fn on(&self, node: &'a str) -> impl Iterator<Item = (&'a PodUid, &'a Placement)> {
        self.next
            .placements
            .iter()
            .filter(move |(_, placement)| placement.node == node)
    }

    /// The pod's place in the current plan, if it is on the same node.
    fn before(&self, uid: &str, node: &str) -> Option<&'a Placement> {
        self.current
            .placements
            .get(uid)
            .filter(|placement| placement.node == node)
    }
}

fn exclusive(placement: &Placement) -> CpuSet {
    placement.containers.iter().flat_map(|c| c.cpus.iter()).collect()
}

/// Exclusive CPUs of containers that have whole cores.
fn whole_core_cpus(placement: &Placement) -> CpuSet {
    let whole = placement.containers.iter().filter(|c| is_whole_core(c.cpu));
    whole.flat_map(|c| c.cpus.iter()).collect()
}

fn is_whole_core(cpu: CpuRequest) -> bool {
    matches!(
        cpu,
        CpuRequest::Exclusive {
            smt: SmtPolicy::Full,
            ..
        }
    )
}

fn shared_milli(placement: &Placement) -> u64 {
    let milli = |cpu: CpuRequest| match cpu {
        CpuRequest::Shared { request_milli, .. } => u64::from(request_milli),
        CpuRequest::Exclusive { .. } => 0,
    };
    placement.containers.iter().map(|c| milli(c.cpu)).sum()
}

fn has_shared(placement: &Placement) -> bool {
    placement
        .containers
        .iter()
        .any(|c| matches!(c.cpu, CpuRequest::Shared { .. }))
}

/// NUMA nodes of a placement's CPUs, memory and hugepages.
fn numa_nodes(snapshot: &Snapshot, placement: &Placement) -> BTreeSet<u32> {
    let topology = snapshot.nodes.get(&placement.node).map(|node| &node.topology);
    let mut at = topology
        .map(|t| t.numa_of(&exclusive(placement)))
        .unwrap_or_default();
    for container in &placement.containers {
        at.extend(container.memory_bytes.keys().chain(container.hugepages.keys()));
    }
    at
}
