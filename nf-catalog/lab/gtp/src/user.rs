//! Users' packets in tunnels (TS 29.281).

use std::net::Ipv4Addr;

/// Bytes before a user's packet, as they are written here: without the optional ones.
pub const HEADER_BYTES: usize = 8;

/// Message types (TS 29.281, table 6.1-1).
mod kind {
    pub(super) const ECHO_REQUEST: u8 = 1;
    pub(super) const ECHO_RESPONSE: u8 = 2;
    pub(super) const ERROR_INDICATION: u8 = 26;
    pub(super) const END_MARKER: u8 = 254;
    pub(super) const G_PDU: u8 = 255;
}

/// Version 1, GTP and not GTP'.
const FLAGS: u8 = 0x30;
const VERSION_MASK: u8 = 0xf0;
const EXTENSION_FLAG: u8 = 0x04;
const SEQUENCE_FLAG: u8 = 0x02;
/// With any of them the optional bytes are there.
const OPTIONAL_MASK: u8 = 0x07;

/// Elements (TS 29.281, table 8.1-1): those below 128 have a fixed length.
const RECOVERY: u8 = 14;
const TEID_DATA: u8 = 16;
const PEER_ADDRESS: u8 = 133;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A user's packet.
    User {
        /// The receiver's name of the tunnel.
        teid: u32,
        /// What is in it.
        inner: &'a [u8],
    },
    /// Is anybody there?
    EchoRequest {
        /// Its number.
        sequence: u16,
    },
    /// Yes.
    EchoResponse {
        /// The request's number.
        sequence: u16,
    },
    /// The other end does not know a tunnel.
    ErrorIndication {
        /// The tunnel, as it is called there.
        teid: u32,
    },
    /// Nothing more comes on this way.
    EndMarker {
        /// The receiver's name of the tunnel.
        teid: u32,
    },
    /// Something else.
    Other(u8),
}

/// What is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than it says.
    #[error("a GTP-U message of {0} bytes is cut off")]
    CutOff(usize),
    /// Another protocol.
    #[error("{0:#x} is no version of GTP-U")]
    Version(u8),
    /// An Error Indication that does not say of what.
    #[error("an Error Indication has no TEID")]
    NoTeid,
}

/// What comes before a user's packet of that length; `None` if there is no packet that long.
pub fn header(teid: u32, inner_bytes: usize) -> Option<[u8; HEADER_BYTES]> {
    let [high, low] = u16::try_from(inner_bytes).ok()?.to_be_bytes();
    let [a, b, c, d] = teid.to_be_bytes();
    Some([FLAGS, kind::G_PDU, high, low, a, b, c, d])
}

/// An Echo Response (7.2.2). Recovery says nothing in GTP-U, and is there.
pub fn echo_response(sequence: u16) -> Vec<u8> {
    with_sequence(kind::ECHO_RESPONSE, sequence, &[RECOVERY, 0])
}

/// An Error Indication (7.3.1): no tunnel of that name at this address.
pub fn error_indication(teid: u32, own: Ipv4Addr) -> Vec<u8> {
    let mut elements = vec![TEID_DATA];
    elements.extend(teid.to_be_bytes());
    elements.extend([PEER_ADDRESS, 0, 4]);
    elements.extend(own.octets());
    with_sequence(kind::ERROR_INDICATION, 0, &elements)
}

fn with_sequence(kind: u8, sequence: u16, elements: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + elements.len()).expect("a few bytes");
    let mut bytes = vec![FLAGS | SEQUENCE_FLAG, kind];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(elements);
    bytes
}

