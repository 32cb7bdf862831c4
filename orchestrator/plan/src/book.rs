//! Capacity accounting of one node: who has what, and what is free for whom.

use std::collections::{BTreeMap, BTreeSet};

use gantry_topology::{CpuId, CpuSet, NumaId};

use crate::{CpuRequest, Held, NodeState, Placement, PodUid, SmtPolicy};

/// What one pod takes from a node, by plan and by what it still holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Use {
    /// Exclusive CPUs, those still held, and siblings that must stay idle.
    pub(crate) cpus: CpuSet,
    /// Memory granted, by NUMA node.
    pub(crate) memory_bytes: BTreeMap<NumaId, u64>,
    /// Memory held beyond the grant. Nobody knows on which NUMA node: it counts on every one.
    pub(crate) floating_bytes: u64,
    /// Hugepages granted: NUMA node and page size to bytes.
    pub(crate) hugepages: BTreeMap<(NumaId, u64), u64>,
    /// Promised from the shared pool.
    pub(crate) shared_milli: u64,
    /// Containers in the shared pool.
    pub(crate) shared_containers: usize,
    /// Ephemeral storage granted.
    pub(crate) storage_bytes: u64,
}

/// One node's books.
#[derive(Clone, Debug)]
pub(crate) struct Book<'a> {
    /// The node as reported.
    pub(crate) state: &'a NodeState,
    online: CpuSet,
    siblings: BTreeMap<CpuId, CpuSet>,
    /// Memory for pods by NUMA node: total minus hugepages minus the reservation.
    capacity_bytes: BTreeMap<NumaId, u64>,
    uses: BTreeMap<PodUid, Use>,
    /// How many pods' [`Use::cpus`] hold a CPU.
    taken: BTreeMap<CpuId, u32>,
    total: Use,
    /// Ephemeral storage granted to all pods. A node without a limit grants whatever is asked for.
    storage_bytes: u128,
}

impl<'a> Book<'a> {
    /// Opens the books with what pods hold, no placement yet.
    pub(crate) fn open(state: &'a NodeState) -> Self {
        let mut by_core: BTreeMap<_, CpuSet> = BTreeMap::new();
        for cpu in &state.topology.cpus {
            by_core.entry(cpu.core).or_default().insert(cpu.id);
        }
        let mut book = Self {
            state,
            online: state.topology.all_cpus(),
            siblings: state
                .topology
                .cpus
                .iter()
                .map(|c| (c.id, by_core[&c.core].clone()))
                .collect(),
            capacity_bytes: memory_capacity(state),
            uses: BTreeMap::new(),
            taken: BTreeMap::new(),
            total: Use::default(),
            storage_bytes: 0,
        };
        for uid in state.held.keys() {
            book.set(uid, None);
        }
        book
    }

    /// Records where a pod sits (or that the plan gives it nothing any more: what it holds stays its own).
    pub(crate) fn set(&mut self, uid: &str, placement: Option<&Placement>) {
        if let Some(old) = self.uses.remove(uid) {
            self.count(&old, false);
        }
        let new = self.use_of(uid, placement);
        if new != Use::default() {
            self.count(&new, true);
            self.uses.insert(uid.to_owned(), new);
        }
    }

    /// What a placement takes, together with what the pod holds.
    pub(crate) fn use_of(&self, uid: &str, placement: Option<&Placement>) -> Use {
        let nothing = Held::default();
        let held = self.state.held.get(uid).unwrap_or(&nothing);
        let mut uses = Use {
            cpus: held.cpus.clone(),
            ..Use::default()
        };
        let mut whole_cores = false;
        for container in placement.iter().flat_map(|p| &p.containers) {
            uses.cpus = uses.cpus.union(&container.cpus);
            match container.cpu {
                CpuRequest::Shared { request_milli, .. } => {
                    uses.shared_milli += u64::from(request_milli);
                    uses.shared_containers += 1;
                }
                CpuRequest::Exclusive { smt, .. } => {
                    whole_cores |= smt == SmtPolicy::Full;
                    if smt == SmtPolicy::Full {
                        uses.cpus = uses.cpus.union(&self.with_siblings(&container.cpus));
                    }
                }
            }
            uses.storage_bytes = uses.storage_bytes.saturating_add(container.storage_bytes);
            for (numa, bytes) in &container.memory_bytes {
                *uses.memory_bytes.entry(*numa).or_default() += bytes;
            }
            for (numa, pages) in &container.hugepages {
                for (size, bytes) in pages {
                    *uses.hugepages.entry((*numa, *size)).or_default() += bytes;
                }
            }
        }
        if whole_cores {
            uses.cpus = uses.cpus.union(&self.with_siblings(&held.cpus));
        }
        // No pod can hold more than there is, whatever a broken report says.
        let physical: u64 = self
            .state
            .topology
            .numa_nodes
            .iter()
            .map(|n| n.memory_bytes)
            .sum();
        let beyond = held.memory_bytes.saturating_sub(uses.memory_bytes.values().sum());
        uses.floating_bytes = beyond.min(physical);
        uses
    }

    /// The CPUs and all their SMT siblings.
    pub(crate) fn with_siblings(&self, cpus: &CpuSet) -> CpuSet {
        let whole = cpus.iter().filter_map(|c| self.siblings.get(&c));
        whole.flat_map(CpuSet::iter).chain(cpus.iter()).collect()
    }

    /// CPUs that this pod may have exclusively: nobody else's, not reserved.
    pub(crate) fn free_cpus(&self, uid: &str) -> CpuSet {
        self.not_taken_by_others(uid).difference(&self.state.reserved)
    }

