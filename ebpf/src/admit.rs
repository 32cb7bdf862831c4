//! Pure: what of the wanted services can be in force. Each stands or falls alone: what cannot is left out and named,
//! and everything else goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use gantry_ebpf_common::layout::ServiceKey;

use crate::services::{Backend, BackendState, Protocol, Service};

/// How much the kernel's tables take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Services, which are an address, a port and a protocol each.
    pub services: usize,
    /// Backends over all services.
    pub backends: usize,
}

/// A wanted service that is not in force, or not with all its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its position in the list of the wanted ones.
    pub position: usize,
    /// Why.
    pub why: Why,
}

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An earlier one in the list has the same address, port and protocol.
    ListedTwice {
        /// Service address.
        vip: Ipv4Addr,
        /// Service port.
        port: u16,
        /// Protocol.
        protocol: Protocol,
    },
    /// SCTP cannot be sent to another port: its checksum would have to be computed anew.
    SctpPort {
        /// Service port.
        port: u16,
        /// Backend's address.
        backend: Ipv4Addr,
        /// Backend's port.
        backend_port: u16,
    },
    /// The tables are full; those that are in force stay.
    Full {
        /// Service port.
        port: u16,
        /// Protocol.
        protocol: Protocol,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::ListedTwice { vip, port, protocol } => {
                let protocol = protocol.name();
                write!(f, "{vip}:{port}/{protocol} is listed twice: the first one counts")
            }
            Why::SctpPort {
                port,
                backend,
                backend_port,
            } => write!(
                f,
                "SCTP keeps its port: {backend} must serve on {port}, not on {backend_port}"
            ),
            Why::Full { port, protocol } => write!(
                f,
                "port {port}/{} does not fit: the node's tables of services are full",
                protocol.name()
            ),
        }
    }
}

/// The services that are to be in force, by key, and what is left out. Those that the kernel has (`has`) come
/// first, so that none of them has to leave for a newer one; then the order of the list counts.
pub fn admit(
    has: impl Fn(&ServiceKey) -> bool,
    desired: &[Service],
    limits: Limits,
) -> (BTreeMap<ServiceKey, Service>, Vec<LeftOut>) {
    let mut order: Vec<usize> = (0..desired.len()).collect();
    order.sort_by_key(|i| !has(&desired[*i].key()));
    let mut admitted: BTreeMap<ServiceKey, Service> = BTreeMap::new();
    let mut left_out = Vec::new();
    let mut backends = 0;
    for position in order {
        let service = &desired[position];
        let (vip, port, protocol) = (service.vip, service.port, service.protocol);
        let mut leave_out = |why| left_out.push(LeftOut { position, why });
        if admitted.contains_key(&service.key()) {
            leave_out(Why::ListedTwice { vip, port, protocol });
            continue;
        }
        let (usable, sctp_elsewhere) = usable(service);
        if admitted.len() == limits.services || backends + usable.len() > limits.backends {
            leave_out(Why::Full { port, protocol });
            continue;
        }
        if let Some(backend) = sctp_elsewhere {
            leave_out(Why::SctpPort {
                port,
                backend: backend.address,
                backend_port: backend.port,
            });
        }
        backends += usable.len();
        let admitted_service = Service {
            backends: usable,
            ..service.clone()
        };
        admitted.insert(service.key(), admitted_service);
    }
    left_out.sort_by_key(|l| l.position);
    (admitted, left_out)
}

/// The backends that can serve, equal ones merged (two pods on the host's network are one receiver); and the first
/// that cannot.
fn usable(service: &Service) -> (Vec<Backend>, Option<Backend>) {
    let serves = |b: &&Backend| service.protocol != Protocol::Sctp || b.port == service.port;
    let mut merged: BTreeMap<(Ipv4Addr, u16), Backend> = BTreeMap::new();
    for backend in service.backends.iter().filter(serves) {
        merged
            .entry((backend.address, backend.port))
            .and_modify(|known| *known = merge(known, backend))
            .or_insert(*backend);
    }
    let elsewhere = service.backends.iter().find(|b| !serves(b)).copied();
    (merged.into_values().collect(), elsewhere)
}

