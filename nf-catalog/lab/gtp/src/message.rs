//! Messages of GTPv2-C (TS 29.274, 5).

use crate::element::{self, Element, MalformedElement};

/// Longest message that is taken: what fits into one datagram of a lab's links.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Message types (TS 29.274, table 6.1-1).
pub mod kind {
    /// Is anybody there?
    pub const ECHO_REQUEST: u8 = 1;
    /// Yes.
    pub const ECHO_RESPONSE: u8 = 2;
    /// A session, that is a default bearer.
    pub const CREATE_SESSION_REQUEST: u8 = 32;
    /// Its answer.
    pub const CREATE_SESSION_RESPONSE: u8 = 33;
    /// Where the eNB's end of a bearer is.
    pub const MODIFY_BEARER_REQUEST: u8 = 34;
    /// Its answer.
    pub const MODIFY_BEARER_RESPONSE: u8 = 35;
    /// The end of a session.
    pub const DELETE_SESSION_REQUEST: u8 = 36;
    /// Its answer.
    pub const DELETE_SESSION_RESPONSE: u8 = 37;
    /// A dedicated bearer, which the network asks for.
    pub const CREATE_BEARER_REQUEST: u8 = 95;
    /// Its answer.
    pub const CREATE_BEARER_RESPONSE: u8 = 96;
    /// The device is idle.
    pub const RELEASE_ACCESS_BEARERS_REQUEST: u8 = 170;
    /// Its answer.
    pub const RELEASE_ACCESS_BEARERS_RESPONSE: u8 = 171;
    /// Packets have come for a device that is idle.
    pub const DOWNLINK_DATA_NOTIFICATION: u8 = 176;
    /// Its answer.
    pub const DOWNLINK_DATA_NOTIFICATION_ACKNOWLEDGE: u8 = 177;
}

const VERSION: u8 = 2;
const PIGGYBACK_FLAG: u8 = 0x10;
const TEID_FLAG: u8 = 0x08;
/// Bytes that the length of a message does not count.
const UNCOUNTED_BYTES: usize = 4;
/// Sequence numbers have 24 bits.
pub(crate) const SEQUENCE_MASK: u32 = 0x00ff_ffff;

/// A request or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: u8,
    /// The receiver's name for what the message is about; 0 if the receiver has given none yet, absent in an Echo.
    pub teid: Option<u32>,
    /// Which answer belongs to which request.
    pub sequence: u32,
    /// What it says.
    pub elements: Vec<Element>,
}

/// What is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header, or than its own length.
    #[error("a GTPv2-C message of {0} bytes is cut off")]
    CutOff(usize),
    /// Longer than anything that is taken.
    #[error("a GTPv2-C message cannot be {0} bytes long")]
    Length(usize),
    /// Another protocol, or GTPv1.
    #[error("version {0} of GTP is not spoken here")]
    Version(u8),
    /// What it says.
    #[error("a GTPv2-C message's elements cannot be read")]
    Elements(#[source] MalformedElement),
}

impl Message {
    /// A message without a sequence number yet.
    pub fn new(kind: u8, teid: u32, elements: Vec<Element>) -> Self {
        Self {
            kind,
            teid: Some(teid),
            sequence: 0,
            elements,
        }
    }