/// Reads a datagram.
pub fn decode(datagram: &[u8]) -> Result<Packet<'_>, Malformed> {
    let cut_off = || Malformed::CutOff(datagram.len());
    let ([flags, kind, high, low, teid @ ..], after) =
        datagram.split_first_chunk::<HEADER_BYTES>().ok_or_else(cut_off)?;
    if flags & VERSION_MASK != FLAGS {
        return Err(Malformed::Version(*flags));
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let teid = u32::from_be_bytes(*teid);
    let mut rest = after.get(..length).ok_or_else(cut_off)?;
    let mut sequence = 0;
    if flags & OPTIONAL_MASK != 0 {
        let ([a, b, _, next], after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        sequence = u16::from_be_bytes([*a, *b]);
        rest = if flags & EXTENSION_FLAG == 0 {
            after
        } else {
            skip_extensions(*next, after).ok_or_else(cut_off)?
        };
    }
    Ok(match *kind {
        kind::G_PDU => Packet::User { teid, inner: rest },
        kind::ECHO_REQUEST => Packet::EchoRequest { sequence },
        kind::ECHO_RESPONSE => Packet::EchoResponse { sequence },
        kind::END_MARKER => Packet::EndMarker { teid },
        kind::ERROR_INDICATION => Packet::ErrorIndication {
            teid: first_teid(rest).ok_or(Malformed::NoTeid)?,
        },
        other => Packet::Other(other),
    })
}

/// Each extension header tells its length in units of four bytes, and what comes next in its last byte (5.2.1).
fn skip_extensions(mut next: u8, mut bytes: &[u8]) -> Option<&[u8]> {
    while next != 0 {
        let length = usize::from(*bytes.first()?) * 4;
        let (extension, rest) = bytes.split_at_checked(length)?;
        next = *extension.last()?;
        bytes = rest;
    }
    Some(bytes)
}

/// TEID Data I, which is the first element: they are in the order of their types (8.1).
fn first_teid(elements: &[u8]) -> Option<u32> {
    let elements = match elements {
        [RECOVERY, _, rest @ ..] => rest,
        all => all,
    };
    match elements {
        [TEID_DATA, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_users_packet_has_eight_bytes_before_it() {
        let bytes = [&header(0x0102_0304, 3).unwrap()[..], b"abc"].concat();
        assert_eq!(bytes, b"\x30\xff\x00\x03\x01\x02\x03\x04abc");
        let expected = Packet::User {
            teid: 0x0102_0304,
            inner: b"abc",
        };
        assert_eq!(decode(&bytes), Ok(expected));
        assert_eq!(decode(&bytes[..10]), Err(Malformed::CutOff(10)));
        assert_eq!(header(1, 0x1_0000), None);
    }

    #[test]
    fn optional_bytes_and_extensions_are_passed_over() {
        // A number, and the container of a PDU session (TS 38.415) before the packet.
        let bytes = b"\x36\xff\x00\x0b\x00\x00\x00\x01\x00\x07\x00\x85\x01\x10\x09\x00abc";
        assert_eq!(
            decode(bytes),
            Ok(Packet::User {
                teid: 1,
                inner: b"abc"
            })
        );
        let endless = b"\x34\xff\x00\x08\x00\x00\x00\x01\x00\x00\x00\x85\x00\x10\x09\x85";
        assert_eq!(decode(endless), Err(Malformed::CutOff(16)));
    }

    #[test]
    fn the_other_messages_are_as_the_standard_draws_them() {
        assert_eq!(
            hex::encode(echo_response(7)),
            "320200060000000000070000\
                   0e00"
        );
        assert_eq!(
            decode(&echo_response(7)),
            Ok(Packet::EchoResponse { sequence: 7 })
        );
        let error = error_indication(5, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(
            hex::encode(&error),
            "321a00100000000000000000100000000585000\
                   40a000001"
        );
        assert_eq!(decode(&error), Ok(Packet::ErrorIndication { teid: 5 }));
        let echo = b"\x32\x01\x00\x04\x00\x00\x00\x00\x00\x09\x00\x00";
        assert_eq!(decode(echo), Ok(Packet::EchoRequest { sequence: 9 }));
        let end = b"\x30\xfe\x00\x00\x00\x00\x00\x09";
        assert_eq!(decode(end), Ok(Packet::EndMarker { teid: 9 }));
        assert_eq!(decode(b"\x30\x1f\0\0\0\0\0\0"), Ok(Packet::Other(31)));
        assert_eq!(decode(b"\x48\x01\0\x04\0\0\0\0"), Err(Malformed::Version(0x48)));
        assert_eq!(decode(b"\x30\x1a\0\0\0\0\0\0"), Err(Malformed::NoTeid));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_bytes_after_a_true_start_too(flags in 0x30..=0x37_u8, bytes in proptest::collection::vec(any::<u8>(), 7..100)) {
            let _ = decode(&[&[flags], bytes.as_slice()].concat());
        }

        #[test]
        fn a_packet_comes_back_as_it_went(teid: u32, inner in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let bytes = [&header(teid, inner.len()).unwrap()[..], &inner].concat();
            prop_assert_eq!(decode(&bytes), Ok(Packet::User { teid, inner: &inner }));
        }
    }
}
