//! Pure: from what the kernel has and what is wanted to the writes that lead there.

use std::collections::{BTreeMap, BTreeSet};

use gantry_ebpf_common::MAX_SERVICES;
use gantry_ebpf_common::layout::{ACTIVE, Backend as KernelBackend, DRAINING, ServiceKey};

use crate::maglev::Entry;
use crate::services::{Backend, BackendState, Service};

/// What the kernel has.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Index of each service.
    pub services: BTreeMap<ServiceKey, u32>,
    /// Backends by id.
    pub backends: BTreeMap<u32, KernelBackend>,
    /// Lowest id never used; 0 counts as 1.
    pub next_backend: u32,
}

/// What to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Lowest id not used after these writes.
    pub next_backend: u32,
    /// Backends that are new or whose state or longest silence changed.
    pub backends: BTreeMap<u32, KernelBackend>,
    /// Those of them that are new.
    pub new_backends: BTreeSet<u32>,
    /// Index of every wanted service, and what its table is made from.
    pub tables: BTreeMap<ServiceKey, (u32, Vec<Entry>)>,
    /// Wanted services that the kernel does not have.
    pub new_services: BTreeMap<ServiceKey, u32>,
    /// Services to remove.
    pub gone_services: BTreeMap<ServiceKey, u32>,
    /// Backends to remove, after everything else.
    pub gone_backends: BTreeSet<u32>,
}

/// Plans the writes that lead to the services `wanted`, at most [`MAX_SERVICES`] of them.
pub fn plan(observed: &Observed, wanted: &BTreeMap<ServiceKey, Service>) -> Writes {
    let mut writes = Writes {
        next_backend: observed.next_backend.max(1),
        ..Writes::default()
    };
    let gone = observed
        .services
        .iter()
        .filter(|(key, _)| !wanted.contains_key(*key));
    writes.gone_services = gone.map(|(key, index)| (*key, *index)).collect();
    // An index freed by this very sync is not given out in it: a packet may still be on its way there. So there
    // are twice as many of them as services.
    let used: BTreeSet<u32> = observed.services.values().copied().collect();
    let mut free = (0..2 * MAX_SERVICES).filter(|i| !used.contains(i));
    let known: BTreeMap<(u32, u32, u16), u32> = observed
        .backends
        .iter()
        .map(|(id, b)| ((b.service, b.ip, b.port), *id))
        .collect();
    let mut kept = BTreeSet::new();
    for (key, service) in wanted {
        let present = observed.services.get(key).copied();
        let Some(index) = present.or_else(|| free.next()) else {
            break;
        };
        if present.is_none() {
            writes.new_services.insert(*key, index);
        }
        let id_of = |b: &KernelBackend| {
            let id = known.get(&(index, b.ip, b.port)).filter(|_| present.is_some())?;
            Some((*id, observed.backends[id]))
        };
        let entries = plan_backends(service, index, id_of, &mut writes);
        kept.extend(entries.iter().map(|e| e.id));
        writes.tables.insert(*key, (index, entries));
    }
    let gone = observed.backends.keys().filter(|id| !kept.contains(*id));
    writes.gone_backends = gone.copied().collect();
    writes
}

/// Gives each backend of a service its id: that which it has (`id_of`), or a new one.
fn plan_backends(
    service: &Service,
    index: u32,
    id_of: impl Fn(&KernelBackend) -> Option<(u32, KernelBackend)>,
    writes: &mut Writes,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for backend in &service.backends {
        let value = kernel_backend(backend, index);
        let id = match id_of(&value) {
            Some((id, present)) => {
                if present != value {
                    writes.backends.insert(id, value);
                }
                id
            }
            None => {
                let id = writes.next_backend;
                writes.next_backend += 1;
                writes.backends.insert(id, value);
                writes.new_backends.insert(id);
                id
            }
        };
        let weight = match backend.state {
            BackendState::Active => backend.weight,
            BackendState::Draining => 0,
        };
        entries.push(Entry {
            id,
            identity: (value.ip, value.port),
            weight,
        });
    }
    entries
}

fn kernel_backend(backend: &Backend, service: u32) -> KernelBackend {
    let state = match backend.state {
        BackendState::Active => ACTIVE,
        BackendState::Draining => DRAINING,
    };
    KernelBackend {
        ip: u32::from(backend.address),
        service,
        port: backend.port,
        state,
        pad: 0,
        udp_idle_s: backend.udp_idle_s,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
