//! Small random machines.

use std::collections::BTreeMap;

use gantry_topology::{Cpu, NumaNode, Topology};

use crate::rng::Rng;

/// One or two NUMA nodes, with or without SMT, 4 to 16 logical CPUs.
pub(crate) fn random(rng: &mut Rng) -> Topology {
    let numa_nodes = rng.between(1, 2);
    let threads = rng.between(1, 2);
    let cores_per_numa = rng.between(2, 4) * (if numa_nodes == 1 { 2 } else { 1 });
    let mut cpus = Vec::new();
    let cores = cores_per_numa * numa_nodes;
    for thread in 0..threads {
        for core in 0..cores {
            let numa = core / cores_per_numa;
            let small = |n: u64| u32::try_from(n).expect("small machines");
            cpus.push(Cpu {
                id: small(thread * cores + core),
                core: small(core),
                l3: small(numa),
                numa: small(numa),
                socket: small(numa),
            });
        }
    }
    let node = |id: u64| NumaNode {
        id: u32::try_from(id).expect("small machines"),
        memory_bytes: 4 << 30,
        hugepages: BTreeMap::new(),
        distances: BTreeMap::new(),
    };
    Topology {
        cpus,
        numa_nodes: (0..numa_nodes).map(node).collect(),
    }
}
