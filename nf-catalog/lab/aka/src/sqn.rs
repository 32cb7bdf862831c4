//! Sequence numbers (TS 33.102, Annex C): the upper 43 bits count, the lower five are an index.

/// Bits of the index.
const INDEX_BITS: u32 = 5;
/// 48 bits.
const MASK: u64 = (1 << 48) - 1;

/// A sequence number of 48 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sqn(u64);

impl Sqn {
    /// The lower 48 bits.
    pub fn new(number: u64) -> Self {
        Self(number & MASK)
    }

    /// As a number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The next one with the same index.
    #[must_use]
    pub fn next(self) -> Self {
        Self::new(self.0 + (1 << INDEX_BITS))
    }

    pub(crate) fn of_bytes(bytes: [u8; 6]) -> Self {
        Self(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    }

    pub(crate) fn to_bytes(self) -> [u8; 6] {
        let [_, _, bytes @ ..] = self.0.to_be_bytes();
        bytes
    }

    fn sequence(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    fn index(self) -> usize {
        (self.0 & ((1 << INDEX_BITS) - 1)) as usize
    }
}

/// What a subscriber's card has seen: a number is fresh if it is above the last of its index (Annex C.2).
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Sequence by index.
    highest: [u64; 1 << INDEX_BITS],
}

impl Seen {
    /// Takes a number if it is fresh.
    pub(crate) fn take(&mut self, sqn: Sqn) -> bool {
        let highest = &mut self.highest[sqn.index()];
        let fresh = sqn.sequence() > *highest;
        if fresh {
            *highest = sqn.sequence();
        }
        fresh
    }

    /// The highest of all.
    pub(crate) fn highest(&self) -> Sqn {
        let all = self.highest.iter().zip(0..);
        let numbers = all.map(|(sequence, index)| Sqn::new(sequence << INDEX_BITS | index));
        numbers.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_has_a_count_of_its_own() {
        let mut seen = Seen::default();
        assert!(seen.take(Sqn::new(32 + 1)) && !seen.take(Sqn::new(32 + 1)));
        assert!(seen.take(Sqn::new(32)), "another index");
        assert!(!seen.take(Sqn::new(31)), "sequence 0 was never given");
        assert_eq!(seen.highest(), Sqn::new(33));
        assert!(seen.take(Sqn::new(33).next()));
    }

    #[test]
    fn bytes_are_big_endian() {
        let sqn = Sqn::new(0x0102_0304_0506);
        assert_eq!(sqn.to_bytes(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(Sqn::of_bytes(sqn.to_bytes()), sqn);
        assert_eq!(Sqn::new(u64::MAX).next().number(), 31, "it wraps at 48 bits");
    }
}
