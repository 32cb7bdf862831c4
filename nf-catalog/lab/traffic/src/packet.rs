//! What is in a packet: of which run and device it is, which number it has, when it went, and bytes that only it can have. No I/O.

/// Bytes of IPv4 and UDP before it.
pub const HEADERS_BYTES: usize = 28;
/// Bytes before the pattern.
pub const LEAST_BYTES: usize = 36;
/// Most, so that it goes in one datagram with room to spare.
pub const MOST_BYTES: usize = 8900;

const MAGIC: [u8; 4] = *b"LTRF";
const CHECKSUM_AT: usize = 32;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Which run: packets of another one are not this one's.
    pub run: u64,
    /// Which device, in the order of the file.
    pub device: u32,
    /// Its how manieth, from 0 on.
    pub sequence: u64,
    /// Since the beginning of the run.
    pub sent_us: u64,
}

/// What is no packet, or not as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet is not as any was sent")]
pub struct Corrupted;

impl Packet {
    /// Fills a buffer with it, whose length is the packet's.
    pub fn write(&self, out: &mut [u8]) {
        let mut header = [0; LEAST_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4..12].copy_from_slice(&self.run.to_be_bytes());
        header[12..16].copy_from_slice(&self.device.to_be_bytes());
        header[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        header[24..32].copy_from_slice(&self.sent_us.to_be_bytes());
        let (head, pattern) = out.split_at_mut(LEAST_BYTES);
        head.copy_from_slice(&header);
        for (byte, own) in pattern.iter_mut().zip(self.pattern()) {
            *byte = own;
        }
        let checksum = checksum(out);
        out[CHECKSUM_AT..LEAST_BYTES].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Reads one, and checks every byte of it.
    pub fn read(bytes: &[u8]) -> Result<Self, Corrupted> {
        let (header, pattern) = bytes.split_at_checked(LEAST_BYTES).ok_or(Corrupted)?;
        let number = |at: usize| {
            header[at..at + 8]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let told = u32::from_be_bytes([header[32], header[33], header[34], header[35]]);
        if header[..4] != MAGIC || checksum(bytes) != told {
            return Err(Corrupted);
        }
        let packet = Self {
            run: number(4),
            device: u32::from_be_bytes([header[12], header[13], header[14], header[15]]),
            sequence: number(16),
            sent_us: number(24),
        };
        if pattern
            .iter()
            .zip(packet.pattern())
            .any(|(byte, own)| *byte != own)
        {
            return Err(Corrupted);
        }
        Ok(packet)
    }

    /// Endless bytes (xorshift, Marsaglia 2003) from device and number.
    fn pattern(&self) -> impl Iterator<Item = u8> {
        let seed = self.run ^ u64::from(self.device).rotate_left(40) ^ self.sequence;
        let mut state = seed | 1;
        std::iter::from_fn(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Some(state.to_le_bytes()[3])
        })
    }
}

/// FNV-1a of 32 bits over all but the checksum itself.
fn checksum(bytes: &[u8]) -> u32 {
    let (before, rest) = bytes.split_at(CHECKSUM_AT);
    let after = &rest[LEAST_BYTES - CHECKSUM_AT..];
    before.iter().chain(after).fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_packet_comes_back_as_it_went(run: u64, device: u32, sequence: u64, sent_us: u64, size in LEAST_BYTES..1500) {
            let packet = Packet { run, device, sequence, sent_us };
            let mut bytes = vec![0; size];
            packet.write(&mut bytes);
            prop_assert_eq!(Packet::read(&bytes), Ok(packet));
            let mut longer = bytes.clone();
            longer.push(0);
            prop_assert_eq!(Packet::read(&longer), Err(Corrupted));
        }

        #[test]
        fn a_bit_that_flips_is_seen(at in 0..100_usize, bit in 0..8_u32) {
            let packet = Packet { run: 1, device: 2, sequence: 3, sent_us: 4 };
            let mut bytes = vec![0; 100];
            packet.write(&mut bytes);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Packet::read(&bytes), Err(Corrupted));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Packet::read(&bytes);
        }
    }
}
