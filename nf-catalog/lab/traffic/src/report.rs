//! What became of a run, as JSON.

use serde::Serialize;

use crate::judge::{Judge, Times};
use crate::send::Sent;

/// See the module.
#[derive(Debug, Serialize)]
pub struct Report {
    devices: usize,
    sent: u64,
    /// Of which answers came.
    received: u64,
    /// Without an answer when the wait was over.
    lost: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    foreign: u64,
    /// Never sent: the kernel did not take them.
    refused: u64,
    /// How long was waited after the last packet before one counted as lost.
    waited_s: u64,
    seconds: f64,
    packets_per_second: f64,
    /// By how much a packet went later than its time, at most.
    sender_late_max_ms: f64,
    #[serde(flatten)]
    times: Times,
}

impl Report {
    /// Of what was sent and what was heard.
    pub fn new(devices: usize, sent: &Sent, judge: &mut Judge, waited_s: u64) -> Self {
        let counts = judge.counts();
        let seconds = sent.took.as_secs_f64();
        Self {
            devices,
            sent: sent.packets,
            received: counts.received,
            lost: sent.packets.saturating_sub(counts.received),
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            corrupted: counts.corrupted,
            foreign: counts.foreign,
            refused: sent.refused,
            waited_s,
            seconds,
            packets_per_second: sent.packets as f64 / seconds.max(f64::EPSILON),
            sender_late_max_ms: sent.late.as_secs_f64() * 1000.0,
            times: judge.times(),
        }
    }
}