    /// As on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let flag = if self.teid.is_some() { TEID_FLAG } else { 0 };
        let mut bytes = vec![VERSION << 5 | flag, self.kind, 0, 0];
        if let Some(teid) = self.teid {
            bytes.extend(teid.to_be_bytes());
        }
        let [_, sequence @ ..] = (self.sequence & SEQUENCE_MASK).to_be_bytes();
        bytes.extend(sequence);
        bytes.push(0);
        element::encode(&self.elements, &mut bytes);
        let length = u16::try_from(bytes.len() - UNCOUNTED_BYTES).expect("messages are far below 64 KiB");
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    /// Reads a datagram. A message that rides behind the first (6.2, piggybacking) is left out: its sender repeats it by itself.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let cut_off = || Malformed::CutOff(datagram.len());
        if datagram.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed::Length(datagram.len()));
        }
        let ([flags, kind, high, low], after) = datagram.split_first_chunk::<4>().ok_or_else(cut_off)?;
        if flags >> 5 != VERSION {
            return Err(Malformed::Version(flags >> 5));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let whole = length == after.len() || flags & PIGGYBACK_FLAG != 0;
        let body = after.get(..length).filter(|_| whole).ok_or_else(cut_off)?;
        let (teid, body) = if flags & TEID_FLAG == 0 {
            (None, body)
        } else {
            let (teid, body) = body.split_first_chunk::<4>().ok_or_else(cut_off)?;
            (Some(u32::from_be_bytes(*teid)), body)
        };
        let ([a, b, c, _], body) = body.split_first_chunk::<4>().ok_or_else(cut_off)?;
        Ok(Self {
            kind: *kind,
            teid,
            sequence: u32::from_be_bytes([0, *a, *b, *c]),
            elements: element::decode(body).map_err(Malformed::Elements)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_as_the_standard_draws_it() {
        let message = Message {
            kind: kind::DELETE_SESSION_REQUEST,
            teid: Some(0x0102_0304),
            sequence: 0x0a_0b0c,
            elements: vec![Element::new(element::kind::EBI, [5])],
        };
        let bytes = message.encode();
        assert_eq!(hex::encode(&bytes), "4824000d010203040a0b0c004900010005");
        assert_eq!(Message::decode(&bytes), Ok(message));
    }

    #[test]
    fn an_echo_has_no_teid() {
        let echo = Message::decode(b"\x40\x01\x00\x09\x00\x00\x07\x00\x03\x00\x01\x00\x2a").unwrap();
        assert_eq!(
            (echo.kind, echo.teid, echo.sequence),
            (kind::ECHO_REQUEST, None, 7)
        );
        assert_eq!(echo.elements[0].value, [42]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bytes = Message::new(kind::MODIFY_BEARER_REQUEST, 1, vec![]).encode();
        assert_eq!(Message::decode(&bytes[..11]), Err(Malformed::CutOff(11)));
        assert_eq!(Message::decode(b"\x32\xff\0\0"), Err(Malformed::Version(1)));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Message::decode(&longer), Err(Malformed::CutOff(13)));
        let long = vec![0x48; MAX_MESSAGE_BYTES + 1];
        assert_eq!(Message::decode(&long), Err(Malformed::Length(4097)));
    }

    #[test]
    fn of_two_in_one_datagram_the_first_is_taken() {
        let mut bytes = Message::new(kind::CREATE_SESSION_RESPONSE, 9, vec![]).encode();
        bytes[0] |= PIGGYBACK_FLAG;
        bytes.extend(Message::new(kind::CREATE_BEARER_REQUEST, 9, vec![]).encode());
        assert_eq!(
            Message::decode(&bytes).map(|message| message.kind),
            Ok(kind::CREATE_SESSION_RESPONSE)
        );
    }

    fn element() -> impl Strategy<Value = Element> {
        let value = proptest::collection::vec(any::<u8>(), 0..60);
        (any::<u8>(), 0..16_u8, value).prop_map(|(kind, instance, value)| Element {
            kind,
            instance,
            value,
        })
    }

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_went(
            kind: u8,
            teid: Option<u32>,
            sequence in 0..=SEQUENCE_MASK,
            elements in proptest::collection::vec(element(), 0..20),
        ) {
            let message = Message { kind, teid, sequence, elements };
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }

        #[test]
        fn damaged_bytes_too(at in 0..40_usize, byte: u8, elements in proptest::collection::vec(element(), 1..5)) {
            let mut bytes = Message::new(kind::CREATE_SESSION_RESPONSE, 1, elements).encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(message) = Message::decode(&bytes) {
                for element in &message.elements {
                    let _ = element.as_group();
                }
                let _ = crate::s11::created(&message);
            }
        }
    }
}
