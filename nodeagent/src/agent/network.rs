//! Host device, services and subnets, as the configuration wants them; and the counters.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use gantry_ebpf::{
    Backend, BackendState, Datapath, LeftOut, PodSubnets, Protocol, Service, SubnetLeftOut, SubnetWhy, Why,
};
use gantry_nodeagent_api::{
    MAX_SERVICE_BACKENDS, MAX_SERVICE_PORTS, NetworkCounters, NodeNetwork, PodUid, ServiceConfig,
    ServiceFault, ServiceFaultReason,
};

use super::Failure;
use super::cni::Cni;
use crate::core::{Behind, NetworkFaults};
use crate::guard;

/// The node's side of the network. Calls block.
pub(super) struct Network {
    cni: Cni,
    state: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The network that the host's side was made for.
    host: Option<NodeNetwork>,
    /// Kept, because it remembers the tables it has written.
    datapath: Option<Datapath>,
}

impl Network {
    pub(super) fn new(cni: Cni) -> Self {
        Self {
            cni,
            state: Mutex::default(),
        }
    }

    /// Makes services and subnets so, the host's side too when it is new. What is left out.
    pub(super) fn sync(
        &self,
        network: Option<&NodeNetwork>,
        services: &BTreeMap<String, ServiceConfig>,
        behind: &BTreeMap<PodUid, Behind>,
    ) -> Result<NetworkFaults, Failure> {
        let Some(network) = network else {
            return Ok(NetworkFaults::default());
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.host.as_ref() != Some(network) {
            self.cni.host(network)?;
            state.host = Some(network.clone());
        }
        let mut datapath = match state.datapath.take() {
            Some(datapath) => datapath,
            None => Datapath::ensure(&self.cni.bpf_dir()).map_err(Failure::other)?,
        };
        if guard::off("flow-share") {
            datapath.without_shares().map_err(Failure::other)?;
        }
        let named = services.iter().flat_map(|(name, config)| {
            let ports = of_config(config);
            ports.map(move |service| (name, service))
        });
        let (names, wanted): (Vec<&String>, Vec<Service>) = named.unzip();
        let pods: Vec<PodSubnets> = behind.values().map(of_pod).collect();
        // Where subnets are first: whoever answers a service's clients behind a pod has to know the way back.
        let synced = datapath
            .sync_subnets(&pods)
            .and_then(|subnets| Ok((datapath.sync_services(&wanted)?, subnets)))
            .map_err(Failure::other);
        if synced.is_ok() {
            state.datapath = Some(datapath);
        } else {
            // Something may have been taken away from under us: look at all of it again.
            state.host = None;
        }
        let (services, subnets) = synced?;
        match services.left_out.first() {
            Some(first) if guard::off("service-apart") => Err(Failure::Config(first.why.to_string())),
            _ => Ok(NetworkFaults {
                services: faults(&names, &services.left_out),
                subnets: not_routed(behind, &subnets.left_out),
            }),
        }
    }

    /// Flows of each local sender beyond its share of the flow tables, so far.
    pub(super) fn beyond_shares(&self) -> Result<BTreeMap<Ipv4Addr, u32>, Failure> {
        match Datapath::open(&self.cni.bpf_dir()) {
            Some(datapath) => datapath.beyond_shares().map_err(Failure::other),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Packets, drops and new flows since the datapath's start; `None` before it.
    pub(super) fn counters(&self) -> Result<Option<NetworkCounters>, Failure> {
        let Some(datapath) = Datapath::open(&self.cni.bpf_dir()) else {
            return Ok(None);
        };
        let counters = datapath.counters().map_err(Failure::other)?;
        let drops = counters.drops.iter().filter(|(_, count)| **count > 0);
        let drops: BTreeMap<String, u64> = drops
            .map(|(reason, count)| (reason.label().to_owned(), *count))
            .collect();
        let mut new_flows = BTreeMap::new();
        for stat in datapath.backend_stats().map_err(Failure::other)? {
            let key = stat.key;
            let name = format!(
                "{}:{}/{}>{}:{}",
                key.vip,
                key.port,
                key.protocol.name(),
                key.address,
                key.backend_port
            );
            new_flows.insert(name, stat.new_flows);
        }
        let packets = counters.paths.values().sum::<u64>() + counters.drops.values().sum::<u64>();
        Ok(Some(NetworkCounters {
            packets,
            drops,
            new_flows,
        }))
    }
}

const _: () = assert!(MAX_SERVICE_PORTS <= gantry_ebpf::MAX_SERVICES as usize);
const _: () = assert!(MAX_SERVICE_BACKENDS <= gantry_ebpf::MAX_BACKENDS as usize);

/// What the datapath leaves out, by the name of its service.
fn faults(names: &[&String], left_out: &[LeftOut]) -> BTreeMap<String, ServiceFault> {
    let mut faults: BTreeMap<String, ServiceFault> = BTreeMap::new();
    for left_out in left_out {
        let reason = match left_out.why {
            Why::ListedTwice { .. } => ServiceFaultReason::PortConflict,
            Why::SctpPort { .. } => ServiceFaultReason::SctpPortChange,
            Why::Full { .. } => ServiceFaultReason::TablesFull,
        };
        let message = left_out.why.to_string();
        faults
            .entry(names[left_out.position].clone())
            .and_modify(|fault| fault.message = format!("{}; {message}", fault.message))
            .or_insert(ServiceFault {
                reason,
                message: message.clone(),
            });
    }
    faults
}

/// In words, by the pod that a subnet does not lead to.
fn not_routed(behind: &BTreeMap<PodUid, Behind>, left_out: &[SubnetLeftOut]) -> BTreeMap<PodUid, String> {
    let mut faults: BTreeMap<PodUid, String> = BTreeMap::new();
    for left_out in left_out {
        let at = |address: Ipv4Addr| behind.iter().find(|(_, pod)| pod.address == address);
        let Some((uid, _)) = at(left_out.pod) else {
            continue;
        };
        let (net, prefix) = left_out.subnet;
        let why = match left_out.why {
            // Of the same namespace: it may know the name.
            SubnetWhy::Taken { by } => match at(by) {
                Some((_, pod)) => format!("subnet {net}/{prefix} is behind pod {} already", pod.name),
                None => left_out.to_string(),
            },
            SubnetWhy::Share { .. } | SubnetWhy::Full => left_out.to_string(),
        };
        faults
            .entry(uid.clone())
            .and_modify(|all| *all = format!("{all}; {why}"))
            .or_insert(why);
    }
    faults
}

fn of_pod(pod: &Behind) -> PodSubnets {
    PodSubnets {
        address: pod.address,
        realm: pod.namespace.clone(),
        group: pod.group.clone(),
        subnets: pod
            .subnets
            .iter()
            .map(|net| (net.network(), net.prefix_len()))
            .collect(),
    }
}

fn of_config(service: &ServiceConfig) -> impl Iterator<Item = Service> + '_ {
    service.ports.iter().map(|port| Service {
        vip: service.vip,
        port: port.port,
        protocol: match port.protocol {
            gantry_nodeagent_api::Protocol::Tcp => Protocol::Tcp,
            gantry_nodeagent_api::Protocol::Udp => Protocol::Udp,
            gantry_nodeagent_api::Protocol::Sctp => Protocol::Sctp,
        },
        backends: port
            .backends
            .iter()
            .map(|backend| Backend {
                address: backend.address,
                port: backend.port,
                weight: backend.weight,
                udp_idle_s: backend.udp_idle_s,
                state: if backend.draining {
                    BackendState::Draining
                } else {
                    BackendState::Active
                },
            })
            .collect(),
    })
}
