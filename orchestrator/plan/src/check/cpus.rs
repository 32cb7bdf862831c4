//! Owners of CPUs, whole cores, the shared pool.

use std::collections::{BTreeMap, BTreeSet};

use gantry_topology::{CpuId, CpuSet};

use super::{Change, Violation, exclusive, has_shared, is_whole_core, shared_milli, whole_core_cpus};
use crate::{NodeState, PodUid};

pub(super) fn check(change: &Change<'_>, node: &str) -> Vec<Violation> {
    let Some(state) = change.snapshot.nodes.get(node) else {
        return Vec::new();
    };
    let mut found = owners(change, node, state);
    found.extend(new_cpus(change, node, state));
    found.extend(whole_cores(change, node, state));
    found.extend(pool(change, node, state));
    found
}

/// A CPU belongs to one container of one pod, and to whoever holds it.
fn owners(change: &Change<'_>, node: &str, state: &NodeState) -> Vec<Violation> {
    let mut owners: BTreeMap<CpuId, Vec<PodUid>> = BTreeMap::new();
    for (uid, placement) in change.on(node) {
        for container in &placement.containers {
            for cpu in container.cpus.iter() {
                owners.entry(cpu).or_default().push(uid.clone());
            }
        }
    }
    for (holder, held) in &state.held {
        for cpu in held.cpus.iter() {
            let owners = owners.entry(cpu).or_default();
            if !owners.contains(holder) {
                owners.push(holder.clone());
            }
        }
    }
    let shared = owners.into_iter().filter(|(_, owners)| owners.len() > 1);
    shared
        .map(|(cpu, owners)| Violation::TwoOwners {
            node: node.to_owned(),
            cpu,
            owners,
        })
        .collect()
}

/// CPUs that a pod did not have before are online and not reserved.
fn new_cpus(change: &Change<'_>, node: &str, state: &NodeState) -> Vec<Violation> {
    let online = state.topology.all_cpus();
    let mut found = Vec::new();
    for (uid, placement) in change.on(node) {
        let before = change.before(uid, node).map(exclusive).unwrap_or_default();
        let new = exclusive(placement).difference(&before);
        let (reserved, offline) = (new.intersection(&state.reserved), new.difference(&online));
        if !reserved.is_empty() {
            found.push(Violation::Reserved {
                node: node.to_owned(),
                pod: uid.clone(),
                cpus: reserved,
            });
        }
        if !offline.is_empty() {
            found.push(Violation::NotOnline {
                node: node.to_owned(),
                pod: uid.clone(),
                cpus: offline,
            });
        }
    }
    found
}

/// The SMT siblings of each CPU, itself included.
fn cores(state: &NodeState) -> BTreeMap<CpuId, CpuSet> {
    let core_of = |id| {
        state
            .topology
            .cpus
            .iter()
            .filter(move |c| c.core == id)
            .map(|c| c.id)
            .collect()
    };
    state
        .topology
        .cpus
        .iter()
        .map(|c| (c.id, core_of(c.core)))
        .collect()
}

/// Nobody else has, or holds, a sibling of a whole-core container's CPU.
fn whole_cores(change: &Change<'_>, node: &str, state: &NodeState) -> Vec<Violation> {
    let cores = cores(state);
    let mut owner: BTreeMap<CpuId, BTreeSet<(PodUid, String)>> = BTreeMap::new();
    for (uid, placement) in change.on(node) {
        for container in &placement.containers {
            for cpu in container.cpus.iter() {
                owner
                    .entry(cpu)
                    .or_default()
                    .insert((uid.clone(), container.name.clone()));
            }
        }
    }
    for (uid, held) in &state.held {
        for cpu in held
            .cpus
            .iter()
            .filter(|c| !owner.contains_key(c))
            .collect::<Vec<_>>()
        {
            // What the pod itself still holds is no other container's.
            owner.entry(cpu).or_default().insert((uid.clone(), String::new()));
        }
    }
    let mut found = Vec::new();
    for (uid, placement) in change.on(node) {
        for container in placement.containers.iter().filter(|c| is_whole_core(c.cpu)) {
            let siblings = container
                .cpus
                .iter()
                .filter_map(|c| cores.get(&c))
                .flat_map(CpuSet::iter);
            for cpu in siblings
                .filter(|c| !container.cpus.contains(*c))
                .collect::<CpuSet>()
                .iter()
            {
                let others = owner.get(&cpu).into_iter().flatten();
                let mut strangers =
                    others.filter(|(pod, name)| pod != uid || !(name.is_empty() || *name == container.name));
                if let Some((other, _)) = strangers.next() {
                    let (node, pod, other) = (node.to_owned(), uid.clone(), other.clone());
                    found.push(Violation::SplitCore {
                        node,
                        pod,
                        cpu,
                        other,
                    });
                }
            }
        }
    }
    found
}

/// The pool is what nobody has and no whole core needs idle, and it carries what this plan promises anew.
fn pool(change: &Change<'_>, node: &str, state: &NodeState) -> Vec<Violation> {
    let cores = cores(state);
    let with_siblings = |cpus: &CpuSet| -> CpuSet {
        cpus.iter()
            .filter_map(|c| cores.get(&c))
            .flat_map(CpuSet::iter)
            .collect()
    };
    let mut gone: CpuSet = state.held.values().flat_map(|held| held.cpus.iter()).collect();
    for (uid, placement) in change.on(node) {
        let whole = whole_core_cpus(placement);
        gone = gone.union(&exclusive(placement)).union(&with_siblings(&whole));
        if placement.containers.iter().any(|c| is_whole_core(c.cpu))
            && let Some(held) = state.held.get(uid)
        {
            gone = gone.union(&with_siblings(&held.cpus));
        }
    }
    let expected = state.topology.all_cpus().difference(&gone);
    let pool = change.next.shared_pools.get(node).cloned().unwrap_or_default();
    let node = node.to_owned();
    if pool != expected || !change.next.shared_pools.contains_key(&node) {
        return vec![Violation::WrongPool { node, pool, expected }];
    }
    let promised_milli: u64 = change
        .on(&node)
        .map(|(_, placement)| shared_milli(placement))
        .sum();
    let wanted = !state.reserved.is_empty() || change.on(&node).any(|(_, placement)| has_shared(placement));
    let too_small = (pool.len() as u64) * 1000 < promised_milli || (wanted && pool.is_empty());
    if too_small && takes_more(change, &node, &with_siblings) {
        return vec![Violation::PoolTooSmall {
            node,
            pool,
            promised_milli,
        }];
    }
    Vec::new()
}

/// Whether a pod has more of the node's CPUs, or a larger promise, than it had before.
fn takes_more(change: &Change<'_>, node: &str, with_siblings: &dyn Fn(&CpuSet) -> CpuSet) -> bool {
    let own = |placement| exclusive(placement).union(&with_siblings(&whole_core_cpus(placement)));
    let mut pods = change
        .next
        .placements
        .iter()
        .filter(|(_, placement)| placement.node == node);
    pods.any(|(uid, placement)| {
        let held = change
            .snapshot
            .nodes
            .get(node)
            .and_then(|state| state.held.get(uid));
        let held = held.map(|held| held.cpus.clone()).unwrap_or_default();
        let before = change.before(uid, node);
        let had = before
            .map(own)
            .unwrap_or_default()
            .union(&held)
            .union(&with_siblings(&held));
        !own(placement).is_subset(&had)
            || shared_milli(placement) > before.map_or(0, shared_milli)
            || (has_shared(placement) && !before.is_some_and(has_shared))
    })
}
