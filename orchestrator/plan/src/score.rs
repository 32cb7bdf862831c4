//! Which of the nodes that fit is best.

use std::cmp::Reverse;

use crate::board::Board;
use crate::fit::Fit;
use crate::{CpuRequest, PodRequest};

/// Less is better: pods to keep away from, NUMA nodes used, then packing (exclusive) or room (shared), then a hash of
/// seed and node name.
pub(crate) type Rank = (usize, usize, usize, Reverse<u64>, Reverse<u64>, u64);

/// Ranks a node for a pod that fits there.
pub(crate) fn rank(board: &Board<'_>, node: &str, request: &PodRequest, fit: &Fit, seed: u64) -> Rank {
    let near = request
        .anti_affinity
        .iter()
        .map(|rule| board.with_key(node, &rule.key).pods)
        .sum();
    let exclusive = request
        .containers
        .iter()
        .any(|c| matches!(c.cpu, CpuRequest::Exclusive { .. }));
    let (packing, shared, memory) = if exclusive {
        (fit.cpus_left, 0, 0)
    } else {
        let free_milli = board.books.get(node).map_or(0, |book| book.free_shared_milli());
        (0, free_milli, fit.memory_left_bytes)
    };
    (
        near,
        fit.numa_nodes,
        packing,
        Reverse(shared),
        Reverse(memory),
        hash(seed, node),
    )
}

/// FNV-1a, 64 bits, over the seed and the name.
fn hash(seed: u64, name: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
