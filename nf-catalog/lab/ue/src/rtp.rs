//! RTP (RFC 3550) as a judge counts it: each packet carries whose it is and when it was sent, so that one that is lost, doubled, late,
//! or another's is told apart.

use std::collections::BTreeMap;

/// Bytes of a header without extensions.
const HEADER_BYTES: usize = 12;
/// What is behind it: stream, number, and time of sending.
const PAYLOAD_BYTES: usize = 24;
/// Static payload type of PCMU; 20 ms of it are 160 bytes.
const PCMU: u8 = 0;
const AUDIO_BYTES: usize = 160;
/// Gaps of so many milliseconds and above are counted together.
const LONG_GAP_MS: u64 = 10_000;
/// Samples in 20 ms at 8 kHz.
const SAMPLES: u32 = 160;

/// A packet of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whose: the same number at both ends of a leg, and nowhere else.
    pub stream: u64,
    /// From 0.
    pub number: u64,
    /// By the sender's clock, in milliseconds.
    pub sent_ms: u64,
}

impl Packet {
    /// As on the wire: sequence number, timestamp and source follow from what it says.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0x80, PCMU];
        // The low bits are what RTP has room for.
        bytes.extend((self.number as u16).to_be_bytes());
        bytes.extend((self.number as u32).wrapping_mul(SAMPLES).to_be_bytes());
        bytes.extend((self.stream as u32).to_be_bytes());
        for number in [self.stream, self.number, self.sent_ms] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.resize(HEADER_BYTES + AUDIO_BYTES, 0xff);
        bytes
    }

    /// From the wire; `None` if it is no packet of such a stream, or its parts contradict each other.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (payload, _) = payload.split_first_chunk::<PAYLOAD_BYTES>()?;
        let part = |at: usize| payload[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        let packet = Self {
            stream: part(0)?,
            number: part(8)?,
            sent_ms: part(16)?,
        };
        // What a relay may change is only the source.
        let expected = packet.encode();
        (header[..8] == expected[..8]).then_some(packet)
    }
}

/// What arrived of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// By number.
    seen: Vec<u64>,
    /// Different packets.
    pub packets: u64,
    /// Packets that came once more.
    pub doubled: u64,
    /// Packets that came after one with a higher number.
    pub reordered: u64,
    /// Packets of another stream, or none at all.
    pub foreign: u64,
    highest: Option<u64>,
    /// When the last came, while silence counts.
    last_ms: Option<u64>,
    /// Packets that were longer on their way than `late_ms`.
    pub late: u64,
    late_ms: u64,
    /// Longest time without a packet, in milliseconds.
    pub longest_gap_ms: u64,
    /// How often a packet came so many milliseconds after the one before.
    pub gaps_ms: BTreeMap<u64, u64>,
    /// Longest way of a packet where both ends have one clock, in milliseconds.
    pub slowest_ms: u64,
}

impl Received {
    /// Nothing yet; what takes longer than that is late.
    pub fn new(late_ms: u64) -> Self {
        Self {
            late_ms,
            ..Self::default()
        }
    }

    /// The time from which silence counts: when the other side was told to begin.
    pub fn begin(&mut self, now_ms: u64) {
        self.last_ms.get_or_insert(now_ms);
    }

