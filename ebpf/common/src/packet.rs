//! What the datapath reads of a packet: Ethernet + IPv4 (RFC 791) and the first transport bytes.

use crate::layout::{FlowKey, FragmentKey, SCTP, TCP, UDP};

/// Length of the Ethernet header.
pub const ETH_BYTES: usize = 14;
/// Length of the Ethernet and the shortest IPv4 header: what [`Ipv4::parse`] reads.
pub const HEAD_BYTES: usize = ETH_BYTES + 20;
/// Offset of the IPv4 header checksum in the frame; source and destination address follow it.
pub const IP_CHECKSUM_OFFSET: usize = ETH_BYTES + 10;

/// The fields of an IPv4 header that decide about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// IP protocol.
    pub protocol: u8,
    /// Where the transport header starts in the frame.
    pub l4_offset: u32,
    /// Header checksum.
    pub checksum: u16,
    /// Identification.
    pub id: u16,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Not the first fragment: has no transport header.
    pub later_fragment: bool,
}

impl Ipv4 {
    /// Reads the header; `None` if it is not IPv4 or shorter than it says.
    #[inline(always)]
    pub fn parse(frame: &[u8; HEAD_BYTES]) -> Option<Ipv4> {
        let words = frame[14] & 0x0f;
        if frame[14] >> 4 != 4 || words < 5 {
            return None;
        }
        let fragment = u16::from_be_bytes([frame[20], frame[21]]);
        Some(Ipv4 {
            src: u32::from_be_bytes([frame[26], frame[27], frame[28], frame[29]]),
            dst: u32::from_be_bytes([frame[30], frame[31], frame[32], frame[33]]),
            protocol: frame[23],
            l4_offset: ETH_BYTES as u32 + words as u32 * 4,
            checksum: u16::from_be_bytes([frame[24], frame[25]]),
            id: u16::from_be_bytes([frame[18], frame[19]]),
            more_fragments: fragment & 0x2000 != 0,
            later_fragment: fragment & 0x1fff != 0,
        })
    }

    /// Does the protocol have ports that services know?
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP | SCTP)
    }

    /// Is it part of a fragmented datagram?
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.later_fragment
    }

    /// Key of the datagram for map FRAGMENTS. `behind`: own address of the pod that its source is behind, else 0.
    #[inline(always)]
    pub fn fragment_key(&self, behind: u32) -> FragmentKey {
        FragmentKey {
            src: self.src,
            dst: self.dst,
            id: self.id,
            protocol: self.protocol,
            pad: 0,
            behind,
        }
    }

    /// Key of the flow for maps FLOWS and REVERSE.
    #[inline(always)]
    pub fn flow_key(&self, ports: Ports) -> FlowKey {
        FlowKey {
            src: self.src,
            dst: self.dst,
            sport: ports.src,
            dport: ports.dst,
            protocol: self.protocol,
            behind: [0; 3],
        }
    }
}

/// Ports: the first four bytes of TCP, UDP and SCTP alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
}

impl Ports {
    /// Reads them from the start of the transport header.
    #[inline(always)]
    pub fn parse(l4: &[u8; 4]) -> Ports {
        Ports {
            src: u16::from_be_bytes([l4[0], l4[1]]),
            dst: u16::from_be_bytes([l4[2], l4[3]]),
        }
    }

    /// As on the wire.
    #[inline(always)]
    pub fn bytes(self) -> [u8; 4] {
        let (s, d) = (self.src.to_be_bytes(), self.dst.to_be_bytes());
        [s[0], s[1], d[0], d[1]]
    }
}

/// Where in the transport header the byte is that tells whether the packet opens a connection:
/// TCP's flags, SCTP's first chunk type. `None` for protocols without connections.
#[inline(always)]
pub const fn opening_offset(protocol: u8) -> Option<u32> {
    match protocol {
        TCP => Some(13),
        SCTP => Some(12),
        _ => None,
    }
}

/// Does the byte at [`opening_offset`] open a connection (TCP: SYN without ACK; SCTP: INIT chunk)?
#[inline(always)]
pub const fn opens(protocol: u8, byte: u8) -> bool {
    match protocol {
        TCP => byte & 0x12 == 0x02,
        SCTP => byte == 1,
        _ => false,
    }
}

/// Where in the transport header its checksum is; `None` if addresses and ports may change without it
/// (SCTP's CRC32c covers no pseudo header, RFC 9260 section 6.8, and its ports are never changed).
#[inline(always)]
pub const fn checksum_offset(protocol: u8) -> Option<u32> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> [u8; HEAD_BYTES] {
        let mut f = [0u8; HEAD_BYTES];
        f[14] = 0x46; // one word of options
        f[18..20].copy_from_slice(&[0x12, 0x34]);
        f[23] = UDP;
        f[24..26].copy_from_slice(&[0xab, 0xcd]);
        f[26..30].copy_from_slice(&[10, 85, 0, 2]);
        f[30..34].copy_from_slice(&[10, 86, 0, 1]);
        f
    }

    #[test]
    fn reads_the_fields() {
        let ip = Ipv4::parse(&frame()).unwrap();
        assert_eq!((ip.src, ip.dst), (0x0a55_0002, 0x0a56_0001));
        assert_eq!((ip.l4_offset, ip.checksum, ip.id), (38, 0xabcd, 0x1234));
        assert!(ip.has_ports() && !ip.is_fragment());
    }

    #[test]
    fn fragments() {
        let mut f = frame();
        f[20] = 0x20;
        let first = Ipv4::parse(&f).unwrap();
        assert!(first.is_fragment() && !first.later_fragment);
        f[20..22].copy_from_slice(&[0x00, 0xb9]);
        let last = Ipv4::parse(&f).unwrap();
        assert!(last.is_fragment() && last.later_fragment);
        assert_eq!(first.fragment_key(0), last.fragment_key(0));
        f[20] = 0x40; // don't fragment
        f[21] = 0;
        assert!(!Ipv4::parse(&f).unwrap().is_fragment());
    }

    #[test]
    fn refuses_what_is_not_ipv4() {
        let mut f = frame();
        f[14] = 0x44;
        assert_eq!(Ipv4::parse(&f), None);
        f[14] = 0x65;
        assert_eq!(Ipv4::parse(&f), None);
    }

    #[test]
    fn openings() {
        assert!(opens(TCP, 0x02) && !opens(TCP, 0x12) && !opens(TCP, 0x10));
        assert!(opens(SCTP, 1) && !opens(SCTP, 0));
        assert!(!opens(UDP, 2));
    }

    proptest! {
        #[test]
        fn never_panics_and_offset_is_sane(a in proptest::array::uniform32(any::<u8>()), b: [u8; 2]) {
            let mut f = [0u8; HEAD_BYTES];
            f[..32].copy_from_slice(&a);
            f[32..].copy_from_slice(&b);
            if let Some(ip) = Ipv4::parse(&f) {
                prop_assert!((34..=74).contains(&ip.l4_offset));
            }
        }

        #[test]
        fn ports_round_trip(b: [u8; 4]) {
            prop_assert_eq!(Ports::parse(&b).bytes(), b);
        }
    }
}
