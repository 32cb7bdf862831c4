//! The tree socket > NUMA node > L3 group > physical core > logical CPU, as Linux reports it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::CpuSet;

/// A logical CPU, by its kernel number (`/sys/devices/system/cpu/cpuN`).
pub type CpuId = u32;
/// A NUMA node, by its kernel number (`/sys/devices/system/node/nodeN`).
pub type NumaId = u32;
/// A group of CPUs that share a last-level cache (`cache/index3/id`).
pub type L3Id = u32;

/// A physical core: SMT siblings share one. Unique over the whole node.
pub type PhysicalCore = u32;

/// One logical CPU and where it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// Kernel number.
    pub id: CpuId,
    /// Node-wide number of the physical core.
    pub core: PhysicalCore,
    /// L3 group.
    pub l3: L3Id,
    /// NUMA node.
    pub numa: NumaId,
    /// Physical package.
    pub socket: u32,
}

/// One NUMA node's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumaNode {
    /// Kernel number.
    pub id: NumaId,
    /// Total memory in bytes, hugepages included.
    pub memory_bytes: u64,
    /// Reserved hugepages: page size in bytes to number of pages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hugepages: BTreeMap<u64, u64>,
    /// Distance to each NUMA node (SLIT; 10 is local).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub distances: BTreeMap<NumaId, u32>,
}

impl NumaNode {
    /// Memory in bytes beside the hugepages, which are counted apart.
    pub fn plain_memory_bytes(&self) -> u64 {
        let sizes = self
            .hugepages
            .iter()
            .map(|(size, pages)| size.saturating_mul(*pages));
        self.memory_bytes
            .saturating_sub(sizes.fold(0, u64::saturating_add))
    }
}

/// Everything of a node that placement needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// Online CPUs, by ascending id.
    pub cpus: Vec<Cpu>,
    /// NUMA nodes, by ascending id.
    pub numa_nodes: Vec<NumaNode>,
}

impl Topology {
    /// All memory in bytes, hugepages included.
    pub fn memory_bytes(&self) -> u64 {
        let sizes = self.numa_nodes.iter().map(|node| node.memory_bytes);
        sizes.fold(0, u64::saturating_add)
    }

    /// All online CPUs.
    pub fn all_cpus(&self) -> CpuSet {
        self.cpus.iter().map(|c| c.id).collect()
    }

    /// The CPUs of one NUMA node.
    pub fn cpus_of_numa(&self, numa: NumaId) -> CpuSet {
        self.cpus
            .iter()
            .filter(|c| c.numa == numa)
            .map(|c| c.id)
            .collect()
    }

    /// The CPU with this id, if it is online.
    pub fn cpu(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.iter().find(|c| c.id == id)
    }

    /// The NUMA nodes that the given CPUs belong to.
    pub fn numa_of(&self, cpus: &CpuSet) -> std::collections::BTreeSet<NumaId> {
        cpus.iter()
            .filter_map(|id| self.cpu(id))
            .map(|c| c.numa)
            .collect()
    }
}