/// It takes new flows if one of the two does, and what drains is no reason to hurry the other's flows.
fn merge(a: &Backend, b: &Backend) -> Backend {
    let [first, second] = match (a.state, b.state) {
        (BackendState::Draining, BackendState::Active) => [b, a],
        _ => [a, b],
    };
    Backend {
        weight: match second.state {
            BackendState::Active => first.weight.max(second.weight),
            BackendState::Draining => first.weight,
        },
        udp_idle_s: first.udp_idle_s.max(second.udp_idle_s),
        ..*first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Limits = Limits {
        services: 100,
        backends: 100,
    };

    fn backend(last: u8, state: BackendState) -> Backend {
        Backend {
            address: Ipv4Addr::new(10, 85, 0, last),
            port: 5060,
            weight: 1,
            state,
            udp_idle_s: 300,
        }
    }

    fn service(protocol: Protocol, port: u16, backends: &[Backend]) -> Service {
        Service {
            vip: Ipv4Addr::new(10, 86, 0, 1),
            port,
            protocol,
            backends: backends.to_vec(),
        }
    }

    fn ports(admitted: &BTreeMap<ServiceKey, Service>) -> Vec<u16> {
        admitted.keys().map(|k| k.port).collect()
    }

    #[test]
    fn a_port_listed_twice_counts_once_and_the_others_go_on() {
        let a = backend(2, BackendState::Active);
        let wanted = [
            service(Protocol::Tcp, 70, &[a]),
            service(Protocol::Tcp, 70, &[]),
            service(Protocol::Udp, 70, &[a]),
        ];
        let (admitted, left_out) = admit(|_| false, &wanted, ROOMY);
        assert_eq!(ports(&admitted), [70, 70]);
        assert_eq!(admitted[&wanted[0].key()].backends, [a]);
        assert_eq!(left_out.len(), 1);
        assert_eq!(left_out[0].position, 1);
        assert_eq!(
            left_out[0].why.to_string(),
            "10.86.0.1:70/tcp is listed twice: the first one counts"
        );
    }

    #[test]
    fn equal_backends_are_one() {
        use BackendState::{Active, Draining};
        for states in [[Active, Draining], [Draining, Active], [Active, Active]] {
            let twice = states.map(|s| backend(2, s));
            let (admitted, left_out) = admit(|_| false, &[service(Protocol::Tcp, 1, &twice)], ROOMY);
            let merged: Vec<Backend> = admitted.into_values().flat_map(|s| s.backends).collect();
            assert_eq!((merged, left_out), (vec![backend(2, Active)], vec![]));
        }
    }

    #[test]
    fn an_sctp_backend_on_another_port_is_left_out_alone() {
        let good = Backend {
            port: 38412,
            ..backend(3, BackendState::Active)
        };
        let bad = backend(2, BackendState::Active);
        let wanted = service(Protocol::Sctp, 38412, &[bad, good]);
        let (admitted, left_out) = admit(|_| false, std::slice::from_ref(&wanted), ROOMY);
        assert_eq!(admitted[&wanted.key()].backends, [good]);
        let why = left_out[0].why.to_string();
        assert_eq!(
            why,
            "SCTP keeps its port: 10.85.0.2 must serve on 38412, not on 5060"
        );
    }

    #[test]
    fn full_tables_refuse_the_newest_never_one_that_is_in_force() {
        let a = backend(2, BackendState::Active);
        let wanted: Vec<Service> = (1..=4).map(|p| service(Protocol::Tcp, p, &[a])).collect();
        let has = |key: &ServiceKey| key.port == 4;
        for limits in [Limits { services: 2, ..ROOMY }, Limits { backends: 2, ..ROOMY }] {
            let (admitted, left_out) = admit(has, &wanted, limits);
            assert_eq!(ports(&admitted), [1, 4]);
            let positions: Vec<usize> = left_out.iter().map(|l| l.position).collect();
            assert_eq!(positions, [1, 2]);
            assert!(left_out.iter().all(|l| matches!(l.why, Why::Full { .. })));
        }
    }
}
