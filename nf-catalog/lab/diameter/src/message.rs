//! Messages (RFC 6733, section 3).

use crate::avp::{self, Avp, AvpCode, Avps, MalformedAvp};
use crate::codes;

/// Longest message that is taken, in bytes. Cx carries user profiles, nothing larger.
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;

/// Longest name of a session, a node or a server that is kept, in bytes. RFC 6733 has no bound.
pub const MAX_NAME_BYTES: usize = 512;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 20;
const VERSION: u8 = 1;
const REQUEST_FLAG: u8 = 0x80;
const PROXIABLE_FLAG: u8 = 0x40;
const ERROR_FLAG: u8 = 0x20;

/// What a message is about, and which answer belongs to which request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The R bit.
    pub request: bool,
    /// The P bit: relays may pass it on.
    pub proxiable: bool,
    /// The E bit: a protocol error.
    pub error: bool,
    /// Command Code.
    pub command: u32,
    /// Application-ID.
    pub application: u32,
    /// Of this connection.
    pub hop_by_hop: u32,
    /// Of who has sent the request first.
    pub end_to_end: u32,
}

/// A request or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// See the type.
    pub header: Header,
    /// Its attributes.
    pub avps: Vec<Avp>,
}

/// What is no message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header, or than its own length.
    #[error("a Diameter message of {0} bytes is cut off")]
    CutOff(usize),
    /// Longer than anything that is taken, or no multiple of four.
    #[error("a Diameter message cannot be {0} bytes long")]
    Length(usize),
    /// Something else than Diameter.
    #[error("version {0} of Diameter does not exist")]
    Version(u8),
    /// Its attributes.
    #[error("a Diameter message's attributes cannot be read")]
    Avps(#[source] MalformedAvp),
}

impl Message {
    /// A request that relays may pass on.
    pub fn request(application: u32, command: u32, avps: Vec<Avp>) -> Self {
        Self {
            header: Header {
                request: true,
                proxiable: true,
                command,
                application,
                ..Header::default()
            },
            avps,
        }
    }

    /// The answer to this request: its numbers, its Session-Id, and what relays have put into it for themselves (section 6.2).
    pub fn answer(&self, avps: Vec<Avp>) -> Self {
        let own = [codes::avp::SESSION_ID, codes::avp::PROXY_INFO];
        let copied = self.avps.iter().filter(|avp| own.contains(&avp.code));
        Self {
            header: Header {
                request: false,
                error: false,
                ..self.header
            },
            avps: copied.cloned().chain(avps).collect(),
        }
    }

    /// The answer where this request is of no command that is known.
    pub fn unknown(&self, identity: &crate::Identity) -> Self {
        let mut answer = self.answer(identity.coming_to(codes::result::COMMAND_UNSUPPORTED));
        answer.header.error = true;
        answer
    }

    /// Result-Code, or the code within Experimental-Result.
    pub fn result(&self) -> Option<u32> {
        self.avps.number(codes::avp::RESULT_CODE).or_else(|| {
            let group = self.avps.find(codes::avp::EXPERIMENTAL_RESULT)?.as_group().ok()?;
            group.number(codes::avp::EXPERIMENTAL_RESULT_CODE)
        })
    }

    /// As on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let header = &self.header;
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = flag(header.request, REQUEST_FLAG)
            | flag(header.proxiable, PROXIABLE_FLAG)
            | flag(header.error, ERROR_FLAG);
        let mut bytes = vec![VERSION, 0, 0, 0, flags];
        bytes.extend(&header.command.to_be_bytes()[1..]);
        for number in [header.application, header.hop_by_hop, header.end_to_end] {
            bytes.extend(number.to_be_bytes());
        }
        avp::encode(&self.avps, &mut bytes);
        let length = u32::try_from(bytes.len()).expect("messages are far below 4 GiB");
        bytes[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
        bytes
    }

    /// From the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let cut_off = || Malformed::CutOff(bytes.len());
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(cut_off)?;
        let length = length_of([header[0], header[1], header[2], header[3]])?;
        let body = body.get(..length - HEADER_BYTES).ok_or_else(cut_off)?;
        let number =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let flags = header[4];
        Ok(Self {
            header: Header {
                request: flags & REQUEST_FLAG != 0,
                proxiable: flags & PROXIABLE_FLAG != 0,
                error: flags & ERROR_FLAG != 0,
                command: number(4) & 0x00ff_ffff,
                application: number(8),
                hop_by_hop: number(12),
                end_to_end: number(16),
            },
            avps: avp::decode(body).map_err(Malformed::Avps)?,
        })
    }

    /// The first attribute of this code as text, empty if there is none: for logs.
    pub fn text(&self, code: AvpCode) -> &str {
        self.avps.text(code).unwrap_or_default()
    }
}

/// The length of a message by its first four bytes.
pub(crate) fn length_of(start: [u8; 4]) -> Result<usize, Malformed> {
    let [version, length @ ..] = start;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
    if !(HEADER_BYTES..=MAX_MESSAGE_BYTES).contains(&length) || !length.is_multiple_of(4) {
        return Err(Malformed::Length(length));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Message {
        let avps = vec![
            Avp::text(codes::avp::SESSION_ID, "s;1;2"),
            Avp::text(codes::avp::ORIGIN_HOST, "a.lab"),
            Avp::octets(codes::avp::PROXY_INFO, *b"relay"),
        ];
        let mut message = Message::request(codes::application::CX, codes::command::USER_AUTHORIZATION, avps);
        message.header.hop_by_hop = 7;
        message.header.end_to_end = 8;
        message
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        let bytes = request().encode();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[4..8], b"\xc0\0\x01\x2c", "request, proxiable, 300");
        assert_eq!(Message::decode(&bytes), Ok(request()));
    }

    #[test]
    fn an_answer_carries_what_belongs_to_the_way_back() {
        let answer = request().answer(vec![Avp::number(codes::avp::RESULT_CODE, 2001)]);
        assert!(!answer.header.request && answer.header.proxiable);
        assert_eq!((answer.header.hop_by_hop, answer.header.end_to_end), (7, 8));
        let codes: Vec<u32> = answer.avps.iter().map(|avp| avp.code.number).collect();
        assert_eq!(codes, [263, 284, 268]);
        assert_eq!(answer.result(), Some(2001));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bytes = request().encode();
        assert_eq!(Message::decode(&bytes[..19]), Err(Malformed::CutOff(19)));
        assert_eq!(Message::decode(&bytes[..28]), Err(Malformed::CutOff(28)));
        assert_eq!(length_of([2, 0, 0, 20]), Err(Malformed::Version(2)));
        assert_eq!(length_of([1, 0, 0, 16]), Err(Malformed::Length(16)));
        assert_eq!(length_of([1, 255, 255, 252]), Err(Malformed::Length(0xff_fffc)));
    }
}
