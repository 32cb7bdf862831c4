//! Pods that have a place and now want another size.

use std::collections::BTreeMap;

use crate::board::Board;
use crate::explain;
use crate::fit::{Ask, fit};
use crate::reason::Reason;
use crate::{ContainerPlacement, ContainerRequest, CpuRequest, Explanation, Placement, PodRequest, PodUid};

/// Gives every pod that wants another size that size, or leaves it as it is and says why. Those that give something
/// back go first; it is repeated as long as something changes.
pub(crate) fn resize_all(board: &mut Board<'_>, order: &[&PodUid]) -> BTreeMap<PodUid, Explanation> {
    loop {
        let mut pending = BTreeMap::new();
        let mut changed = false;
        for givers in [true, false] {
            for uid in order {
                let Some((request, placement)) = resized(board, uid) else {
                    continue;
                };
                if gives_back(request, &placement) != givers {
                    continue;
                }
                match resize(board, uid, request, &placement) {
                    Ok(next) => {
                        changed = true;
                        board.put(uid, next);
                    }
                    Err(reason) => {
                        pending.insert(
                            (*uid).clone(),
                            explain::held_back(request, &placement.node, &reason),
                        );
                    }
                }
            }
        }
        if !changed {
            mark(board, order, &pending);
            return pending;
        }
    }
}

/// The pod's request and place, if they differ.
fn resized<'a>(board: &Board<'a>, uid: &str) -> Option<(&'a PodRequest, Placement)> {
    let snapshot = board.snapshot;
    let request = snapshot.pods.get(uid)?;
    let placement = board.placement(uid)?;
    (!grants(placement, &request.containers)).then(|| (request, placement.clone()))
}

fn resize(
    board: &Board<'_>,
    uid: &str,
    request: &PodRequest,
    placement: &Placement,
) -> Result<Placement, Reason> {
    let book = board.books.get(&placement.node).ok_or(Reason::NodeGone)?;
    let ask = Ask {
        uid,
        request,
        node: &placement.node,
        current: Some(placement),
    };
    fit(book, &ask).map(|found| found.placement)
}

/// Sets `resize_pending` on exactly those that wait.
fn mark(board: &mut Board<'_>, order: &[&PodUid], pending: &BTreeMap<PodUid, Explanation>) {
    for uid in order {
        let Some(placement) = board.placement(uid) else {
            continue;
        };
        let waits = pending.contains_key(*uid);
        if placement.resize_pending != waits {
            let marked = Placement {
                resize_pending: waits,
                ..placement.clone()
            };
            board.put(uid, marked);
        }
    }
}

/// Whether a placement grants exactly what is asked for.
pub fn grants(placement: &Placement, asked: &[ContainerRequest]) -> bool {
    asked.len() == placement.containers.len()
        && asked
            .iter()
            .zip(&placement.containers)
            .all(|(wanted, granted)| same(wanted, granted))
}

fn same(wanted: &ContainerRequest, granted: &ContainerPlacement) -> bool {
    let mut hugepages: BTreeMap<u64, u64> = BTreeMap::new();
    for (size, bytes) in granted.hugepages.values().flatten() {
        *hugepages.entry(*size).or_default() += bytes;
    }
    let wanted_pages = wanted.hugepages.iter().filter(|(_, bytes)| **bytes > 0);
    wanted.name == granted.name
        && wanted.cpu == granted.cpu
        && wanted.storage_bytes == granted.storage_bytes
        && wanted.memory_bytes == granted.memory_bytes.values().sum::<u64>()
        && wanted_pages.eq(hugepages.iter())
}

/// Less memory, or fewer exclusive CPUs and no more memory.
fn gives_back(request: &PodRequest, placement: &Placement) -> bool {
    let cpus = |cpu: CpuRequest| match cpu {
        CpuRequest::Exclusive { count, .. } => u64::from(count),
        CpuRequest::Shared { .. } => 0,
    };
    let wanted_bytes = request
        .containers
        .iter()
        .fold(0_u64, |sum, c| sum.saturating_add(c.memory_bytes));
    let granted_bytes: u64 = placement
        .containers
        .iter()
        .flat_map(|c| c.memory_bytes.values())
        .sum();
    let wanted_cpus: u64 = request.containers.iter().map(|c| cpus(c.cpu)).sum();
    let granted_cpus: u64 = placement.containers.iter().map(|c| cpus(c.cpu)).sum();
    wanted_bytes < granted_bytes || (wanted_bytes == granted_bytes && wanted_cpus < granted_cpus)
}
