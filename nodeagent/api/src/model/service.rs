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

/// What of a service is not in force on a node. The rest of it, and all other services, are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFault {
    /// Of the first thing that is left out.
    pub reason: ServiceFaultReason,
    /// For people: all that is left out, and what to do.
    pub message: String,
}

/// Why something of a service is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceFaultReason {
    /// Its address, port and protocol are taken.
    PortConflict,
    /// An SCTP backend is on another port than the service.
    SctpPortChange,
    /// The tables of services are full, or its namespace's share of them is.
    TablesFull,
}

impl ServiceFaultReason {
    /// One CamelCase word, as the reason of a condition.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceFaultReason::PortConflict => "PortConflict",
            ServiceFaultReason::SctpPortChange => "SctpPortChange",
            ServiceFaultReason::TablesFull => "TablesFull",
        }
    }
}

/// Service ports that a node takes.
pub const MAX_SERVICE_PORTS: usize = 16_384;

/// Backends, over all service ports, that a node takes.
pub const MAX_SERVICE_BACKENDS: usize = 65_536;
