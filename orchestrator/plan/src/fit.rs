//! Finds a pod's exact CPUs and memory on one node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gantry_topology::{CpuSet, NumaId};

use crate::book::Book;
use crate::exclusive::cpus_within;
use crate::memory::{hugepages_within, memory_order, memory_within};
use crate::reason::Reason;
use crate::{ContainerPlacement, NumaPolicy, Placement, PodRequest};

/// Up to this many NUMA nodes every subset is tried; beyond, single ones and all together.
const SUBSETS_UP_TO: usize = 8;

/// A place on a node.
#[derive(Clone, Debug)]
pub(crate) struct Fit {
    /// The exact place.
    pub(crate) placement: Placement,
    /// NUMA nodes it comes from.
    pub(crate) numa_nodes: usize,
    /// Free exclusive CPUs that the node has left then.
    pub(crate) cpus_left: usize,
    /// Free memory in bytes that the node has left then.
    pub(crate) memory_left_bytes: u64,
}

/// A pod that asks a node for a place, or for another size.
pub(crate) struct Ask<'a> {
    pub(crate) uid: &'a str,
    pub(crate) request: &'a PodRequest,
    pub(crate) node: &'a str,
    /// Where it sits now, on the same node.
    pub(crate) current: Option<&'a Placement>,
}

/// The best place for the pod on the node, or why there is none.
pub(crate) fn fit(book: &Book<'_>, ask: &Ask<'_>) -> Result<Fit, Reason> {
    let all = book.numa_nodes();
    if all.is_empty() {
        return Err(Reason::NoTopology);
    }
    check_storage(book, ask)?;
    let mut failures = BTreeMap::new();
    for same_size in numa_sets(ask, book, &all) {
        let mut best = None;
        for set in same_size {
            match fit_within(book, ask, &set) {
                Ok((cost, fit)) if best.as_ref().is_none_or(|(least, _)| cost < *least) => {
                    best = Some((cost, fit))
                }
                Ok(_) => {}
                Err(reason) => {
                    failures.insert(set, reason);
                }
            }
        }
        if let Some((_, fit)) = best {
            return Ok(fit);
        }
    }
    Err(summarize(ask.request.numa, failures))
}

/// Single: each NUMA node's reason. Otherwise the reason of the largest set tried, which says it for all nodes.
fn summarize(policy: NumaPolicy, failures: BTreeMap<BTreeSet<NumaId>, Reason>) -> Reason {
    if policy == NumaPolicy::Single && failures.len() > 1 {
        let single = failures
            .into_iter()
            .filter_map(|(set, reason)| Some((*set.first()?, reason)));
        return Reason::EachNuma(single.collect());
    }
    failures
        .into_iter()
        .max_by_key(|(set, _)| set.len())
        .map_or(Reason::NoTopology, |(_, reason)| reason)
}

/// Sets of NUMA nodes to try, in steps of rising size. What a pod has stays where it is.
fn numa_sets(ask: &Ask<'_>, book: &Book<'_>, all: &BTreeSet<NumaId>) -> Vec<Vec<BTreeSet<NumaId>>> {
    let ids: Vec<NumaId> = all.iter().copied().collect();
    let sizes: Vec<usize> = match ask.request.numa {
        NumaPolicy::Single => vec![1],
        NumaPolicy::Prefer if ids.len() > SUBSETS_UP_TO => vec![1, ids.len()],
        NumaPolicy::Prefer => (1..=ids.len()).collect(),
        NumaPolicy::Any => vec![ids.len()],
    };
    let of_size = |size: usize| -> Vec<BTreeSet<NumaId>> {
        match size {
            1 => ids.iter().map(|id| BTreeSet::from([*id])).collect(),
            _ if size == ids.len() => vec![all.clone()],
            _ => subsets(&ids, size),
        }
    };
    let has = ask.current.map(|p| where_it_is(p, book)).unwrap_or_default();
    let keeping: Vec<Vec<_>> = sizes
        .iter()
        .map(|size| {
            of_size(*size)
                .into_iter()
                .filter(|set| has.is_subset(set))
                .collect()
        })
        .collect();
    if keeping.iter().all(Vec::is_empty) {
        sizes.into_iter().map(of_size).collect()
    } else {
        keeping
    }
}

fn subsets(ids: &[NumaId], size: usize) -> Vec<BTreeSet<NumaId>> {
    let masks = (0_u32..1 << ids.len()).filter(|mask| mask.count_ones() as usize == size);
    masks
        .map(|mask| {
            ids.iter()
                .enumerate()
                .filter(|(bit, _)| mask & (1 << bit) != 0)
                .map(|(_, id)| *id)
                .collect()
        })
        .collect()
}

