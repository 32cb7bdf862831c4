//! What the radio side has seen, as JSON.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_lab_faults::Plan;
use serde::Serialize;

use crate::carry;
use crate::cell::Cell;
use crate::tunnels::DropReason;

/// See the module.
#[derive(Debug, Serialize)]
pub struct Report {
    devices: usize,
    attached_at_the_end: usize,
    attaches: Attaches,
    services: u64,
    releases: u64,
    pages: u64,
    ordered_out: u64,
    detached: u64,
    networks_not_authentic: u64,
    resynchronisations: u64,
    packets: Packets,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Injected>,
}

/// What was done to packets on purpose.
#[derive(Debug, Serialize)]
struct Injected {
    kind: &'static str,
    every: u64,
    injected: u64,
}

#[derive(Debug, Serialize)]
struct Attaches {
    asked: u64,
    attached: u64,
    failed: BTreeMap<String, u64>,
    p50_ms: f64,
    p95_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct Packets {
    up: u64,
    down: u64,
    fragments_up: u64,
    fragments_down: u64,
    dropped: BTreeMap<&'static str, u64>,
    end_markers: u64,
    error_indications: u64,
    #[serde(skip)]
    injected: u64,
}

impl Report {
    /// Of all that was counted; `attached` is how many are at the end, and `tun_dropped` what the kernel threw away.
    pub fn new(cell: &Cell, attached: usize, carried: &carry::Counts, tun_dropped: u64) -> Self {
        let counts = cell.counts();
        let mut times = counts.attach_us.clone();
        times.sort_unstable();
        let at = |percent: usize| {
            let nth = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(nth).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        Self {
            devices: cell.len(),
            attached_at_the_end: attached,
            attaches: Attaches {
                asked: counts.attaches,
                attached: counts.attached,
                failed: counts.failures.clone(),
                p50_ms: at(50),
                p95_ms: at(95),
                max_ms: at(100),
            },
            services: counts.services,
            releases: counts.releases,
            pages: counts.pages,
            ordered_out: counts.ordered_out,
            detached: counts.detached,
            networks_not_authentic: counts.not_authentic,
            resynchronisations: counts.resynchronisations,
            packets: packets(carried, tun_dropped),
            fault: None,
        }
    }

    /// With what was done on purpose.
    pub fn with(mut self, plan: Option<Plan>) -> Self {
        self.fault = plan.map(|plan| Injected {
            kind: plan.fault.word(),
            every: plan.every,
            injected: self.packets.injected,
        });
        self
    }
}

fn packets(carried: &carry::Counts, tun_dropped: u64) -> Packets {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let mut dropped: BTreeMap<_, _> = DropReason::ALL
        .into_iter()
        .map(DropReason::word)
        .zip(carried.dropped.iter().map(load))
        .collect();
    dropped.insert("tun_full", tun_dropped);
    Packets {
        up: load(&carried.up),
        down: load(&carried.down),
        fragments_up: load(&carried.fragments_up),
        fragments_down: load(&carried.fragments_down),
        dropped,
        end_markers: load(&carried.end_markers),
        error_indications: load(&carried.error_indications),
        injected: load(&carried.injected),
    }
}
