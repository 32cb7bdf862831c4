//! Packets of UDP over IPv4 (RFC 791, RFC 768) as far as a fault looks into them: read as a whole, written with the right checksums.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes of an IPv4 header without options.
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const UDP: u8 = 17;
/// Of the field of flags and offset: more fragments follow, and where this one belongs.
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// A datagram with all that is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sends.
    pub source: SocketAddrV4,
    /// For whom.
    pub destination: SocketAddrV4,
    /// What.
    pub payload: &'a [u8],
    /// The header of IPv4, its options included.
    ip: &'a [u8],
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The one with which the packet begins.
    pub is_first: bool,
}

impl<'a> Datagram<'a> {
    /// From a packet; `None` if it is none of UDP, cut off, or a fragment.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let (ip, rest) = ip(packet)?;
        let whole = flags_and_offset(ip) & (MORE_FRAGMENTS | OFFSET_MASK) == 0;
        if !whole || ip[9] != UDP {
            return None;
        }
        let ([a, b, c, d, high, low, _, _], _) = rest.split_first_chunk::<UDP_BYTES>()?;
        let payload = rest.get(UDP_BYTES..usize::from(u16::from_be_bytes([*high, *low])))?;
        Some(Self {
            source: SocketAddrV4::new(address(ip, 12), u16::from_be_bytes([*a, *b])),
            destination: SocketAddrV4::new(address(ip, 16), u16::from_be_bytes([*c, *d])),
            payload,
            ip,
        })
    }

    /// The packet with another payload; `None` if there is none that long.
    pub fn with_payload(&self, payload: &[u8]) -> Option<Vec<u8>> {
        encode(self.ip, self.source.port(), self.destination.port(), payload)
    }

    /// The packet for another port of the same host.
    pub fn to_port(&self, port: u16) -> Option<Vec<u8>> {
        encode(self.ip, self.source.port(), port, self.payload)
    }
}

/// A packet of a datagram; `None` if there is none that long.
pub fn write(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let mut ip = [0; IPV4_BYTES];
    // Version and length; 64 hops.
    (ip[0], ip[8], ip[9]) = (0x45, 64, UDP);
    ip[12..16].copy_from_slice(&source.ip().octets());
    ip[16..20].copy_from_slice(&destination.ip().octets());
    encode(&ip, source.port(), destination.port(), payload)
}

/// Whether a packet is a part of one.
pub fn fragment(packet: &[u8]) -> Option<Fragment> {
    let (ip, _) = ip(packet)?;
    let field = flags_and_offset(ip);
    let is_first = field & OFFSET_MASK == 0;
    (!is_first || field & MORE_FRAGMENTS != 0).then_some(Fragment { is_first })
}

/// The header, and what is behind it as far as the packet goes.
fn ip(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = packet.first_chunk::<IPV4_BYTES>()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_ipv4 = header[0] >> 4 == 4 && length >= IPV4_BYTES;
    packet.get(..total)?.split_at_checked(length).filter(|_| is_ipv4)
}

fn flags_and_offset(ip: &[u8]) -> u16 {
    u16::from_be_bytes([ip[6], ip[7]])
}

fn address(ip: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3])
}

fn encode(ip: &[u8], source_port: u16, destination_port: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let total = u16::try_from(ip.len() + UDP_BYTES + payload.len()).ok()?;
    let length = u16::try_from(UDP_BYTES + payload.len()).ok()?;
    let mut packet = ip.to_vec();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    for field in [source_port, destination_port, length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(payload);
    let udp = ip.len();
    // What is before it in the sum: addresses, protocol, length.
    let pseudo = sum_of(&packet[12..20], 0) + u32::from(UDP) + u32::from(length);
    let sum = match checksum(&packet[udp..], pseudo) {
        // None would be no checksum.
        0 => 0xffff,
        sum => sum,
    };
    packet[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    Some(packet)
}

/// RFC 1071.
fn checksum(bytes: &[u8], before: u32) -> u16 {
    let mut sum = sum_of(bytes, before);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn sum_of(bytes: &[u8], before: u32) -> u32 {
    bytes.chunks(2).fold(before, |sum, two| {
        sum + (u32::from(two[0]) << 8 | two.get(1).copied().map_or(0, u32::from))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: &str = "10.99.0.7:30000";
    const TO: &str = "10.45.0.2:40000";

    fn packet(payload: &[u8]) -> Vec<u8> {
        write(FROM.parse().unwrap(), TO.parse().unwrap(), payload).unwrap()
    }

    /// Over what has its own checksum in it, the sum is zero.
    fn sums(packet: &[u8]) -> (u16, u16) {
        let length = u32::try_from(packet.len() - 20).unwrap();
        let pseudo = sum_of(&packet[12..20], 0) + 17 + length;
        (checksum(&packet[..20], 0), checksum(&packet[20..], pseudo))
    }

    #[test]
    fn a_packet_is_as_another_program_writes_it() {
        // Python's struct, with the sums of RFC 1071.
        let bytes = b"\x45\0\0\x1e\0\0\0\0\x40\x11\x66\x37\x0a\x63\0\x07\x0a\x2d\0\x02\x75\x30\x9c\x40\0\x0a\x71\x67hi";
        assert_eq!(packet(b"hi"), bytes);
        assert_eq!(sums(bytes), (0, 0));
    }

    #[test]
    fn fragments_and_other_packets_are_no_datagrams() {
        let whole = packet(&[1; 100]);
        assert_eq!(fragment(&whole), None);
        let with = |field: u16| {
            let mut part = whole.clone();
            part[6..8].copy_from_slice(&field.to_be_bytes());
            part
        };
        assert_eq!(fragment(&with(0x2000)), Some(Fragment { is_first: true }));
        assert_eq!(fragment(&with(0x2010)), Some(Fragment { is_first: false }));
        assert_eq!(fragment(&with(0x0010)), Some(Fragment { is_first: false }));
        assert_eq!(fragment(&with(0x4000)), None, "it must not be cut, and is not");
        assert_eq!(Datagram::read(&with(0x2000)), None);
        assert_eq!(Datagram::read(&whole[..99]), None);
        let mut tcp = whole;
        tcp[9] = 6;
        assert_eq!(Datagram::read(&tcp), None);
        assert_eq!(Datagram::read(&[0x60; 60]), None);
    }

    proptest! {
        #[test]
        fn checksums_are_right(
            payload in proptest::collection::vec(any::<u8>(), 0..1500),
            other in proptest::collection::vec(any::<u8>(), 0..1500),
            port: u16,
        ) {
            let bytes = packet(&payload);
            prop_assert_eq!(sums(&bytes), (0, 0));
            let datagram = Datagram::read(&bytes).unwrap();
            prop_assert_eq!(datagram.payload, &payload);
            let changed = datagram.with_payload(&other).unwrap();
            prop_assert_eq!(sums(&changed), (0, 0));
            prop_assert_eq!(Datagram::read(&changed).unwrap().payload, &other);
            let moved = datagram.to_port(port).unwrap();
            prop_assert_eq!(sums(&moved), (0, 0));
            prop_assert_eq!(Datagram::read(&moved).unwrap().destination.port(), port);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (Datagram::read(&bytes), fragment(&bytes));
            let _ = Datagram::read(&[&[0x45, 0, 0, 60], bytes.as_slice()].concat());
        }
    }
}
