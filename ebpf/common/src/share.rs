//! What one sender may take of what all use. Of the tables of flows, in which the least recently used entry makes room for a new one: without a
//! share, whoever opens flows without end pushes out everybody else's that rest. Pods of one group (see
//! [`Sender`](crate::layout::Sender)) have one share of flows: whoever has many pods has no more than who has one.

/// New flows of one group at once, after a silence: a sixteenth of [`crate::MAX_FLOWS`].
pub const FLOWS: u32 = 8192;
/// New flows of one group in a second, for as long as it likes. With one group at its rate, a flow of another that says nothing
/// stays for 20 minutes ([`crate::MAX_FLOWS`]), with four for 5, which is when a silent UDP flow ends anyway.
pub const FLOWS_PER_SECOND: u32 = 100;
/// Fragments of one group in a second, and at once, to whomever: the receiver keeps each until its datagram is whole, and all
/// senders fill the same memory. Each counts, not each datagram, whose fragments are as many as its sender likes. What a receiver
/// keeps then is worked out in the CNI plugin (`cni/src/sysctl.rs`), which says for how long and how much. The fragments of one
/// datagram come within milliseconds: so few push no other's out of map FRAGMENTS ([`crate::MAX_FRAGMENTS`]).
pub const FRAGMENTS_PER_SECOND: u32 = 4096;

/// Value of map SHARES: by the number of a group, and what is beyond by the interface through which a sender's packets come.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Flows that it may still open.
    pub flows: u32,
    /// Fragments that it may still send in this second.
    pub fragments: u32,
    /// Monotonic clock at which they were counted up last, in seconds.
    pub at_s: u32,
    /// Flows and fragments of the sender beyond a share so far.
    pub beyond: u32,
}

impl Share {
    /// Of one who has not been heard for long.
    #[inline(always)]
    pub fn full(now_s: u32) -> Self {
        Self {
            flows: FLOWS,
            fragments: FRAGMENTS_PER_SECOND,
            at_s: now_s,
            beyond: 0,
        }
    }

    /// One more flow; false if it is beyond the share.
    #[inline(always)]
    pub fn take_flow(&mut self, now_s: u32) -> bool {
        self.refill(now_s);
        let within = self.flows > 0;
        if within {
            self.flows -= 1;
        }
        within
    }

    /// Counts one that was beyond a share.
    #[inline(always)]
    pub fn count_beyond(&mut self, _now_s: u32) -> bool {
        self.beyond = self.beyond.wrapping_add(1);
        false
    }

    /// One more fragment; false if it is beyond the share.
    #[inline(always)]
    pub fn take_fragment(&mut self, now_s: u32) -> bool {
        self.refill(now_s);
        let within = self.fragments > 0;
        if within {
            self.fragments -= 1;
        }
        within
    }

    #[inline(always)]
    fn refill(&mut self, now_s: u32) {
        let passed = now_s.wrapping_sub(self.at_s);
        if passed == 0 {
            return;
        }
        // Longer than it takes to be full; no product overflows.
        let passed = if passed > FLOWS { FLOWS } else { passed };
        let flows = self.flows + passed * FLOWS_PER_SECOND;
        self.flows = if flows > FLOWS { FLOWS } else { flows };
        self.fragments = FRAGMENTS_PER_SECOND;
        self.at_s = now_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut share = Share::full(1000);
        let taken = |share: &mut Share, now_s| (0..20_000).filter(|_| share.take_flow(now_s)).count() as u32;
        assert_eq!(taken(&mut share, 1000), FLOWS);
        assert_eq!(taken(&mut share, 1001), FLOWS_PER_SECOND);
        assert_eq!(taken(&mut share, 1011), 10 * FLOWS_PER_SECOND);
        assert_eq!(taken(&mut share, 1_000_000), FLOWS);
        assert!((0..FRAGMENTS_PER_SECOND).all(|_| share.take_fragment(1_000_001)));
        assert!(!share.take_fragment(1_000_001) && share.take_fragment(1_000_002));
    }
}
