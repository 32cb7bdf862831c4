//! As much of SPDY/3.1 as `kubectl port-forward` speaks: streams with headers, data, pings. Pure: bytes in, frames out.
//!
//! No windows: the peer, like Kubernetes' own, neither gives nor heeds them; whoever reads slowly holds up the connection.
//! Source: draft-mbelshe-httpbis-spdy-00, and the changes of 3.1.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};

/// What header blocks are compressed against (section 2.6.10.1 of the draft).
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
/// Largest frame that is taken, in bytes: clients send data in pieces of 32 KiB.
const MAX_FRAME: usize = 1 << 20;
/// Most bytes of headers of one stream.
const MAX_HEADERS: usize = 16 << 10;
/// Bit of the second byte of a zlib stream: four bytes follow that name the dictionary (RFC 1950, 2.2).
const HAS_DICTIONARY: u8 = 0x20;

/// A frame from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A new stream. Names are in lower case.
    Open {
        /// Its number.
        stream: u32,
        /// What it is.
        headers: BTreeMap<String, String>,
    },
    /// Data of a stream.
    Data {
        /// Its number.
        stream: u32,
        /// May be empty.
        data: Bytes,
        /// No more of it.
        last: bool,
    },
    /// Nobody wants the stream any more.
    Reset(u32),
    /// To be sent back.
    Ping(u32),
}

/// What is no SPDY, or too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not proper SPDY/3.1: {0}")]
pub(super) struct SpdyError(&'static str);

/// Bytes to frames.
#[derive(Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    /// `None` before the first header block: all of a connection are one zlib stream.
    inflate: Option<Decompress>,
}

impl Decoder {
    /// More bytes have come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame that is whole; those that mean nothing here are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        while self.buffer.len() >= 8 {
            let length = u32::from_be_bytes([0, self.buffer[5], self.buffer[6], self.buffer[7]]) as usize;
            if length > MAX_FRAME {
                return Err(SpdyError("a frame is too large"));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            let head = self.buffer.split_to(8);
            let body = self.buffer.split_to(length).freeze();
            if let Some(frame) = self.frame(&head, body)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn frame(&mut self, head: &[u8], mut body: Bytes) -> Result<Option<Frame>, SpdyError> {
        let first = u16::from_be_bytes([head[0], head[1]]);
        let last = head[4] & FIN != 0;
        if first & CONTROL == 0 {
            let stream = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let data = body;
            return Ok(Some(Frame::Data { stream, data, last }));
        }
        if first != CONTROL | VERSION {
            return Err(SpdyError("another version"));
        }
        match u16::from_be_bytes([head[2], head[3]]) {
            SYN_STREAM if body.len() >= 10 => {
                let stream = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                let headers = self.headers(&body)?;
                Ok(Some(Frame::Open { stream, headers }))
            }
            RST_STREAM if body.len() >= 8 => Ok(Some(Frame::Reset(body.get_u32() & 0x7fff_ffff))),
            PING if body.len() >= 4 => Ok(Some(Frame::Ping(body.get_u32()))),
            SYN_STREAM | RST_STREAM | PING => Err(SpdyError("a frame is too short")),
            _ => Ok(None),
        }
    }

    fn headers(&mut self, mut packed: &[u8]) -> Result<BTreeMap<String, String>, SpdyError> {
        let broken = SpdyError("headers cannot be unpacked");
        let inflate = match &mut self.inflate {
            Some(inflate) => inflate,
            None => {
                let flags = *packed.get(1).ok_or(broken)?;
                let start = if flags & HAS_DICTIONARY == 0 { 2 } else { 6 };
                packed = packed.get(start..).ok_or(broken)?;
                self.inflate.insert(primed().ok_or(broken)?)
            }
        };
        // One byte more than is taken, so that what fits exactly is told from what does not.
        let mut plain = vec![0; MAX_HEADERS + 1];
        let before = (inflate.total_in(), inflate.total_out());
        inflate
            .decompress(packed, &mut plain, FlushDecompress::Sync)
            .map_err(|_| broken)?;
        let made = usize::try_from(inflate.total_out() - before.1).map_err(|_| broken)?;
        if made > MAX_HEADERS || inflate.total_in() - before.0 < packed.len() as u64 {
            return Err(SpdyError("headers are too large"));
        }
        pairs(&plain[..made]).ok_or(broken)
    }
}

/// A decompressor that has just read the dictionary: as a stored block (RFC 1951, 3.2.4).
fn primed() -> Option<Decompress> {
    let length = u16::try_from(DICTIONARY.len()).ok()?;
    let mut block = vec![0];
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(&(!length).to_le_bytes());
    block.extend_from_slice(DICTIONARY);
    let mut inflate = Decompress::new(false);
    let mut plain = vec![0; DICTIONARY.len()];
    inflate
        .decompress(&block, &mut plain, FlushDecompress::Sync)
        .ok()?;
    (plain == DICTIONARY).then_some(inflate)
}

fn pairs(mut plain: &[u8]) -> Option<BTreeMap<String, String>> {
    let count = plain.try_get_u32().ok()?;
    let mut headers = BTreeMap::new();
    for _ in 0..count {
        let mut text = || {
            let length = plain.try_get_u32().ok()? as usize;
            let (text, rest) = plain.split_at_checked(length)?;
            plain = rest;
            String::from_utf8(text.to_vec()).ok()
        };
        let (name, value) = (text()?, text()?);
        headers.insert(name.to_ascii_lowercase(), value);
    }
    Some(headers)
}

/// Says that streams are taken.
#[derive(Default)]
pub(super) struct Replies {
    begun: bool,
}

impl Replies {
    /// Without headers: in the one zlib stream of a connection, a stored block of a zero, and an empty one, at which a reader
    /// gives out what it has (zlib's sync flush).
    pub(super) fn to(&mut self, stream: u32) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        if !std::mem::replace(&mut self.begun, true) {
            body.put_slice(&[0x78, 0x01]);
        }
        body.put_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        control(SYN_REPLY, &body)
    }
}