/// The NUMA nodes of a pod's exclusive CPUs, memory and hugepages.
fn where_it_is(placement: &Placement, book: &Book<'_>) -> BTreeSet<NumaId> {
    let mut at = BTreeSet::new();
    for container in &placement.containers {
        at.extend(book.state.topology.numa_of(&container.cpus));
        at.extend(container.memory_bytes.keys().chain(container.hugepages.keys()));
    }
    at
}

/// Less is better: L3 groups touched; then CPUs left over (exclusive), most memory left first (shared).
type Cost = (usize, usize, Reverse<u64>);

fn fit_within(book: &Book<'_>, ask: &Ask<'_>, set: &BTreeSet<NumaId>) -> Result<(Cost, Fit), Reason> {
    let mut free = book.free_cpus(ask.uid);
    let mut containers = cpus_within(book, ask, set, &mut free)?;
    let taken: CpuSet = containers.iter().flat_map(|c| c.cpus.iter()).collect();
    let cpu_nodes = book.state.topology.numa_of(&taken);
    let mut free_memory = book.free_memory(ask.uid);
    let order = memory_order(set, &cpu_nodes, &free_memory);
    memory_within(ask, &order, &mut free_memory, &mut containers)?;
    hugepages_within(book, ask, &order, &mut containers)?;
    let placement = Placement {
        namespace: ask.request.namespace.clone(),
        name: ask.request.name.clone(),
        node: ask.node.to_owned(),
        numa_nodes: allowed_nodes(book, ask, set, &cpu_nodes, &containers),
        containers,
        resize_pending: false,
    };
    check_shared_pool(book, ask.uid, &placement)?;
    let in_set = |cpu: &u32| {
        book.state
            .topology
            .cpu(*cpu)
            .is_some_and(|c| set.contains(&c.numa))
    };
    let l3: BTreeSet<_> = taken
        .iter()
        .filter_map(|c| book.state.topology.cpu(c))
        .map(|c| (c.numa, c.l3))
        .collect();
    let left = if taken.is_empty() {
        0
    } else {
        free.iter().filter(in_set).count()
    };
    let memory_in_set = set.iter().filter_map(|n| free_memory.get(n)).sum();
    let fit = Fit {
        numa_nodes: where_it_is(&placement, book).len(),
        placement,
        cpus_left: free.len(),
        memory_left_bytes: free_memory.values().sum(),
    };
    Ok(((l3.len(), left, Reverse(memory_in_set)), fit))
}

/// Where the pod's memory is accounted; without any, where its CPUs are; without those, anywhere it may be.
fn allowed_nodes(
    book: &Book<'_>,
    ask: &Ask<'_>,
    set: &BTreeSet<NumaId>,
    cpu_nodes: &BTreeSet<NumaId>,
    containers: &[ContainerPlacement],
) -> BTreeSet<NumaId> {
    let accounted: BTreeSet<NumaId> = containers
        .iter()
        .flat_map(|c| c.memory_bytes.keys().chain(c.hugepages.keys()))
        .copied()
        .collect();
    if !accounted.is_empty() {
        accounted
    } else if !cpu_nodes.is_empty() {
        cpu_nodes.clone()
    } else if ask.request.numa == NumaPolicy::Single {
        set.clone()
    } else {
        book.numa_nodes()
    }
}

/// Nobody asks for more ephemeral storage than others leave.
fn check_storage(book: &Book<'_>, ask: &Ask<'_>) -> Result<(), Reason> {
    let wanted = ask.request.containers.iter().map(|c| c.storage_bytes);
    let wanted_bytes = wanted.fold(0, u64::saturating_add);
    let asks_more = wanted_bytes > book.of(ask.uid).storage_bytes;
    match book.free_storage(ask.uid) {
        Some(free_bytes) if asks_more && wanted_bytes > free_bytes => Err(Reason::Storage {
            wanted_bytes,
            free_bytes,
        }),
        _ => Ok(()),
    }
}

/// More exclusive CPUs or more shared containers must leave the shared pool large enough for its promises.
fn check_shared_pool(book: &Book<'_>, uid: &str, placement: &Placement) -> Result<(), Reason> {
    let (before, after) = (book.of(uid), book.use_of(uid, Some(placement)));
    let asks_more = !after.cpus.is_subset(&before.cpus)
        || after.shared_milli > before.shared_milli
        || after.shared_containers > before.shared_containers;
    if !asks_more {
        return Ok(());
    }
    let (pool, needed_milli, shared_containers) = book.shared_with(uid, &after);
    let pool_milli = pool.len() as u64 * 1000;
    if pool.is_empty() && (shared_containers > 0 || !book.state.reserved.is_empty()) {
        Err(Reason::NoSharedPool)
    } else if pool_milli < needed_milli {
        Err(Reason::SharedPool {
            needed_milli,
            pool_milli,
        })
    } else {
        Ok(())
    }
}
