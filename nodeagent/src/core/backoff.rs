//! Waiting longer after each failure.

/// Longest wait in milliseconds.
const LONGEST_MS: u64 = 30_000;

/// Failures in a row and when the next try may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    /// Milliseconds since the Unix epoch.
    pub(super) not_before_ms: u64,
    /// How long it waits for that, in milliseconds.
    pub(super) delay_ms: u64,
}

impl Backoff {
    /// After a failure: 1, 2, 4 .. 30 s.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        self.wait(now_ms);
    }

    /// After an end that is answered by a start: at once, then 1, 2, 4 .. 30 s.
    pub(super) fn ended(&mut self, now_ms: u64) {
        self.wait(now_ms);
        self.failures = self.failures.saturating_add(1);
    }

    fn wait(&mut self, now_ms: u64) {
        self.delay_ms = delay_ms(self.failures);
        self.not_before_ms = now_ms + self.delay_ms;
    }

    /// More than one failure in a row.
    pub(super) fn is_repeated(&self) -> bool {
        self.failures > 1
    }

    /// The last try failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// 0 for none, then 1, 2, 4 .. 30 s.
fn delay_ms(failures: u32) -> u64 {
    match failures {
        0 => 0,
        n => (1000 << (n - 1).min(5)).min(LONGEST_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_half_a_minute() {
        let waits: Vec<u64> = (0..8).map(delay_ms).collect();
        assert_eq!(waits, [0, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(delay_ms(u32::MAX), LONGEST_MS);
    }
}
