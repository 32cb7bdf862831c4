//! Services and making the kernel's match them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gantry_ebpf_common::layout::{
    ACTIVE, Backend as KernelBackend, BackendStats, DRAINING, SCTP, Service as KernelService, ServiceKey,
    TCP, Table, UDP,
};
use gantry_ebpf_common::{MAX_BACKENDS, MAX_SERVICES};

use crate::admit::{LeftOut, Limits, admit};
use crate::datapath::Datapath;
use crate::error::DatapathError;
use crate::lock::Lock;
use crate::maglev;
use crate::maps::{self, failed};
use crate::plan::{Observed, Writes, plan};

const LIMITS: Limits = Limits {
    services: MAX_SERVICES as usize,
    backends: MAX_BACKENDS as usize,
};

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260. Backends must use the service's port.
    Sctp,
}

impl Protocol {
    /// IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
            Protocol::Sctp => SCTP,
        }
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Protocol> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|p| p.number() == number)
    }
}

/// Does a backend take new flows?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// It does.
    Active,
    /// It keeps the flows it has and gets no new ones.
    Draining,
}

/// One receiver of a service's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Pod address.
    pub address: Ipv4Addr,
    /// Port in the pod.
    pub port: u16,
    /// Share of the new flows relative to the other active backends; 0 gets none.
    pub weight: u32,
    /// Active or draining.
    pub state: BackendState,
    /// A UDP flow that was silent both ways for longer, in seconds, is a new flow.
    pub udp_idle_s: u32,
}

/// A virtual address and port, and who stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Virtual address.
    pub vip: Ipv4Addr,
    /// Port on it.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// In any order.
    pub backends: Vec<Backend>,
}

impl Service {
    pub(crate) fn key(&self) -> ServiceKey {
        ServiceKey {
            vip: u32::from(self.vip),
            port: self.port,
            protocol: self.protocol.number(),
            pad: 0,
        }
    }
}

/// How much a sync changed; all zero when the kernel had it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Services that are new.
    pub services_added: usize,
    /// Services that are gone.
    pub services_removed: usize,
    /// Backends that are new.
    pub backends_added: usize,
    /// Backends whose state or longest silence changed.
    pub backends_changed: usize,
    /// Backends that are gone; their flows pick another one with their next packet.
    pub backends_removed: usize,
    /// Maglev tables that were written.
    pub tables_written: usize,
    /// What is not in force, in the order of the list.
    pub left_out: Vec<LeftOut>,
}

impl Datapath {
    /// Makes the kernel's services `desired`; what cannot be in force is left out and named, and does not hold up the
    /// rest. Established flows stay on their backends, draining
    /// ones included; only flows of backends that are gone move. Safe to repeat after a failure.
    pub fn sync_services(&mut self, desired: &[Service]) -> Result<SyncReport, DatapathError> {
        let _lock = Lock::take(&self.dir)?;
        let observed = self.observe_services()?;
        let has = |key: &ServiceKey| observed.services.contains_key(key);
        let (wanted, left_out) = admit(has, desired, LIMITS);
        let writes = plan(&observed, &wanted);
        let report = self.apply(&observed, writes)?;
        Ok(SyncReport { left_out, ..report })
    }

    pub(crate) fn observe_services(&self) -> Result<Observed, DatapathError> {
        let mut observed = Observed {
            next_backend: self.config()?.next_backend,
            ..Observed::default()
        };
        for item in maps::hash::<ServiceKey, KernelService>(&self.dir, maps::SERVICES)?.iter() {
            let (key, service) = item.map_err(failed("read", maps::SERVICES))?;
            observed.services.insert(key, service.index);
        }
        for item in maps::hash::<u32, KernelBackend>(&self.dir, maps::BACKENDS)?.iter() {
            let (id, backend) = item.map_err(failed("read", maps::BACKENDS))?;
            observed.backends.insert(id, backend);
        }
        Ok(observed)
    }

