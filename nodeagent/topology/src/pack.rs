//! Best-fit packing of CPUs: one L3 group if it fits, else one NUMA node, and whole cores before fragments.

use std::collections::BTreeMap;

use crate::{CpuId, CpuSet, L3Id, NumaId, PhysicalCore, Topology};

/// A physical core and those of its CPUs that may be taken.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    pub(crate) id: PhysicalCore,
    pub(crate) l3: L3Id,
    pub(crate) numa: NumaId,
    /// All online CPUs of the core.
    pub(crate) all: Vec<CpuId>,
    /// Those that may be taken.
    pub(crate) usable: Vec<CpuId>,
}

/// The cores of a node, nothing usable yet.
pub(crate) fn cores(topology: &Topology) -> Vec<Core> {
    let mut cores: BTreeMap<PhysicalCore, Core> = BTreeMap::new();
    for cpu in &topology.cpus {
        let new = || Core {
            id: cpu.core,
            l3: cpu.l3,
            numa: cpu.numa,
            all: Vec::new(),
            usable: Vec::new(),
        };
        cores.entry(cpu.core).or_insert_with(new).all.push(cpu.id);
    }
    cores.into_values().collect()
}

/// How many CPUs the cores offer.
pub(crate) fn capacity<'a>(cores: impl IntoIterator<Item = &'a Core>) -> usize {
    cores.into_iter().map(|c| c.usable.len()).sum()
}

/// Takes `count` CPUs from one NUMA node; `None` if no node has as many.
pub(crate) fn from_one_numa(cores: &[&Core], count: usize) -> Option<CpuSet> {
    let nodes = group(cores, |c| (c.numa, 0));
    let fitting = nodes
        .iter()
        .filter(|(_, members)| capacity(members.iter().copied()) >= count);
    let (_, members) = fitting.min_by_key(|(key, members)| (numa_cost(members, count), **key))?;
    from_any_l3(members, count)
}

/// Takes `count` CPUs from as few NUMA nodes as possible; `None` if there are not as many.
pub(crate) fn from_few_numa(cores: &[&Core], count: usize) -> Option<CpuSet> {
    let mut nodes = group(cores, |c| (c.numa, 0));
    let mut taken = CpuSet::new();
    loop {
        let left = count - taken.len();
        let rest: Vec<&Core> = nodes.values().flatten().copied().collect();
        if let Some(last) = from_one_numa(&rest, left) {
            return Some(taken.union(&last));
        }
        taken = taken.union(&take_largest(&mut nodes)?);
    }
}

/// Takes `count` CPUs from as few L3 groups as possible, wherever they are; `None` if there are not as many.
pub(crate) fn from_any_l3(cores: &[&Core], count: usize) -> Option<CpuSet> {
    let mut groups = group(cores, |c| (c.numa, c.l3));
    let mut taken = CpuSet::new();
    loop {
        let left = count - taken.len();
        let fitting = groups
            .iter()
            .map(|(key, members)| (capacity(members.iter().copied()), *key));
        if let Some((_, key)) = fitting.filter(|(capacity, _)| *capacity >= left).min() {
            return Some(taken.union(&from_cores(&groups[&key], left)));
        }
        taken = taken.union(&take_largest(&mut groups)?);
    }
}

type Groups<'a> = BTreeMap<(NumaId, L3Id), Vec<&'a Core>>;

fn group<'a>(cores: &[&'a Core], key: impl Fn(&Core) -> (NumaId, L3Id)) -> Groups<'a> {
    let mut groups = Groups::new();
    for core in cores.iter().filter(|c| !c.usable.is_empty()) {
        groups.entry(key(core)).or_default().push(core);
    }
    groups
}

/// All CPUs of the group that has most, which leaves the map.
fn take_largest(groups: &mut Groups<'_>) -> Option<CpuSet> {
    let sizes = groups
        .iter()
        .map(|(key, members)| (capacity(members.iter().copied()), *key));
    let (_, key) = sizes.max_by_key(|(size, key)| (*size, std::cmp::Reverse(*key)))?;
    let members = groups.remove(&key)?;
    Some(members.iter().flat_map(|c| c.usable.iter().copied()).collect())
}

/// Less is better: fits one L3 group, breaks up the smallest such group, leaves the emptier NUMA node alone.
fn numa_cost(members: &[&Core], count: usize) -> (bool, usize, usize) {
    let l3_sizes = group(members, |c| (c.numa, c.l3));
    let sizes = l3_sizes.values().map(|m| capacity(m.iter().copied()));
    let best = sizes.filter(|size| *size >= count).min();
    (
        best.is_none(),
        best.unwrap_or(0),
        capacity(members.iter().copied()),
    )
}

/// Whole cores while they fit, then the smallest fragment that does. The caller knows that there are enough.
fn from_cores(cores: &[&Core], count: usize) -> CpuSet {
    let mut left: Vec<&Core> = cores.to_vec();
    let mut taken = CpuSet::new();
    while taken.len() < count {
        let missing = count - taken.len();
        let whole = left.iter().filter(|c| c.usable.len() <= missing);
        let pick = whole
            .max_by_key(|c| (c.usable.len(), std::cmp::Reverse(c.id)))
            .or_else(|| left.iter().min_by_key(|c| (c.usable.len(), c.id)))
            .map(|c| c.id);
        let Some(position) = left.iter().position(|c| Some(c.id) == pick) else {
            break;
        };
        for cpu in left.swap_remove(position).usable.iter().take(missing) {
            taken.insert(*cpu);
        }
    }
    taken
}