    /// A datagram for this stream.
    pub fn take(&mut self, stream: u64, bytes: &[u8], now_ms: u64) {
        let Some(packet) = Packet::decode(bytes).filter(|packet| packet.stream == stream) else {
            self.foreign += 1;
            return;
        };
        // One that was under way when a hold began ends no pause.
        if let Some(last_ms) = &mut self.last_ms {
            let gap_ms = now_ms.saturating_sub(*last_ms);
            self.longest_gap_ms = self.longest_gap_ms.max(gap_ms);
            *self.gaps_ms.entry(gap_ms.min(LONG_GAP_MS)).or_default() += 1;
            *last_ms = now_ms;
        }
        let took_ms = now_ms.saturating_sub(packet.sent_ms);
        self.slowest_ms = self.slowest_ms.max(took_ms);
        let (word, bit) = ((packet.number / 64) as usize, 1 << (packet.number % 64));
        // A stream of hours has some hundred thousand packets.
        if word > 1 << 20 {
            self.foreign += 1;
            return;
        }
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.doubled += 1;
            return;
        }
        self.seen[word] |= bit;
        self.packets += 1;
        self.late += u64::from(took_ms > self.late_ms);
        if self.highest.is_some_and(|highest| packet.number < highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(packet.number));
    }

    /// Silence does not count until it begins again.
    pub fn pause(&mut self) {
        self.last_ms = None;
    }

    /// The stream has ended: silence at its end counts.
    pub fn end(&mut self, now_ms: u64) {
        if let Some(last_ms) = self.last_ms {
            self.longest_gap_ms = self.longest_gap_ms.max(now_ms.saturating_sub(last_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: u64 = 0x0123_4567_89ab_cdef;

    fn packet(number: u64) -> Vec<u8> {
        let sent_ms = number * 20;
        Packet {
            stream: STREAM,
            number,
            sent_ms,
        }
        .encode()
    }

    fn received(numbers: &[u64]) -> Received {
        let mut received = Received::new(100);
        received.begin(0);
        for (nth, number) in (0..).zip(numbers) {
            received.take(STREAM, &packet(*number), nth * 20);
        }
        received
    }

    #[test]
    fn a_packet_is_as_rtp_has_it() {
        let bytes = packet(65_537);
        assert_eq!((bytes.len(), &bytes[..4]), (172, &b"\x80\0\0\x01"[..]));
        assert_eq!(Packet::decode(&bytes).map(|p| p.number), Some(65_537));
        let mut other = bytes.clone();
        other[8] ^= 1;
        assert!(Packet::decode(&other).is_some(), "a relay has its own source");
        other[3] ^= 1;
        assert_eq!(Packet::decode(&other), None);
        assert_eq!(Packet::decode(&bytes[..30]), None);
    }

    #[test]
    fn each_fault_is_counted_for_what_it_is() {
        let mut clean = received(&[0, 1, 2, 3]);
        clean.end(80);
        assert_eq!((clean.packets, clean.longest_gap_ms), (4, 20));
        assert_eq!((clean.doubled, clean.reordered, clean.foreign), (0, 0, 0));
        assert_eq!(received(&[0, 1, 3]).packets, 3);
        let doubled = received(&[0, 1, 1, 2]);
        assert_eq!((doubled.packets, doubled.doubled), (3, 1));
        let reordered = received(&[0, 2, 1, 3]);
        assert_eq!((reordered.packets, reordered.reordered), (4, 1));
        let mut late = received(&[0, 1]);
        late.take(STREAM, &packet(2), 140);
        assert_eq!(late.late, 0);
        late.take(STREAM, &packet(3), 161);
        assert_eq!((late.packets, late.late, late.slowest_ms), (4, 1, 101));
        let mut foreign = received(&[0]);
        foreign.take(STREAM + 1, &packet(1), 40);
        assert_eq!((foreign.packets, foreign.foreign), (1, 1));
    }

    #[test]
    fn silence_counts_at_the_start_in_between_and_at_the_end() {
        let mut received = Received::default();
        received.begin(0);
        received.take(STREAM, &packet(0), 300);
        assert_eq!(received.longest_gap_ms, 300);
        received.take(STREAM, &packet(1), 320);
        received.end(1320);
        assert_eq!(received.longest_gap_ms, 1000);
        received.pause();
        received.take(STREAM, &packet(2), 1330);
        received.begin(9000);
        received.take(STREAM, &packet(3), 9020);
        assert_eq!(received.longest_gap_ms, 1000, "a hold is no silence");
    }
}