    /// Memory in bytes that this pod may have, by NUMA node.
    pub(crate) fn free_memory(&self, uid: &str) -> BTreeMap<NumaId, u64> {
        let none = Use::default();
        let own = self.uses.get(uid).unwrap_or(&none);
        let floating = self.total.floating_bytes - own.floating_bytes;
        let free = |numa: &NumaId, capacity: u64| {
            let granted = sum_at(&self.total.memory_bytes, numa) - sum_at(&own.memory_bytes, numa);
            capacity.saturating_sub(granted).saturating_sub(floating)
        };
        self.capacity_bytes
            .iter()
            .map(|(numa, capacity)| (*numa, free(numa, *capacity)))
            .collect()
    }

    /// Ephemeral storage in bytes that this pod may have; `None`: without a limit.
    pub(crate) fn free_storage(&self, uid: &str) -> Option<u64> {
        let own = self.uses.get(uid).map_or(0, |uses| uses.storage_bytes);
        let others = self.storage_bytes - u128::from(own);
        let left = u128::from(self.state.storage_bytes?).saturating_sub(others);
        Some(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// Hugepages of one size in bytes that this pod may have, by NUMA node.
    pub(crate) fn free_hugepages(&self, uid: &str, page_bytes: u64) -> BTreeMap<NumaId, u64> {
        let none = Use::default();
        let own = self.uses.get(uid).unwrap_or(&none);
        let free = |node: &gantry_topology::NumaNode| {
            let capacity = node
                .hugepages
                .get(&page_bytes)
                .copied()
                .unwrap_or(0)
                .saturating_mul(page_bytes);
            let key = (node.id, page_bytes);
            let granted = sum_at(&self.total.hugepages, &key) - sum_at(&own.hugepages, &key);
            (node.id, capacity.saturating_sub(granted))
        };
        self.state.topology.numa_nodes.iter().map(free).collect()
    }

    /// The shared pool: online CPUs that nobody has.
    pub(crate) fn shared_pool(&self) -> CpuSet {
        self.online
            .iter()
            .filter(|c| !self.taken.contains_key(c))
            .collect()
    }

    /// The shared pool and the sums of promises, if this pod's use became `uses`.
    pub(crate) fn shared_with(&self, uid: &str, uses: &Use) -> (CpuSet, u64, usize) {
        let none = Use::default();
        let own = self.uses.get(uid).unwrap_or(&none);
        (
            self.not_taken_by_others(uid).difference(&uses.cpus),
            self.total.shared_milli - own.shared_milli + uses.shared_milli,
            self.total.shared_containers - own.shared_containers + uses.shared_containers,
        )
    }

    /// What this pod takes now.
    pub(crate) fn of(&self, uid: &str) -> Use {
        self.uses.get(uid).cloned().unwrap_or_default()
    }

    /// What the shared pool has left to promise, in thousandths of a CPU.
    pub(crate) fn free_shared_milli(&self) -> u64 {
        let pool =
            (self.online.len() - self.taken.keys().filter(|c| self.online.contains(**c)).count()) as u64;
        (pool * 1000).saturating_sub(self.total.shared_milli)
    }

    /// All NUMA nodes.
    pub(crate) fn numa_nodes(&self) -> BTreeSet<NumaId> {
        let of_cpus = self.state.topology.cpus.iter().map(|c| c.numa);
        self.state
            .topology
            .numa_nodes
            .iter()
            .map(|n| n.id)
            .chain(of_cpus)
            .collect()
    }

    fn not_taken_by_others(&self, uid: &str) -> CpuSet {
        let own = self.uses.get(uid).map(|u| &u.cpus);
        let free = |cpu: &CpuId| {
            let mine = u32::from(own.is_some_and(|own| own.contains(*cpu)));
            self.taken.get(cpu).is_none_or(|pods| *pods == mine)
        };
        self.online.iter().filter(free).collect()
    }

    fn count(&mut self, uses: &Use, add: bool) {
        let change = |sum: &mut u64, by: u64| if add { *sum += by } else { *sum -= by };
        for cpu in uses.cpus.iter() {
            let pods = self.taken.entry(cpu).or_default();
            *pods = if add { *pods + 1 } else { *pods - 1 };
            if *pods == 0 {
                self.taken.remove(&cpu);
            }
        }
        for (numa, bytes) in &uses.memory_bytes {
            change(self.total.memory_bytes.entry(*numa).or_default(), *bytes);
        }
        for (key, bytes) in &uses.hugepages {
            change(self.total.hugepages.entry(*key).or_default(), *bytes);
        }
        let storage = u128::from(uses.storage_bytes);
        self.storage_bytes = if add {
            self.storage_bytes + storage
        } else {
            self.storage_bytes - storage
        };
        change(&mut self.total.floating_bytes, uses.floating_bytes);
        change(&mut self.total.shared_milli, uses.shared_milli);
        let containers = uses.shared_containers;
        self.total.shared_containers = if add {
            self.total.shared_containers + containers
        } else {
            self.total.shared_containers - containers
        };
    }
}

fn sum_at<K: Ord>(sums: &BTreeMap<K, u64>, key: &K) -> u64 {
    sums.get(key).copied().unwrap_or(0)
}

/// Memory for pods by NUMA node: total minus hugepages, the reservation taken off the first nodes.
fn memory_capacity(state: &NodeState) -> BTreeMap<NumaId, u64> {
    let mut reserve = state.reserved_memory_bytes;
    let mut capacity = BTreeMap::new();
    for node in &state.topology.numa_nodes {
        let plain = node.plain_memory_bytes();
        let off = plain.min(reserve);
        reserve -= off;
        capacity.insert(node.id, plain - off);
    }
    capacity
}
