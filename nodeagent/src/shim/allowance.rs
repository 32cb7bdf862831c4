//! How fast a container's log may grow. Pure.

use std::time::{Duration, Instant};

/// Bytes of log that a container may write in a second for as long as it likes. What comes faster waits in its pipe, and the
/// container with it: the shim that copies it is the node's, not the pod's, and so is the disk.
const PER_SECOND: u64 = 8 << 20;
/// Bytes at once after a silence.
const BURST: u64 = 32 << 20;
/// After it was used up it is not looked at before so many bytes are there again: a quarter of a second's.
const RESUME: u64 = PER_SECOND / 4;

/// What is left of it.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes; more may be taken than there is, once.
    left: i64,
    at: Instant,
    resting: bool,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST as i64,
            at: now,
            resting: false,
        }
    }

    /// So many bytes were written.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        self.refill(now);
        self.left = self.left.saturating_sub_unsigned(bytes as u64);
        self.resting = self.left <= 0;
    }

    /// How long nothing more may be taken; `None`: go on.
    pub(super) fn rest(&mut self, now: Instant) -> Option<Duration> {
        if !self.resting {
            return None;
        }
        self.refill(now);
        let missing = u64::try_from(RESUME as i64 - self.left).unwrap_or(0);
        self.resting = missing > 0;
        self.resting
            .then(|| Duration::from_millis(missing.saturating_mul(1000).div_ceil(PER_SECOND)))
    }

    fn refill(&mut self, now: Instant) {
        let passed_ms = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        // Less than a millisecond is not forgotten: the clock is read again later.
        if passed_ms > 0 {
            let gained = passed_ms.saturating_mul(PER_SECOND) / 1000;
            self.left = self.left.saturating_add_unsigned(gained).min(BURST as i64);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_writer_gets_its_rate_and_a_quiet_one_its_burst() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let (mut now, mut written) = (start, 0u64);
        while now < start + Duration::from_secs(60) {
            match allowance.rest(now) {
                Some(rest) => now += rest,
                None => {
                    allowance.spend(1 << 20, now);
                    written += 1 << 20;
                    now += Duration::from_micros(100);
                }
            }
        }
        let fair = BURST + 60 * PER_SECOND;
        assert!(written.abs_diff(fair) < fair / 10, "{written} of {fair}");
        assert!(allowance.rest(now + Duration::from_secs(60)).is_none());
        allowance.spend(BURST as usize - 1, now + Duration::from_secs(60));
        assert!(allowance.rest(now + Duration::from_secs(60)).is_none());
    }
}
