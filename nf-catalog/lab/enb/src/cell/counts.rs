//! What happened to the devices of a cell.

use std::collections::BTreeMap;
use std::time::Duration;

/// Causes that are told apart.
const CAUSES: usize = 32;
/// Times that are kept.
const TIMES: usize = 1_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Counts {
    /// Attaches that were asked for.
    pub attaches: u64,
    /// Attaches that came to something.
    pub attached: u64,
    /// How long the first million of them took, in microseconds.
    pub attach_us: Vec<u32>,
    /// Why others did not.
    pub failures: BTreeMap<String, u64>,
    /// Networks that did not know the key.
    pub not_authentic: u64,
    /// Numbers that were not fresh.
    pub resynchronisations: u64,
    /// Service requests.
    pub services: u64,
    /// Devices that became idle.
    pub releases: u64,
    /// Times that a device was called.
    pub pages: u64,
    /// Orders of the MME to go.
    pub ordered_out: u64,
    /// Devices that went by themselves.
    pub detached: u64,
    /// Messages about devices that are not of this cell.
    pub strangers: u64,
}

impl Counts {
    pub(super) fn attached(&mut self, after: Duration) {
        self.attached += 1;
        if self.attach_us.len() < TIMES {
            let us = u32::try_from(after.as_micros()).unwrap_or(u32::MAX);
            self.attach_us.push(us);
        }
    }

    pub(super) fn failed(&mut self, cause: &str) {
        let known = self.failures.len() < CAUSES || self.failures.contains_key(cause);
        let cause = if known { cause } else { "other" };
        *self.failures.entry(cause.to_owned()).or_default() += 1;
    }
}