/// Data of a stream; the pieces that come from a pod are small.
pub(super) fn data(stream: u32, data: &[u8], last: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + data.len());
    frame.put_u32(stream);
    put_length(&mut frame, if last { FIN } else { 0 }, data.len());
    frame.extend_from_slice(data);
    frame.freeze()
}

/// The answer to a ping.
pub(super) fn pong(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_u16(CONTROL | VERSION);
    frame.put_u16(kind);
    put_length(&mut frame, 0, body.len());
    frame.extend_from_slice(body);
    frame.freeze()
}

/// Flags and the 24 bits of the length.
fn put_length(frame: &mut BytesMut, flags: u8, length: usize) {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    frame.extend_from_slice(&[flags, a, b, c]);
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// Headers of two streams, packed as zlib does with the dictionary:
    /// `streamtype: error, port: 80, requestid: 0` and `streamtype: data, port: 80, requestid: 0`.
    const PACKED: [&str; 2] = [
        "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc64610024398b209198094adc8c0600000000ffff",
        "c2aa15540a2512d209000000ffff",
    ];

    fn open(stream: u32, packed: &[u8]) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.put_u32(0);
        body.put_u16(0);
        body.extend_from_slice(packed);
        control(SYN_STREAM, &body)
    }

    #[test]
    fn streams_are_read_however_the_bytes_are_cut() {
        let mut wire = Vec::new();
        for (stream, packed) in [1, 3].into_iter().zip(PACKED) {
            wire.extend(open(stream, &hex::decode(packed).unwrap()));
        }
        wire.extend(data(3, b"hello", false));
        wire.extend(pong(7));
        wire.extend(data(3, b"", true));
        let opened = |stream, kind: &str| {
            let pairs = [("streamtype", kind), ("port", "80"), ("requestid", "0")];
            let headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            Frame::Open {
                stream,
                headers: headers.into(),
            }
        };
        let sent = |bytes: &'static [u8], last| Frame::Data {
            stream: 3,
            data: Bytes::from_static(bytes),
            last,
        };
        let expected = [
            opened(1, "error"),
            opened(3, "data"),
            sent(b"hello", false),
            Frame::Ping(7),
            sent(b"", true),
        ];
        for size in [1, 3, wire.len()] {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for piece in wire.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn replies_are_one_zlib_stream() {
        let mut replies = Replies::default();
        let mut inflate = Decompress::new(true);
        for stream in [1, 3, 5] {
            let reply = replies.to(stream);
            assert_eq!(reply[8..12], [0, 0, 0, stream as u8]);
            let mut plain = vec![9; 8];
            let before = inflate.total_out();
            inflate
                .decompress(&reply[12..], &mut plain, FlushDecompress::Sync)
                .unwrap();
            assert_eq!(inflate.total_out() - before, 4);
            assert_eq!(plain[..4], [0; 4]);
        }
    }

    #[test]
    fn what_is_no_spdy_or_too_large_is_an_error() {
        let refused = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next().unwrap_err().to_string()
        };
        assert!(refused(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).contains("too large"));
        assert!(refused(&[0x80, 2, 0, 6, 0, 0, 0, 0]).contains("version"));
        assert!(refused(&[0x80, 3, 0, 6, 0, 0, 0, 0]).contains("short"));
        assert!(refused(&open(1, &[0xff; 40])).contains("unpacked"));
        assert!(refused(&open(1, &[0x78])).contains("unpacked"));
        // A little that unpacks to a lot.
        let mut packed = vec![0; 4096];
        let mut deflate = Compress::new(Compression::fast(), true);
        deflate
            .compress(&vec![b'x'; 1 << 20], &mut packed, FlushCompress::Sync)
            .unwrap();
        packed.truncate(usize::try_from(deflate.total_out()).unwrap());
        assert!(refused(&open(1, &packed)).contains("too large"));
    }
}
