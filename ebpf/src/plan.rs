//! Pure: from what the kernel has and what is wanted to the writes that lead there.

use std::collections::{BTreeMap, BTreeSet};

use gantry_ebpf_common::layout::{ACTIVE, Backend as KernelBackend, DRAINING, ServiceKey};
use gantry_ebpf_common::{MAGLEV_SLOTS, MAX_BACKENDS, MAX_SERVICES};

use crate::error::DatapathError;
use crate::maglev::{self, Entry};
use crate::services::{Backend, BackendState, Protocol, Service};

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
    /// Index and wanted table of every wanted service.
    pub tables: BTreeMap<ServiceKey, (u32, Vec<u32>)>,
    /// Wanted services that the kernel does not have.
    pub new_services: BTreeMap<ServiceKey, u32>,
    /// Services to remove.
    pub gone_services: BTreeSet<ServiceKey>,
    /// Backends to remove, after everything else.
    pub gone_backends: BTreeSet<u32>,
}

/// Plans the writes.
pub fn plan(observed: &Observed, desired: &[Service]) -> Result<Writes, DatapathError> {
    validate(desired)?;
    let mut writes = Writes {
        next_backend: observed.next_backend.max(1),
        ..Writes::default()
    };
    let wanted: BTreeMap<ServiceKey, &Service> = desired.iter().map(|s| (s.key(), s)).collect();
    let known = |key: &&ServiceKey| !wanted.contains_key(*key);
    writes.gone_services = observed.services.keys().filter(known).copied().collect();
    // An index freed by this very sync is not given out in it: a packet may still be on its way there.
    let used: BTreeSet<u32> = observed.services.values().copied().collect();
    let mut free = (0..MAX_SERVICES).filter(|i| !used.contains(i));
    let mut kept = BTreeSet::new();
    for (key, service) in &wanted {
        let index = match observed.services.get(key) {
            Some(index) => *index,
            None => {
                let full = DatapathError::Full {
                    what: "services",
                    wanted: used.len() + wanted.len(),
                    limit: MAX_SERVICES,
                };
                let index = free.next().ok_or(full)?;
                writes.new_services.insert(*key, index);
                index
            }
        };
        let owned = if writes.new_services.contains_key(key) {
            None
        } else {
            Some(index)
        };
        let entries = plan_backends(observed, service, index, owned, &mut writes, &mut kept);
        writes
            .tables
            .insert(*key, (index, maglev::table(&entries, MAGLEV_SLOTS)));
    }
    writes.gone_backends = observed
        .backends
        .keys()
        .filter(|id| !kept.contains(*id))
        .copied()
        .collect();
    let total = observed.backends.len() + writes.new_backends.len();
    if total > MAX_BACKENDS as usize {
        return Err(DatapathError::Full {
            what: "backends",
            wanted: total,
            limit: MAX_BACKENDS,
        });
    }
    Ok(writes)
}

/// Gives each backend of a service its id (`owned`: the index under which it may have one already).
fn plan_backends(
    observed: &Observed,
    service: &Service,
    index: u32,
    owned: Option<u32>,
    writes: &mut Writes,
    kept: &mut BTreeSet<u32>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for backend in &service.backends {
        let value = kernel_backend(backend, index);
        let same = |b: &KernelBackend| Some(b.service) == owned && b.ip == value.ip && b.port == value.port;
        let id = match observed.backends.iter().find(|(_, b)| same(b)) {
            Some((id, present)) => {
                if *present != value {
                    writes.backends.insert(*id, value);
                }
                *id
            }
            None => {
                let id = writes.next_backend;
                writes.next_backend += 1;
                writes.backends.insert(id, value);
                writes.new_backends.insert(id);
                id
            }
        };
        kept.insert(id);
        let weight = if backend.state == BackendState::Active {
            backend.weight
        } else {
            0
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

fn validate(desired: &[Service]) -> Result<(), DatapathError> {
    let mut keys = BTreeSet::new();
    for service in desired {
        let (vip, port) = (service.vip, service.port);
        if !keys.insert(service.key()) {
            let protocol = service.protocol.name();
            return Err(DatapathError::DuplicateService { vip, port, protocol });
        }
        let mut seen = BTreeSet::new();
        for backend in &service.backends {
            if !seen.insert((backend.address, backend.port)) {
                return Err(DatapathError::DuplicateBackend {
                    vip,
                    port,
                    backend: backend.address,
                });
            }
            if service.protocol == Protocol::Sctp && backend.port != port {
                return Err(DatapathError::SctpPort {
                    vip,
                    port,
                    backend_port: backend.port,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
