//! The audio of a call at one end: what is sent each 20 ms, and what arrives.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddrV4;

use crate::rtp::{Packet, Received};

/// Between two packets, in milliseconds.
const PACKET_MS: u64 = 20;

/// See the module.
#[derive(Clone, Debug)]
pub struct Leg {
    pub(super) remote: SocketAddrV4,
    out: u64,
    incoming: u64,
    next_ms: Option<u64>,
    sent: u64,
    received: Received,
}

/// What became of a leg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegCount {
    /// The stream that was sent, and its packets.
    pub sent: (u64, u64),
    /// The stream that came, and what of it.
    pub received: (u64, Received),
    /// The call went on when the device was switched off.
    pub is_open: bool,
}

/// The streams of a call have numbers that both ends know: by its Call-ID and who sends.
fn stream(call_id: &str, by_caller: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    (call_id, by_caller).hash(&mut hasher);
    hasher.finish()
}

impl Leg {
    /// One that takes audio, and neither sends nor expects any yet.
    pub(super) fn new(call_id: &str, is_caller: bool, remote: SocketAddrV4, late_ms: u64) -> Self {
        Self {
            remote,
            out: stream(call_id, is_caller),
            incoming: stream(call_id, !is_caller),
            next_ms: None,
            sent: 0,
            received: Received::new(late_ms),
        }
    }

    /// Sends from now on, or no longer.
    pub(super) fn send(&mut self, on: bool, now_ms: u64) {
        self.next_ms = match (on, self.next_ms) {
            (true, None) => Some(now_ms),
            (true, known) => known,
            (false, _) => None,
        };
    }

    /// The other end is silent from now on, and may be; or is heard again.
    pub(super) fn expect(&mut self, on: bool, now_ms: u64) {
        match on {
            true => self.received.begin(now_ms),
            false => self.received.pause(),
        }
    }

    pub(super) fn wake_ms(&self) -> Option<u64> {
        self.next_ms
    }

    /// The packets that are due.
    pub(super) fn due(&mut self, now_ms: u64, out: &mut Vec<(SocketAddrV4, Vec<u8>)>) {
        while let Some(next_ms) = self.next_ms.filter(|next_ms| *next_ms <= now_ms) {
            let packet = Packet {
                stream: self.out,
                number: self.sent,
                sent_ms: now_ms,
            };
            out.push((self.remote, packet.encode()));
            self.sent += 1;
            self.next_ms = Some(next_ms + PACKET_MS);
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8], now_ms: u64) {
        self.received.take(self.incoming, bytes, now_ms);
    }

    /// The call is over, or goes on and nobody will end it; silence counts up to then.
    pub(super) fn end(mut self, silent_ms: u64, is_open: bool) -> LegCount {
        self.received.end(silent_ms);
        LegCount {
            sent: (self.out, self.sent),
            received: (self.incoming, self.received),
            is_open,
        }
    }
}
