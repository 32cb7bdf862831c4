//! The packet that an ICMP error quotes (RFC 792): who may say the error, and what the client of a service must read in it.

use crate::checksum::replace32;
use crate::layout::{Reverse, UDP};
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
/// (RFC 1122, section 3.2.2); redirects are for routers. One that forwards tells of what was sent to others, too.
#[inline(always)]
pub fn may_say(kind: u8, error: &Ipv4, quoted: &Ipv4, forwards: bool) -> bool {
    kind != REDIRECT && (forwards || (quoted.dst == error.src && quoted.src == error.dst))
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
    ///
    /// Of a header the checksum makes up for the addresses, so that to the error's own only ports and transport checksum matter.
    #[inline(always)]
    pub fn as_sent(&self, protocol: u8, reverse: &Reverse) -> Fields {
        let mended = |sum| replace32(replace32(sum, self.src, reverse.client), self.dst, reverse.vip);
        let (old, new) = (self.ports.dst as u32, reverse.vip_port as u32);
        let checksum = match self.checksum {
            // None was made, and that must stay so; one that comes out as zero is all ones (RFC 768).
            Some(0) if protocol == UDP => Some(0),
            Some(sum) => match replace32(mended(sum), old, new) {
                0 if protocol == UDP => Some(0xffff),
                sum => Some(sum),
            },
            None => None,
        };
        let of_the_error = |port, sum: Option<u16>| port << 16 | sum.unwrap_or(0) as u32;
        Fields {
            src: reverse.client,
            dst: reverse.vip,
            ip_checksum: mended(self.ip_checksum),
            ports: Ports {
                src: self.ports.src,
                dst: reverse.vip_port,
            },
            checksum,
            icmp_checksum: replace32(
                self.icmp_checksum,
                of_the_error(old, self.checksum),
                of_the_error(new, checksum),
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
            for quoted in [ip(NEIGHBOUR, OTHER), ip(OTHER, SELF), ip(SELF, NEIGHBOUR)] {
                assert!(!may_say(kind, &error, &quoted, false));
                assert!(may_say(kind, &error, &quoted, true));
            }
        }
    }

    #[test]
    fn no_pod_redirects() {
        assert!(is_error(REDIRECT));
        for forwards in [false, true] {
            let (error, quoted) = (ip(SELF, NEIGHBOUR), ip(NEIGHBOUR, SELF));
            assert!(!may_say(REDIRECT, &error, &quoted, forwards));
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

    /// Of two addresses and a last word.
    fn sum(src: u32, dst: u32, word: u32) -> u16 {
        full(&[src, dst, word].map(u32::to_be_bytes).concat(), 0)
    }

    proptest! {
        #[test]
        fn checksums_are_as_if_made_anew(src in 1u32.., dst: u32, client in 1u32.., vip: u32, port: u16, vip_port in 1u16..) {
            let checksum = match sum(src, dst, port.into()) {
                0 => 0xffff,
                sum => sum,
            };
            let last = |port: u16, checksum: u16| u32::from(port) << 16 | u32::from(checksum);
            let fields = Fields {
                src,
                dst,
                ip_checksum: sum(src, dst, 0),
                ports: Ports { src: 4000, dst: port },
                checksum: Some(checksum),
                icmp_checksum: sum(0, 0, last(port, checksum)),
            };
            let reverse = Reverse { vip, client, vip_port, direct: 0 };
            let sent = fields.as_sent(UDP, &reverse);
            let wanted = match sum(client, vip, vip_port.into()) {
                0 => 0xffff,
                sum => sum,
            };
            prop_assert_eq!(sent.checksum, Some(wanted));
            prop_assert_eq!(sent.ip_checksum, sum(client, vip, 0));
            prop_assert_eq!(sent.icmp_checksum, sum(0, 0, last(vip_port, wanted)));
        }
    }
}
