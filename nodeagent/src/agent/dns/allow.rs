//! Who may ask how often. Pure: a bucket of questions for each source, in a table of bounded size.

use std::collections::HashMap;
use std::net::IpAddr;

/// How often one source may ask.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Rate {
    /// Questions a second that are answered for as long as one likes: a CSCF asks once a request.
    pub per_second: u32,
    /// Questions at once after a silence.
    pub burst: u32,
    /// Sources that are told apart; more share one bucket. A node has fewer pods.
    pub sources: usize,
}

impl Rate {
    /// As often as one likes.
    pub(in crate::agent) const NONE: Self = Self {
        per_second: 1_000_000_000,
        burst: 1_000_000_000,
        sources: 4096,
    };
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            per_second: 3000,
            burst: 6000,
            sources: 4096,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a question.
    left: u64,
    at_ms: u64,
    /// Since it was last told.
    refused: u64,
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Allow {
    rate: Rate,
    buckets: HashMap<IpAddr, Bucket>,
    others: Bucket,
}

impl Allow {
    pub(super) fn new(rate: Rate) -> Self {
        let full = Bucket {
            left: u64::from(rate.burst) * 1000,
            at_ms: 0,
            refused: 0,
        };
        Self {
            rate,
            buckets: HashMap::new(),
            others: full,
        }
    }

    /// Whether a question from there is answered now.
    pub(super) fn pass(&mut self, from: IpAddr, now_ms: u64) -> bool {
        let rate = self.rate;
        let bucket = self.bucket(from, now_ms);
        let gained = now_ms
            .saturating_sub(bucket.at_ms)
            .saturating_mul(rate.per_second.into());
        bucket.left = bucket
            .left
            .saturating_add(gained)
            .min(u64::from(rate.burst) * 1000);
        bucket.at_ms = bucket.at_ms.max(now_ms);
        let passes = bucket.left >= 1000;
        if passes {
            bucket.left -= 1000;
        } else {
            bucket.refused += 1;
        }
        passes
    }

    /// One from there was refused for another reason.
    pub(super) fn refuse(&mut self, from: IpAddr, now_ms: u64) {
        self.bucket(from, now_ms).refused += 1;
    }

    fn bucket(&mut self, from: IpAddr, now_ms: u64) -> &mut Bucket {
        let rate = self.rate;
        if self.buckets.len() >= rate.sources && !self.buckets.contains_key(&from) {
            let full_after_ms = u64::from(rate.burst) * 1000 / u64::from(rate.per_second.max(1));
            self.buckets
                .retain(|_, b| b.refused > 0 || now_ms < b.at_ms + full_after_ms);
        }
        if self.buckets.len() < rate.sources || self.buckets.contains_key(&from) {
            self.buckets.entry(from).or_insert(Bucket {
                left: u64::from(rate.burst) * 1000,
                at_ms: now_ms,
                refused: 0,
            })
        } else {
            &mut self.others
        }
    }

    /// Sources whose questions were refused since the last call, and how many.
    pub(super) fn refused(&mut self) -> Vec<(Option<IpAddr>, u64)> {
        let all = self
            .buckets
            .iter_mut()
            .map(|(from, bucket)| (Some(*from), bucket));
        all.chain([(None, &mut self.others)])
            .map(|(from, bucket)| (from, std::mem::take(&mut bucket.refused)))
            .filter(|(_, refused)| *refused > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 85, 0, last])
    }

    fn passed(allow: &mut Allow, source: u8, count: u32, now_ms: u64) -> usize {
        (0..count).filter(|_| allow.pass(from(source), now_ms)).count()
    }

    #[test]
    fn each_source_has_its_own_rate() {
        let mut allow = Allow::new(Rate::default());
        assert_eq!(passed(&mut allow, 1, 100_000, 0), 6000);
        assert_eq!(passed(&mut allow, 2, 2000, 0), 2000, "the neighbour");
        assert_eq!(allow.refused(), [(Some(from(1)), 94_000)]);
        for second in 1..10 {
            assert_eq!(passed(&mut allow, 1, 100_000, second * 1000), 3000);
            assert_eq!(passed(&mut allow, 2, 2000, second * 1000), 2000);
        }
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_silent() {
        let rate = Rate {
            per_second: 10,
            burst: 10,
            sources: 2,
        };
        let mut allow = Allow::new(rate);
        assert_eq!(passed(&mut allow, 1, 20, 0), 10);
        assert_eq!(passed(&mut allow, 2, 10, 0), 10);
        assert_eq!(
            passed(&mut allow, 3, 20, 0) + passed(&mut allow, 4, 20, 0),
            10,
            "they share"
        );
        assert!(allow.buckets.len() == 2 && allow.refused().len() == 2);
        assert_eq!(passed(&mut allow, 3, 20, 1000), 10);
        assert_eq!(passed(&mut allow, 3, 20, 1000), 0, "it has a bucket now");
        assert_eq!(allow.buckets.len(), 1);
    }
}
