//! A pod's exclusive CPUs on one node, container by container.

use std::collections::{BTreeMap, BTreeSet};

use gantry_topology::{CpuSet, CpuWish, Numa, NumaId, Smt, allocate};

use crate::book::Book;
use crate::fit::Ask;
use crate::reason::Reason;
use crate::{ContainerPlacement, ContainerRequest, CpuRequest, NumaPolicy, SmtPolicy};

/// Every container's exclusive CPUs. `free` loses what they take.
pub(crate) fn cpus_within(
    book: &Book<'_>,
    ask: &Ask<'_>,
    set: &BTreeSet<NumaId>,
    free: &mut CpuSet,
) -> Result<Vec<ContainerPlacement>, Reason> {
    let had = |wanted: &ContainerRequest| -> CpuSet {
        let same = ask
            .current
            .and_then(|p| p.containers.iter().find(|c| c.name == wanted.name));
        same.map(|c| c.cpus.clone()).unwrap_or_default()
    };
    let mut placed = Vec::with_capacity(ask.request.containers.len());
    for (index, wanted) in ask.request.containers.iter().enumerate() {
        let mut cpus = CpuSet::new();
        if let CpuRequest::Exclusive { count, smt } = wanted.cpu {
            let current = had(wanted);
            for later in &ask.request.containers[index + 1..] {
                if let CpuRequest::Exclusive { smt, .. } = later.cpu {
                    *free = free.difference(&footprint(book, &had(later), smt));
                }
            }
            let (numa, whole_cores) = (numa_of_policy(ask.request.numa), smt == SmtPolicy::Full);
            let smt_wish = if whole_cores { Smt::Full } else { Smt::Any };
            let wish = CpuWish {
                count,
                smt: smt_wish,
                numa,
                allowed: set,
                current: &current,
            };
            cpus = allocate(&book.state.topology, free, &wish).map_err(|misfit| Reason::Cpus {
                wanted: count,
                whole_cores,
                misfit,
            })?;
            // What a later container has was set aside only for this choice.
            *free = book.free_cpus(ask.uid).difference(&used(book, &placed));
            *free = free.difference(&footprint(book, &cpus, smt));
        }
        placed.push(ContainerPlacement {
            name: wanted.name.clone(),
            cpus,
            cpu: wanted.cpu,
            memory_bytes: BTreeMap::new(),
            hugepages: BTreeMap::new(),
            storage_bytes: wanted.storage_bytes,
        });
    }
    Ok(placed)
}

fn numa_of_policy(policy: NumaPolicy) -> Numa {
    match policy {
        NumaPolicy::Single => Numa::Single,
        NumaPolicy::Prefer => Numa::Prefer,
        NumaPolicy::Any => Numa::Any,
    }
}

fn footprint(book: &Book<'_>, cpus: &CpuSet, smt: SmtPolicy) -> CpuSet {
    if smt == SmtPolicy::Full {
        book.with_siblings(cpus)
    } else {
        cpus.clone()
    }
}

fn used(book: &Book<'_>, placed: &[ContainerPlacement]) -> CpuSet {
    let of = |c: &ContainerPlacement| match c.cpu {
        CpuRequest::Exclusive { smt, .. } => footprint(book, &c.cpus, smt),
        CpuRequest::Shared { .. } => CpuSet::new(),
    };
    placed.iter().fold(CpuSet::new(), |all, c| all.union(&of(c)))
}