    /// Active backends before tables before services, then what drains; removals the other way round. So a slot
    /// names a backend that takes new flows at any time.
    fn apply(&mut self, observed: &Observed, writes: Writes) -> Result<SyncReport, DatapathError> {
        self.announce(&writes)?;
        self.start_stats(&writes)?;
        self.write_backends(&writes, ACTIVE)?;
        let tables_written = self.write_tables(&writes)?;
        let mut services = maps::hash::<ServiceKey, KernelService>(&self.dir, maps::SERVICES)?;
        for (key, index) in &writes.new_services {
            let value = KernelService { index: *index };
            services
                .insert(key, value, 0)
                .map_err(failed("write", maps::SERVICES))?;
        }
        self.write_backends(&writes, DRAINING)?;
        let mut tables = maps::hash::<u32, Table>(&self.dir, maps::TABLES)?;
        for (key, index) in &writes.gone_services {
            maps::forget(&mut services, maps::SERVICES, key)?;
            maps::forget(&mut tables, maps::TABLES, index)?;
        }
        let mut backends = maps::hash::<u32, KernelBackend>(&self.dir, maps::BACKENDS)?;
        let mut stats = maps::per_cpu_hash::<u32, BackendStats>(&self.dir, maps::BACKEND_STATS)?;
        for id in &writes.gone_backends {
            maps::forget(&mut backends, maps::BACKENDS, id)?;
            match stats.remove(id) {
                Err(e) if !maps::is_absent(&e) => return Err(failed("write", maps::BACKEND_STATS)(e)),
                _ => {}
            }
        }
        self.forget_flows_of_backends(&gone_backends(observed, &writes))?;
        Ok(SyncReport {
            services_added: writes.new_services.len(),
            services_removed: writes.gone_services.len(),
            backends_added: writes.new_backends.len(),
            backends_changed: writes.backends.len() - writes.new_backends.len(),
            backends_removed: writes.gone_backends.len(),
            tables_written,
            ..SyncReport::default()
        })
    }

    /// Notes down, before anything else is written, which backend ids are used up and that tables change:
    /// what another handle remembers of them is then void, as is ours if another one wrote.
    fn announce(&mut self, writes: &Writes) -> Result<(), DatapathError> {
        let mut config = self.config()?;
        if config.tables != self.tables_version {
            self.tables.clear();
        }
        let same = writes
            .tables
            .iter()
            .all(|(key, table)| self.tables.get(key) == Some(table));
        if !same {
            config.tables = config.tables.wrapping_add(1);
        }
        self.tables_version = config.tables;
        if same && config.next_backend == writes.next_backend {
            return Ok(());
        }
        config.next_backend = writes.next_backend;
        self.set_config(&config)
    }

    /// New backends start to count at zero.
    fn start_stats(&self, writes: &Writes) -> Result<(), DatapathError> {
        let mut stats = maps::per_cpu_hash::<u32, BackendStats>(&self.dir, maps::BACKEND_STATS)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| DatapathError::File {
            operation: "count the CPUs in",
            path: "/sys/devices/system/cpu/possible".into(),
            source,
        })?;
        for id in &writes.new_backends {
            let zero = aya::maps::PerCpuValues::try_from(vec![BackendStats::default(); cpus])
                .expect("there is one value for each possible CPU");
            stats
                .insert(*id, zero, 0)
                .map_err(failed("write", maps::BACKEND_STATS))?;
        }
        Ok(())
    }

    fn write_backends(&self, writes: &Writes, state: u8) -> Result<(), DatapathError> {
        let mut backends = maps::hash::<u32, KernelBackend>(&self.dir, maps::BACKENDS)?;
        for (id, backend) in writes.backends.iter().filter(|(_, b)| b.state == state) {
            backends
                .insert(*id, *backend, 0)
                .map_err(failed("write", maps::BACKENDS))?;
        }
        Ok(())
    }

    /// Writes the tables that differ from those in the kernel, each as a whole.
    fn write_tables(&mut self, writes: &Writes) -> Result<usize, DatapathError> {
        let mut map = maps::hash::<u32, Table>(&self.dir, maps::TABLES)?;
        let mut written = 0;
        let known = std::mem::take(&mut self.tables);
        for (key, wanted) in &writes.tables {
            let (index, entries) = wanted;
            if known.get(key) == Some(wanted) {
                continue;
            }
            let table = maglev::table(entries);
            match map.get(index, 0) {
                Ok(present) if present == table => continue,
                Err(e) if !maps::is_absent(&e) => return Err(failed("read", maps::TABLES)(e)),
                _ => map
                    .insert(*index, table, 0)
                    .map_err(failed("write", maps::TABLES))?,
            }
            written += 1;
        }
        self.tables = writes.tables.clone().into_iter().collect();
        Ok(written)
    }
}

/// Removed backends by id, with the service that each belonged to.
fn gone_backends(observed: &Observed, writes: &Writes) -> BTreeMap<u32, (KernelBackend, Option<ServiceKey>)> {
    let service = |index| {
        observed
            .services
            .iter()
            .find(|(_, i)| **i == index)
            .map(|(key, _)| *key)
    };
    let gone = observed
        .backends
        .iter()
        .filter(|(id, _)| writes.gone_backends.contains(*id));
    gone.map(|(id, backend)| (*id, (*backend, service(backend.service))))
        .collect()
}
