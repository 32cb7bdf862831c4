//! The packet that an ICMP error quotes (RFC 792): who may say the error, and what the client of a service must read in it.

use crate::checksum::replace32;
use crate::layout::{Backend, Reverse, UDP};
use crate::packet::{Ipv4, Ports};

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Length of the header of an ICMP error; the quoted packet follows.
pub const ICMP_BYTES: usize = 8;
/// What is quoted of a packet behind its IPv4 header, at least (RFC 792); the kernel reads as much (`icmp_socket_deliver`
/// of `net/ipv4/icmp.c`).
pub const QUOTED_L4_BYTES: usize = 8;

/// ICMP type: another router is the way.
const REDIRECT: u8 = 5;

/// Does the type say an error, which quotes a packet? Destination unreachable, source quench, redirect, time exceeded,
/// parameter problem.
#[inline(always)]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | REDIRECT | 11 | 12)
}

/// May a pod say this error, of type `kind`, about the packet `quoted`? A host tells the sender of a packet that it got
/// (RFC 1122, section 3.2.2), and a router of one that it was to carry (RFC 1812, section 4.3.2); redirects are for routers between
/// links. `behind`: the packet was sent to an address behind the pod.
#[inline(always)]
pub fn may_say(kind: u8, error: &Ipv4, quoted: &Ipv4, behind: bool) -> bool {
    kind != REDIRECT && quoted.src == error.dst && (behind || quoted.dst == error.src)
}

/// The fields of a quoted packet that translation has changed, and the checksum of the error that quotes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Header checksum.
    pub ip_checksum: u16,
    /// Ports.
    pub ports: Ports,
    /// Transport checksum, if it is quoted.
    pub checksum: Option<u16>,
    /// Checksum of the error.
    pub icmp_checksum: u16,
}

impl Fields {
    /// As the client has sent the packet that became `self` on its way to a backend (RFC 5508, section 4.2).
    #[inline(always)]
    pub fn as_sent(&self, protocol: u8, reverse: &Reverse) -> Fields {
        let ports = Ports {
            src: self.ports.src,
            dst: reverse.vip_port,
        };
        self.with(protocol, reverse.client, reverse.vip, ports)
    }

    /// As the backend has sent the packet that became `self` on its way to a client.
    #[inline(always)]
    pub fn as_replied(&self, protocol: u8, backend: &Backend) -> Fields {
        let ports = Ports {
            src: backend.port,
            dst: self.ports.dst,
        };
        self.with(protocol, backend.ip, self.dst, ports)
    }

