//! The flow tables: forgetting flows whose ends are gone.
//!
//! Addresses come back with other pods behind them. What an old flow says about them must not survive: it
//! would make a new pod's own packets look like replies of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gantry_ebpf_common::behind::tag;
use gantry_ebpf_common::layout::{ACTIVE, Backend, Flow, FlowKey, Reverse, ServiceKey};

use crate::claims::Subnet;
use crate::datapath::Datapath;
use crate::error::DatapathError;
use crate::maps;
use crate::tell::{self, Lost};

impl Datapath {
    /// Forgets the flows of a pod that is gone, as client and as backend, and tells its clients.
    pub(crate) fn forget_flows_of_pod(&self, ip: Ipv4Addr) -> Result<(), DatapathError> {
        let ip = u32::from(ip);
        let gone = self.backends()?.into_iter().filter(|(_, b)| b.ip == ip).collect();
        let lost = self.forget_flows(
            |key, flow| key.src == ip || key.behind == tag(ip) || gone_has(&gone, flow),
            |key, reply| key.src == ip || key.dst == ip || reply.client == ip,
        )?;
        let clients = lost.into_iter().filter(|(key, _)| key.src != ip);
        self.tell_clients(clients, &gone)
    }

    /// Forgets the flows of backends that were removed, `gone` by id and service, and tells their clients. The same
    /// pod may go on serving under another service.
    pub(crate) fn forget_flows_of_backends(
        &self,
        gone: &BTreeMap<u32, (Backend, Option<ServiceKey>)>,
    ) -> Result<(), DatapathError> {
        if gone.is_empty() {
            return Ok(());
        }
        let end = |(backend, service): &(Backend, Option<ServiceKey>)| {
            service.map(|service| (backend.ip, backend.port, service))
        };
        let ends: BTreeSet<(u32, u16, ServiceKey)> = gone.values().filter_map(end).collect();
        let replied = |key: &FlowKey, reply: &Reverse| {
            let service = ServiceKey {
                vip: reply.vip,
                port: reply.vip_port,
                protocol: key.protocol,
                pad: 0,
            };
            ends.contains(&(key.src, key.sport, service))
        };
        let gone = gone.iter().map(|(id, (backend, _))| (*id, *backend)).collect();
        let lost = self.forget_flows(|_, flow| gone_has(&gone, flow), replied)?;
        self.tell_clients(lost.into_iter(), &gone)
    }

    /// Forgets the flows of clients in these subnets, of which each was behind the pod with that own address.
    pub(crate) fn forget_flows_behind(&self, gone: &[(Subnet, u32)]) -> Result<(), DatapathError> {
        if gone.is_empty() {
            return Ok(());
        }
        let realms = self.realms()?;
        let was = |key: &FlowKey, _: &Flow| {
            let mut gone = gone.iter();
            gone.any(|(subnet, owner)| key.behind == tag(*owner) && subnet.holds(key.src))
        };
        // Whoever replies to one of these is of its realm; the host replies to its owner.
        let replied = |key: &FlowKey, reply: &Reverse| {
            let mut gone = gone.iter().filter(|(subnet, _)| subnet.holds(reply.client));
            gone.any(|(subnet, owner)| key.dst == *owner || realms.get(&key.src) == Some(&subnet.realm))
        };
        self.forget_flows(was, replied).map(drop)
    }

    /// Tells the clients of flows that are forgotten, which may say nothing themselves for long. Not those behind pods: the host
    /// knows no way to them. They learn it with the next packet that they send.
    fn tell_clients(
        &self,
        flows: impl Iterator<Item = (FlowKey, Flow)>,
        gone: &BTreeMap<u32, Backend>,
    ) -> Result<(), DatapathError> {
        let served: BTreeSet<u32> = self
            .backends()?
            .into_iter()
            .filter(|(id, b)| b.state == ACTIVE && !gone.contains_key(id))
            .map(|(_, b)| b.service)
            .collect();
        let known = flows.filter(|(key, _)| key.behind == [0; 3]);
        let lost = known.filter_map(|(key, flow)| {
            let backend = *gone.get(&flow.backend)?;
            let served = served.contains(&backend.service);
            Some(Lost {
                key,
                flow,
                backend,
                served,
            })
        });
        tell::clients(lost);
        Ok(())
    }

    fn backends(&self) -> Result<Vec<(u32, Backend)>, DatapathError> {
        let map = maps::hash::<u32, Backend>(&self.dir, maps::BACKENDS)?;
        maps::entries(&map, maps::BACKENDS)
    }

    /// Those between clients and services that were forgotten.
    fn forget_flows(
        &self,
        forward: impl Fn(&FlowKey, &Flow) -> bool,
        reverse: impl Fn(&FlowKey, &Reverse) -> bool,
    ) -> Result<Vec<(FlowKey, Flow)>, DatapathError> {
        let mut lost = Vec::new();
        for name in [maps::FLOWS, maps::FLOWS_BEYOND] {
            let mut flows = maps::hash::<FlowKey, Flow>(&self.dir, name)?;
            let mut found = maps::entries(&flows, name)?;
            found.retain(|(key, flow)| forward(key, flow));
            for (key, _) in &found {
                maps::forget(&mut flows, name, key)?;
            }
            lost.append(&mut found);
        }
        for name in [maps::REVERSE, maps::REVERSE_BEYOND] {
            let mut replies = maps::hash::<FlowKey, Reverse>(&self.dir, name)?;
            let all = maps::entries(&replies, name)?;
            for (key, _) in all.iter().filter(|(k, r)| reverse(k, r)) {
                maps::forget(&mut replies, name, key)?;
            }
        }
        Ok(lost)
    }
}

fn gone_has(gone: &BTreeMap<u32, Backend>, flow: &Flow) -> bool {
    gone.contains_key(&flow.backend)
}
