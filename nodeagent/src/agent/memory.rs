//! What pods may have of the node: memory, and what the kernel counts for everybody together.

use gantry_topology::Topology;

use crate::chain::chain;
use crate::guard;
use crate::host::cgroup::Cgroups;
use crate::host::sysctl;

/// What is left for pods in bytes, beside hugepages, which are counted apart, and what is kept for the host.
pub(super) fn allocatable(topology: &Topology, reserved_bytes: u64) -> u64 {
    let plain = topology.numa_nodes.iter().map(|node| node.plain_memory_bytes());
    plain.fold(0, u64::saturating_add).saturating_sub(reserved_bytes)
}

/// Holds all pods together to what is left for them, so that one without a limit takes nothing from agent, orchestrator and host.
/// A node on which that cannot be done runs pods as before, and says so.
pub(super) fn bound_pods(cgroups: &Cgroups, allocatable_bytes: u64) {
    if guard::off("pods-memory") {
        return;
    }
    match cgroups.bound_pods(allocatable_bytes.max(1)) {
        Ok(limit_bytes) if limit_bytes > allocatable_bytes => tracing::warn!(
            allocatable_bytes,
            limit_bytes,
            "pods have more memory than is left for them beside what is reserved for the host; they keep it, and the limit \
             on all of them follows when the agent starts with less in use"
        ),
        Ok(limit_bytes) => tracing::info!(limit_bytes, "all pods together have a limit on memory"),
        Err(error) => tracing::error!(
            error = chain(&error),
            "all pods together have no limit on memory: one without a limit of its own can take all of the node's"
        ),
    }
}

/// Raises the kernel's bounds on what is everybody's, so that a pod's limits are met first, and leaves a part of the processes to the
/// host. Where that cannot be done pods run as before, and it is said.
pub(super) fn share_node(cgroups: &Cgroups, memory_bytes: u64) {
    let left = sysctl::raise(memory_bytes);
    if !left.is_empty() {
        tracing::warn!(
            wanted = left.join(", "),
            "cannot raise bounds of this node's kernel, and one pod can use them up for all; set them on the host (sysctl -w)"
        );
    }
    if let Err(error) = cgroups.bound_processes() {
        tracing::error!(
            error = chain(&error),
            "all pods together have no limit on processes: they can take all of the node's"
        );
    }
}

#[cfg(test)]
mod tests {
    use gantry_topology::NumaNode;

    use super::*;

    #[test]
    fn pods_have_what_is_neither_huge_nor_reserved() {
        let node = |id, memory_bytes, pages| NumaNode {
            id,
            memory_bytes,
            hugepages: [(2 << 20, pages)].into(),
            distances: Default::default(),
        };
        let topology = Topology {
            cpus: Vec::new(),
            numa_nodes: vec![node(0, 4 << 30, 512), node(1, 2 << 30, 0)],
        };
        assert_eq!(topology.memory_bytes(), 6 << 30);
        assert_eq!(allocatable(&topology, 512 << 20), 9 << 29);
        assert_eq!(allocatable(&topology, 7 << 30), 0);
    }
}
