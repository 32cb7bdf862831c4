//! Memory and hugepages of one node.

use std::collections::BTreeMap;

use gantry_topology::NumaId;

use super::{Change, Violation};
use crate::{NodeState, Placement};

pub(super) fn check(change: &Change<'_>, node: &str) -> Vec<Violation> {
    let Some(state) = change.snapshot.nodes.get(node) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut reserve = state.reserved_memory_bytes;
    for numa in &state.topology.numa_nodes {
        let in_hugepages: u64 = numa.hugepages.iter().map(|(size, pages)| size * pages).sum();
        let mut capacity_bytes = numa.memory_bytes.saturating_sub(in_hugepages);
        let reserved_here = reserve.min(capacity_bytes);
        reserve -= reserved_here;
        capacity_bytes -= reserved_here;
        if let Some(granted_bytes) = overcommitted(change, node, state, numa.id, capacity_bytes) {
            found.push(Violation::Memory {
                node: node.to_owned(),
                numa: numa.id,
                granted_bytes,
                capacity_bytes,
            });
        }
    }
    found.extend(hugepages(change, node, state));
    found
}

/// What is taken of a NUMA node's memory, if it is too much and a pod's share has grown.
fn overcommitted(
    change: &Change<'_>,
    node: &str,
    state: &NodeState,
    numa: NumaId,
    capacity_bytes: u64,
) -> Option<u64> {
    let granted: u64 = change
        .on(node)
        .map(|(_, placement)| on_numa(placement, numa))
        .sum();
    // Held beyond the grant: it may be on any NUMA node.
    let beyond = |holder: &str| -> u64 {
        let held = state.held.get(holder).map_or(0, |held| held.memory_bytes);
        let placement = change
            .next
            .placements
            .get(holder)
            .filter(|placement| placement.node == node);
        held.saturating_sub(placement.map_or(0, total))
    };
    let physical: u64 = state.topology.numa_nodes.iter().map(|n| n.memory_bytes).sum();
    let grown = change.on(node).filter(|(uid, placement)| {
        on_numa(placement, numa) > change.before(uid, node).map_or(0, |before| on_numa(before, numa))
    });
    let taken = |uid: &str| {
        let others = state
            .held
            .keys()
            .filter(|holder| *holder != uid)
            .map(|holder| beyond(holder).min(physical));
        others.fold(granted, u64::saturating_add)
    };
    grown
        .map(|(uid, _)| taken(uid))
        .filter(|taken| *taken > capacity_bytes)
        .max()
}

fn on_numa(placement: &Placement, numa: NumaId) -> u64 {
    placement
        .containers
        .iter()
        .filter_map(|c| c.memory_bytes.get(&numa))
        .sum()
}

fn total(placement: &Placement) -> u64 {
    placement
        .containers
        .iter()
        .flat_map(|c| c.memory_bytes.values())
        .sum()
}

fn pages(placement: &Placement) -> BTreeMap<(NumaId, u64), u64> {
    let mut sums = BTreeMap::new();
    for (numa, pages) in placement.containers.iter().flat_map(|c| &c.hugepages) {
        for (size, bytes) in pages {
            *sums.entry((*numa, *size)).or_default() += bytes;
        }
    }
    sums
}

fn hugepages(change: &Change<'_>, node: &str, state: &NodeState) -> Vec<Violation> {
    let mut granted: BTreeMap<(NumaId, u64), u64> = BTreeMap::new();
    let mut grown = BTreeMap::new();
    for (uid, placement) in change.on(node) {
        let before = change.before(uid, node).map(pages).unwrap_or_default();
        for (key, bytes) in pages(placement) {
            *granted.entry(key).or_default() += bytes;
            *grown.entry(key).or_insert(false) |= bytes > before.get(&key).copied().unwrap_or(0);
        }
    }
    let mut found = Vec::new();
    for ((numa, page_bytes), granted_bytes) in granted {
        let node_pages = state.topology.numa_nodes.iter().find(|n| n.id == numa);
        let pages = node_pages
            .and_then(|n| n.hugepages.get(&page_bytes))
            .copied()
            .unwrap_or(0);
        let capacity_bytes = pages * page_bytes;
        if granted_bytes > capacity_bytes && grown[&(numa, page_bytes)] {
            let node = node.to_owned();
            found.push(Violation::Hugepages {
                node,
                numa,
                page_bytes,
                granted_bytes,
                capacity_bytes,
            });
        }
    }
    found
}
