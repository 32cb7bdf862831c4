//! The flow tables: forgetting flows whose ends are gone.
//!
//! Addresses come back with other pods behind them. What an old flow says about them must not survive: it
//! would make a new pod's own packets look like replies of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gantry_ebpf_common::layout::{Backend, Flow, FlowKey, Reverse, ServiceKey};

use crate::datapath::Datapath;
use crate::error::DatapathError;
use crate::maps;

impl Datapath {
    /// Forgets the flows of a pod that is gone, as client and as backend.
    pub(crate) fn forget_flows_of_pod(&self, ip: Ipv4Addr) -> Result<(), DatapathError> {
        let ip = u32::from(ip);
        self.forget_flows(
            |key, _| key.src == ip,
            |key, reply| key.src == ip || key.dst == ip || reply.client == ip,
        )
    }

    /// Forgets the flows of backends that were removed, `gone` by id and service. The same pod may go on
    /// serving under another service.
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
        self.forget_flows(|_, flow| gone.contains_key(&flow.backend), replied)
    }

    fn forget_flows(
        &self,
        forward: impl Fn(&FlowKey, &Flow) -> bool,
        reverse: impl Fn(&FlowKey, &Reverse) -> bool,
    ) -> Result<(), DatapathError> {
        let mut flows = maps::hash::<FlowKey, Flow>(&self.dir, maps::FLOWS)?;
        for (key, _) in maps::entries(&flows, maps::FLOWS)?
            .iter()
            .filter(|(k, f)| forward(k, f))
        {
            maps::forget(&mut flows, maps::FLOWS, key)?;
        }
        let mut replies = maps::hash::<FlowKey, Reverse>(&self.dir, maps::REVERSE)?;
        for (key, _) in maps::entries(&replies, maps::REVERSE)?
            .iter()
            .filter(|(k, r)| reverse(k, r))
        {
            maps::forget(&mut replies, maps::REVERSE, key)?;
        }
        Ok(())
    }
}
