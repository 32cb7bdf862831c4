//! What one node has to be.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use gantry_topology::CpuSet;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{ClaimConfig, ClaimId, Generation, PodConfig, PodUid, ServiceConfig};

/// Everything one node has to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// Version. Same generation means same content.
    pub generation: Generation,
    /// Addresses and names; `None` only before the first real configuration.
    pub network: Option<NodeNetwork>,
    /// The CPUs that containers without exclusive ones run on.
    pub shared_cpus: CpuSet,
    /// The pods.
    pub pods: BTreeMap<PodUid, PodConfig>,
    /// The service addresses, by `namespace/name`.
    pub services: BTreeMap<String, ServiceConfig>,
    /// DNS: lower-case name without final dot to addresses.
    pub dns: BTreeMap<String, Vec<IpAddr>>,
    /// Id of the cluster whose store this comes from; empty in what the first version wrote.
    #[serde(default)]
    pub cluster: String,
    /// DNS: lower-case name of a service's port (`_sip._udp.<service>`) without final dot to who serves it.
    #[serde(default)]
    pub srv: BTreeMap<String, Vec<SrvTarget>>,
    /// The durable directories of this node: one that was listed and is not any more goes. `None`: the sender knows of none, and says
    /// nothing of those that are there.
    #[serde(default)]
    pub claims: Option<BTreeMap<ClaimId, ClaimConfig>>,
}

/// One answer to an SRV question (RFC 2782). All targets of a name are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SrvTarget {
    /// A name of [`NodeConfig::dns`].
    pub name: String,
    /// Port.
    pub port: u16,
}

/// The node's share of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetwork {
    /// Addresses of this node's pods.
    pub pod_cidr: Ipv4Net,
    /// Addresses of services.
    pub service_cidr: Ipv4Net,
    /// The node's own address in `pod_cidr`.
    pub gateway: Ipv4Addr,
    /// DNS domain, for example `cluster.local`.
    pub cluster_domain: String,
}
