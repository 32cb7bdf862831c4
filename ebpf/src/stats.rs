//! Reading the counters.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gantry_ebpf_common::layout::{BackendStats, DRAINING, ServiceKey};
use gantry_ebpf_common::reason::{DropReason, Path};
use gantry_ebpf_common::share::Share;

use crate::datapath::{Datapath, PodEntry};
use crate::error::DatapathError;
use crate::maps::{self, failed};
use crate::services::{BackendState, Protocol};

/// Entry of map FLAGS: nobody has a share (`prog/src/maps.rs`).
const UNBOUND: u32 = 1;

/// Packets since the datapath was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Dropped ones, by reason.
    pub drops: BTreeMap<DropReason, u64>,
    /// The others, by the way they went.
    pub paths: BTreeMap<Path, u64>,
}

/// Names one backend of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// Service's virtual address.
    pub vip: Ipv4Addr,
    /// Service's port.
    pub port: u16,
    /// Service's protocol.
    pub protocol: Protocol,
    /// Backend's address.
    pub address: Ipv4Addr,
    /// Backend's port.
    pub backend_port: u16,
}

/// What one backend got since it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendStat {
    /// Which.
    pub key: BackendKey,
    /// Active or draining.
    pub state: BackendState,
    /// Flows given to it.
    pub new_flows: u64,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of those, link headers included.
    pub bytes: u64,
}

impl Datapath {
    /// Flows and fragments of each local sender beyond its share, so far; only of those that have any.
    pub fn beyond_shares(&self) -> Result<BTreeMap<Ipv4Addr, u32>, DatapathError> {
        let shares = maps::hash::<u32, Share>(&self.dir, maps::SHARES)?;
        let beyond: BTreeMap<u32, u32> = maps::entries(&shares, maps::SHARES)?
            .into_iter()
            .filter(|(_, share)| share.beyond > 0)
            .map(|(interface, share)| (interface, share.beyond))
            .collect();
        if beyond.is_empty() {
            return Ok(BTreeMap::new());
        }
        let pods = self.pods()?.into_iter();
        let of = |pod: PodEntry| Some((pod.ip, *beyond.get(&pod.ifindex)?));
        Ok(pods.filter_map(of).collect())
    }

    /// Gives nobody a share, so that a test can show what shares are for.
    pub fn without_shares(&self) -> Result<(), DatapathError> {
        let mut flags = maps::array::<u32>(&self.dir, maps::FLAGS)?;
        flags.set(UNBOUND, 1, 0).map_err(failed("write", maps::FLAGS))
    }

    /// Reads the packet counters.
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        let read = |name, len: usize| -> Result<Vec<u64>, DatapathError> {
            let map = maps::per_cpu_array::<u64>(&self.dir, name)?;
            let sum = |i: u32| {
                map.get(&i, 0)
                    .map(|v| v.iter().sum())
                    .map_err(failed("read", name))
            };
            (0..len as u32).map(sum).collect()
        };
        let drops = read(maps::DROPS, DropReason::ALL.len())?;
        let paths = read(maps::PATHS, Path::ALL.len())?;
        Ok(Counters {
            drops: DropReason::ALL.iter().copied().zip(drops).collect(),
            paths: Path::ALL.iter().copied().zip(paths).collect(),
        })
    }

    /// Reads what each backend of each service got.
    pub fn backend_stats(&self) -> Result<Vec<BackendStat>, DatapathError> {
        let keys = self.backend_keys()?;
        let map = maps::per_cpu_hash::<u32, BackendStats>(&self.dir, maps::BACKEND_STATS)?;
        let mut stats = Vec::new();
        for (id, (key, state)) in keys {
            let values = match map.get(&id, 0) {
                Ok(values) => values,
                Err(e) if maps::is_absent(&e) => continue,
                Err(e) => return Err(failed("read", maps::BACKEND_STATS)(e)),
            };
            let sum = |field: fn(&BackendStats) -> u64| values.iter().map(field).sum();
            let (new_flows, packets, bytes) = (sum(|s| s.new_flows), sum(|s| s.packets), sum(|s| s.bytes));
            stats.push(BackendStat {
                key,
                state,
                new_flows,
                packets,
                bytes,
            });
        }
        stats.sort_by_key(|s| s.key);
        Ok(stats)
    }

    /// Every backend by id.
    pub(crate) fn backend_keys(&self) -> Result<BTreeMap<u32, (BackendKey, BackendState)>, DatapathError> {
        let observed = self.observe_services()?;
        let services: BTreeMap<u32, ServiceKey> = observed.services.iter().map(|(k, i)| (*i, *k)).collect();
        let key = |(id, backend): (&u32, &gantry_ebpf_common::layout::Backend)| {
            let service = services.get(&backend.service)?;
            let key = BackendKey {
                vip: Ipv4Addr::from(service.vip),
                port: service.port,
                protocol: Protocol::from_number(service.protocol)?,
                address: Ipv4Addr::from(backend.ip),
                backend_port: backend.port,
            };
            let state = if backend.state == DRAINING {
                BackendState::Draining
            } else {
                BackendState::Active
            };
            Some((*id, (key, state)))
        };
        Ok(observed.backends.iter().filter_map(key).collect())
    }
}
