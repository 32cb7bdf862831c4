//! Service addresses and who stands behind them.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::PodUid;

/// Transport protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A service address with its backends on all nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceConfig {
    /// The virtual address.
    pub vip: Ipv4Addr,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Port on the virtual address.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Who serves it.
    pub backends: Vec<Backend>,
}

/// One endpoint of a service port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The pod behind it.
    pub pod: PodUid,
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Share of new flows, relative to the others; at least 1.
    pub weight: u32,
    /// True: keeps established flows, takes no new ones.
    pub draining: bool,
    /// A UDP flow to it whose client was silent for longer, in seconds, is a new flow.
    #[serde(default = "default_udp_idle_s")]
    pub udp_idle_s: u32,
}

/// [`Backend::udp_idle_s`] where nobody knows better, in seconds.
pub const DEFAULT_UDP_IDLE_S: u32 = 300;

fn default_udp_idle_s() -> u32 {
    DEFAULT_UDP_IDLE_S
}
