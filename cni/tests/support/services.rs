//! Services at one address.

use std::net::Ipv4Addr;

use gantry_ebpf::{Backend, BackendState, Protocol, Service};

use super::Pod;

pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 86, 0, 10);

pub fn backend(pod: &Pod, port: u16, weight: u32) -> Backend {
    Backend {
        address: pod.ip,
        port,
        weight,
        state: BackendState::Active,
        udp_idle_s: 300,
    }
}

pub fn draining(pod: &Pod, port: u16) -> Backend {
    Backend {
        state: BackendState::Draining,
        ..backend(pod, port, 1)
    }
}

/// The same backends for UDP and TCP at VIP:5060.
pub fn both(backends: &[Backend]) -> [Service; 2] {
    [Protocol::Udp, Protocol::Tcp].map(|protocol| Service {
        vip: VIP,
        port: 5060,
        protocol,
        backends: backends.to_vec(),
    })
}
