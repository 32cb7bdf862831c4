//! Spreads memory and hugepages over NUMA nodes: what is granted stays where it is as far as the new size allows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gantry_topology::NumaId;

use crate::book::Book;
use crate::fit::Ask;
use crate::reason::Reason;
use crate::{ContainerPlacement, ContainerRequest};

/// Shares `wanted` out over `order` (best NUMA node first), starting from `current`, and takes it off `free` (which
/// counts what is current as free). `None` if there is not enough; `free` is then as it was.
fn spread(
    wanted: u64,
    order: &[NumaId],
    current: &BTreeMap<NumaId, u64>,
    free: &mut BTreeMap<NumaId, u64>,
) -> Option<BTreeMap<NumaId, u64>> {
    let mut left = wanted;
    let mut granted = BTreeMap::new();
    let room: BTreeMap<NumaId, u64> = order
        .iter()
        .map(|n| (*n, free.get(n).copied().unwrap_or(0)))
        .collect();
    for numa in order {
        let kept = current.get(numa).copied().unwrap_or(0).min(left).min(room[numa]);
        left -= kept;
        granted.insert(*numa, kept);
    }
    for numa in order {
        let added = left.min(room[numa] - granted[numa]);
        left -= added;
        *granted.entry(*numa).or_default() += added;
    }
    if left > 0 {
        return None;
    }
    granted.retain(|_, bytes| *bytes > 0);
    for (numa, bytes) in &granted {
        *free.entry(*numa).or_default() -= bytes;
    }
    Some(granted)
}

/// The NUMA nodes to take memory from: first where the pod's CPUs are, then from where there is most.
pub(crate) fn memory_order(
    set: &BTreeSet<NumaId>,
    cpu_nodes: &BTreeSet<NumaId>,
    free_bytes: &BTreeMap<NumaId, u64>,
) -> Vec<NumaId> {
    let mut order: Vec<NumaId> = set.iter().copied().collect();
    order.sort_by_key(|n| {
        (
            !cpu_nodes.contains(n),
            Reverse(free_bytes.get(n).copied().unwrap_or(0)),
            *n,
        )
    });
    order
}

pub(crate) fn memory_within(
    ask: &Ask<'_>,
    order: &[NumaId],
    free: &mut BTreeMap<NumaId, u64>,
    containers: &mut [ContainerPlacement],
) -> Result<(), Reason> {
    let before = restrict(free, order);
    for (container, wanted) in containers.iter_mut().zip(&ask.request.containers) {
        let had = ask
            .current
            .and_then(|p| p.containers.iter().find(|c| c.name == wanted.name));
        let had = had.map(|c| c.memory_bytes.clone()).unwrap_or_default();
        container.memory_bytes =
            spread(wanted.memory_bytes, order, &had, free).ok_or_else(|| Reason::Memory {
                wanted_bytes: total(ask.request.containers.iter().map(|c| c.memory_bytes)),
                free_bytes: before.clone(),
            })?;
    }
    Ok(())
}

pub(crate) fn hugepages_within(
    book: &Book<'_>,
    ask: &Ask<'_>,
    order: &[NumaId],
    containers: &mut [ContainerPlacement],
) -> Result<(), Reason> {
    let wanted = |c: &ContainerRequest, size: &u64| c.hugepages.get(size).copied().unwrap_or(0);
    let sizes: BTreeSet<u64> = ask
        .request
        .containers
        .iter()
        .flat_map(|c| c.hugepages.keys().copied())
        .collect();
    for size in sizes {
        let mut free = book.free_hugepages(ask.uid, size);
        let before = restrict(&free, order);
        for (container, request) in containers.iter_mut().zip(&ask.request.containers) {
            let had = ask
                .current
                .and_then(|p| p.containers.iter().find(|c| c.name == request.name));
            let had = had.map(|c| pages_of(&c.hugepages, size)).unwrap_or_default();
            let granted =
                spread(wanted(request, &size), order, &had, &mut free).ok_or_else(|| Reason::Hugepages {
                    page_bytes: size,
                    wanted_bytes: total(ask.request.containers.iter().map(|c| wanted(c, &size))),
                    free_bytes: before.clone(),
                })?;
            for (numa, bytes) in granted {
                container.hugepages.entry(numa).or_default().insert(size, bytes);
            }
        }
    }
    Ok(())
}

fn pages_of(hugepages: &BTreeMap<NumaId, BTreeMap<u64, u64>>, size: u64) -> BTreeMap<NumaId, u64> {
    hugepages
        .iter()
        .filter_map(|(numa, pages)| Some((*numa, *pages.get(&size)?)))
        .collect()
}

fn restrict(free: &BTreeMap<NumaId, u64>, order: &[NumaId]) -> BTreeMap<NumaId, u64> {
    free.iter()
        .filter(|(numa, _)| order.contains(numa))
        .map(|(numa, bytes)| (*numa, *bytes))
        .collect()
}

fn total(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_there_and_adds_in_order() {
        let current = BTreeMap::from([(1, 4)]);
        let mut free = BTreeMap::from([(0, 10), (1, 6)]);
        assert_eq!(
            spread(5, &[0, 1], &current, &mut free),
            Some(BTreeMap::from([(0, 1), (1, 4)]))
        );
        assert_eq!(free, BTreeMap::from([(0, 9), (1, 2)]));
        assert_eq!(
            spread(3, &[0, 1], &current, &mut BTreeMap::from([(0, 0), (1, 4)])),
            Some(BTreeMap::from([(1, 3)]))
        );
        assert_eq!(spread(12, &[0, 1], &current, &mut free), None);
    }
}