    /// Of a header the checksum makes up for the addresses, so that to the error's own only ports and transport checksum matter.
    #[inline(always)]
    fn with(&self, protocol: u8, src: u32, dst: u32, ports: Ports) -> Fields {
        let mended = |sum| replace32(replace32(sum, self.src, src), self.dst, dst);
        let word = |ports: Ports| (ports.src as u32) << 16 | ports.dst as u32;
        let (old, new) = (word(self.ports), word(ports));
        let checksum = match self.checksum {
            // None was made, and that must stay so; one that comes out as zero is all ones (RFC 768).
            Some(0) if protocol == UDP => Some(0),
            Some(sum) => match replace32(mended(sum), old, new) {
                0 if protocol == UDP => Some(0xffff),
                sum => Some(sum),
            },
            None => None,
        };
        let quoted = |sum: Option<u16>| sum.unwrap_or(0) as u32;
        Fields {
            src,
            dst,
            ip_checksum: mended(self.ip_checksum),
            ports,
            checksum,
            icmp_checksum: replace32(
                replace32(self.icmp_checksum, old, new),
                quoted(self.checksum),
                quoted(checksum),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::full;
    use crate::layout::TCP;
    use proptest::prelude::*;

    const SELF: u32 = 0x0a55_0002;
    const NEIGHBOUR: u32 = 0x0a55_0003;
    const OTHER: u32 = 0x0a55_0004;

    fn ip(src: u32, dst: u32) -> Ipv4 {
        let mut frame = [0; crate::packet::HEAD_BYTES];
        frame[14] = 0x45;
        frame[26..30].copy_from_slice(&src.to_be_bytes());
        frame[30..].copy_from_slice(&dst.to_be_bytes());
        Ipv4::parse(&frame).unwrap()
    }

    #[test]
    fn a_host_tells_the_sender_of_what_it_got() {
        let error = ip(SELF, NEIGHBOUR);
        for kind in [3, 4, 11, 12] {
            assert!(is_error(kind));
            assert!(may_say(kind, &error, &ip(NEIGHBOUR, SELF), false));
            assert!(may_say(kind, &error, &ip(NEIGHBOUR, OTHER), true));
            for quoted in [ip(NEIGHBOUR, OTHER), ip(OTHER, SELF), ip(SELF, NEIGHBOUR)] {
                assert!(!may_say(kind, &error, &quoted, false));
            }
            // Whoever sent it is told, nobody else.
            assert!(!may_say(kind, &error, &ip(OTHER, SELF), true));
        }
    }

    #[test]
    fn no_pod_redirects() {
        assert!(is_error(REDIRECT));
        for behind in [false, true] {
            let (error, quoted) = (ip(SELF, NEIGHBOUR), ip(NEIGHBOUR, SELF));
            assert!(!may_say(REDIRECT, &error, &quoted, behind));
        }
    }

    #[test]
    fn questions_and_answers_quote_nothing() {
        for kind in [0, 8, 9, 10, 13, 14] {
            assert!(!is_error(kind));
        }
    }

    #[test]
    fn a_checksum_that_was_not_made_is_not_made() {
        let fields = |checksum| Fields {
            src: NEIGHBOUR,
            dst: SELF,
            ip_checksum: 0,
            ports: Ports { src: 4000, dst: 5080 },
            checksum,
            icmp_checksum: 0,
        };
        let reverse = Reverse {
            vip: OTHER,
            client: NEIGHBOUR,
            vip_port: 5060,
            direct: 0,
        };
        for none in [None, Some(0)] {
            assert_eq!(fields(none).as_sent(UDP, &reverse).checksum, none);
        }
        assert_ne!(fields(Some(0)).as_sent(TCP, &reverse).checksum, Some(0));
    }

    /// Of two addresses, ports, and a last word.
    fn sum(src: u32, dst: u32, ports: Ports, word: u16) -> u16 {
        let head = [src, dst].map(u32::to_be_bytes).concat();
        full(&[&head[..], &ports.bytes(), &word.to_be_bytes()].concat(), 0)
    }

    fn all_ones_for_zero(sum: u16) -> u16 {
        if sum == 0 { 0xffff } else { sum }
    }

    proptest! {
        #[test]
        fn checksums_are_as_if_made_anew(
            src in 1u32..,
            dst: u32,
            client in 1u32..,
            vip: u32,
            port: u16,
            vip_port in 1u16..,
        ) {
            let none = Ports::default();
            let made = |src, dst, ports| {
                let checksum = all_ones_for_zero(sum(src, dst, ports, 0));
                Fields {
                    src,
                    dst,
                    ip_checksum: sum(src, dst, none, 0),
                    ports,
                    checksum: Some(checksum),
                    icmp_checksum: sum(0, 0, ports, checksum),
                }
            };
            let reverse = Reverse { vip, client, vip_port, direct: 0 };
            let got = made(src, dst, Ports { src: 4000, dst: port });
            let sent = made(client, vip, Ports { src: 4000, dst: vip_port });
            prop_assert_eq!(got.as_sent(UDP, &reverse), sent);
            let backend = Backend { ip: client, port: vip_port, ..Backend::default() };
            let got = made(src, dst, Ports { src: port, dst: 4000 });
            let replied = made(client, dst, Ports { src: vip_port, dst: 4000 });
            prop_assert_eq!(got.as_replied(UDP, &backend), replied);
        }
    }
}
