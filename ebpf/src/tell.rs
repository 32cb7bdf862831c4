//! Telling clients that what they talked to is gone, as if their service said so.
//!
//! A TCP client is asked a question that only a connection that exists can be asked; its answer is not a flow's any
//! more, and gets the reset that the client believes. A UDP client gets ICMP port unreachable. Whoever cannot be
//! reached from here learns it with the next packet that it sends.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use gantry_ebpf_common::layout::{ACTIVE, Backend, Flow, FlowKey, TCP, UDP};
use gantry_ebpf_common::refuse::{datagram, question, unreachable};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

/// A flow whose backend is gone.
pub struct Lost {
    /// Between client and service.
    pub key: FlowKey,
    /// As it was.
    pub flow: Flow,
    /// As it was.
    pub backend: Backend,
    /// Others take new flows of the service.
    pub served: bool,
}

/// Tells them. Packets leave from the caller's network namespace, which must be the host's.
pub fn clients(lost: impl Iterator<Item = Lost>) {
    let now_s = now_s();
    let mut packets = lost
        .filter_map(|l| Some((l.key.src, packet(&l, now_s)?)))
        .peekable();
    if packets.peek().is_none() {
        return;
    }
    let Ok(raw) = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::Raw,
    ) else {
        return;
    };
    for (client, packet) in packets {
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::from(client), 0));
        // An address without a route has no client that waits.
        let _ = sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty());
    }
}

/// What a client is sent. A connection that was never established finds another backend by itself; a UDP flow that is
/// silent for longer than it may is none, and one that was being drained moves on without a word.
fn packet(lost: &Lost, now_s: u32) -> Option<Vec<u8>> {
    let key = &lost.key;
    let (client, service) = ((key.src, key.sport), (key.dst, key.dport));
    match key.protocol {
        TCP if lost.flow.established != 0 => Some(question(service, client).to_vec()),
        UDP => {
            let silent_s = now_s.saturating_sub(lost.flow.last_seen_s);
            let told = silent_s <= lost.backend.udp_idle_s && (lost.backend.state == ACTIVE || !lost.served);
            told.then(|| unreachable(&datagram(UDP, client, service)).to_vec())
        }
        _ => None,
    }
}

/// The clock that the kernel program times flows by.
fn now_s() -> u32 {
    let mut now = nix::libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills in the structure that it is given, and every kernel has this clock.
    unsafe { nix::libc::clock_gettime(nix::libc::CLOCK_MONOTONIC, &mut now) };
    u32::try_from(now.tv_sec).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_ebpf_common::layout::DRAINING;

    fn lost(protocol: u8, established: u32, state: u8, served: bool) -> Lost {
        let key = FlowKey {
            src: 1,
            dst: 2,
            sport: 3,
            dport: 4,
            protocol,
            behind: [0; 3],
        };
        let flow = Flow {
            backend: 1,
            last_seen_s: 100,
            established,
        };
        let backend = Backend {
            state,
            udp_idle_s: 30,
            ..Backend::default()
        };
        Lost {
            key,
            flow,
            backend,
            served,
        }
    }

    #[test]
    fn who_is_told() {
        assert!(packet(&lost(TCP, 1, DRAINING, true), 1000).is_some());
        assert!(packet(&lost(TCP, 0, ACTIVE, true), 100).is_none());
        for (state, served, told) in [
            (ACTIVE, true, true),
            (DRAINING, true, false),
            (DRAINING, false, true),
        ] {
            assert_eq!(packet(&lost(UDP, 1, state, served), 130).is_some(), told);
            assert!(packet(&lost(UDP, 1, state, served), 131).is_none());
        }
    }
}
