//! What became of the packets. No I/O: what is sent and what comes is told, with the time.

use serde::Serialize;

use crate::packet::Packet;

/// Counts of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets for which an answer came, each once.
    pub received: u64,
    /// Answers that came again.
    pub duplicated: u64,
    /// Answers that came behind a later one of their device.
    pub reordered: u64,
    /// Answers that are not as any packet was sent.
    pub corrupted: u64,
    /// Answers that are another device's or run's, or come from elsewhere.
    pub foreign: u64,
}

/// Times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// Half of the answers came faster.
    pub rtt_p50_ms: f64,
    /// 99 of 100.
    pub rtt_p99_ms: f64,
    /// All.
    pub rtt_max_ms: f64,
    /// The longest time in which no answer came to any device.
    pub longest_gap_ms: f64,
    /// When that ended, in seconds since the beginning.
    pub longest_gap_at_s: f64,
}

#[derive(Clone, Debug, Default)]
struct Device {
    /// A bit for each number.
    seen: Vec<u64>,
    highest: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Judge {
    run: u64,
    devices: Vec<Device>,
    /// Numbers from here on were never sent.
    most: u64,
    counts: Counts,
    rtts_us: Vec<u32>,
    heard_us: Option<u64>,
    gap_us: (u64, u64),
}

impl Judge {
    /// Of so many devices with at most so many packets each.
    pub fn new(run: u64, devices: usize, most: u64) -> Self {
        Self {
            run,
            devices: vec![Device::default(); devices],
            most,
            counts: Counts::default(),
            rtts_us: Vec::new(),
            heard_us: None,
            gap_us: (0, 0),
        }
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Something came to a device; `from_target` tells whether it is from where the packets went.
    pub fn heard(&mut self, nth: usize, bytes: &[u8], from_target: bool, now_us: u64) {
        if !from_target {
            self.counts.foreign += 1;
            return;
        }
        let Ok(packet) = Packet::read(bytes) else {
            self.counts.corrupted += 1;
            return;
        };
        let own = packet.run == self.run && usize::try_from(packet.device) == Ok(nth);
        let Some(device) = self
            .devices
            .get_mut(nth)
            .filter(|_| own && packet.sequence < self.most)
        else {
            self.counts.foreign += 1;
            return;
        };
        if !device.take(packet.sequence) {
            self.counts.duplicated += 1;
            return;
        }
        self.counts.received += 1;
        if device.highest.is_some_and(|highest| packet.sequence < highest) {
            self.counts.reordered += 1;
        }
        device.highest = device.highest.max(Some(packet.sequence));
        let rtt = now_us.saturating_sub(packet.sent_us);
        self.rtts_us.push(u32::try_from(rtt).unwrap_or(u32::MAX));
        let gap = now_us.saturating_sub(self.heard_us.unwrap_or(0));
        self.gap_us = self.gap_us.max((gap, now_us));
        self.heard_us = Some(now_us);
    }

    /// Times of all that was heard.
    pub fn times(&mut self) -> Times {
        self.rtts_us.sort_unstable();
        let at = |percent: usize| {
            let nth = (self.rtts_us.len() * percent).div_ceil(100).saturating_sub(1);
            self.rtts_us.get(nth).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        let (gap, ended) = self.gap_us;
        Times {
            rtt_p50_ms: at(50),
            rtt_p99_ms: at(99),
            rtt_max_ms: at(100),
            longest_gap_ms: gap as f64 / 1000.0,
            longest_gap_at_s: ended as f64 / 1_000_000.0,
        }
    }
}

impl Device {
    /// Whether it is there for the first time.
    fn take(&mut self, sequence: u64) -> bool {
        let Ok(word) = usize::try_from(sequence / 64) else {
            return false;
        };
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let bit = 1 << (sequence % 64);
        let first = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(run: u64, device: u32, sequence: u64) -> Vec<u8> {
        let mut bytes = vec![0; 72];
        let sent_us = sequence * 1000;
        Packet {
            run,
            device,
            sequence,
            sent_us,
        }
        .write(&mut bytes);
        bytes
    }

    #[test]
    fn each_fault_has_a_count_of_its_own() {
        let mut judge = Judge::new(7, 2, 100);
        for sequence in [0, 1, 3, 2, 2] {
            judge.heard(1, &packet(7, 1, sequence), true, 10_000);
        }
        let mut broken = packet(7, 1, 4);
        broken[50] ^= 1;
        judge.heard(1, &broken, true, 10_000);
        judge.heard(0, &packet(7, 1, 5), true, 10_000);
        judge.heard(1, &packet(8, 1, 5), true, 10_000);
        judge.heard(1, &packet(7, 1, 100), true, 10_000);
        judge.heard(1, &packet(7, 1, 5), false, 10_000);
        let expected = Counts {
            received: 4,
            duplicated: 1,
            reordered: 1,
            corrupted: 1,
            foreign: 4,
        };
        assert_eq!(judge.counts(), expected);
    }

    #[test]
    fn times_are_told() {
        let mut judge = Judge::new(7, 1, 100);
        for sequence in 0..100 {
            let late = if sequence == 60 { 5000 } else { 100 };
            judge.heard(0, &packet(7, 0, sequence), true, sequence * 1000 + late);
        }
        let times = judge.times();
        assert_eq!(
            (times.rtt_p50_ms, times.rtt_p99_ms, times.rtt_max_ms),
            (0.1, 0.1, 5.0)
        );
        assert_eq!((times.longest_gap_ms, times.longest_gap_at_s), (5.9, 0.065));
    }

    #[test]
    fn nothing_heard_is_nothing_told() {
        assert_eq!(Judge::new(1, 1, 1).times().rtt_max_ms, 0.0);
    }
}
