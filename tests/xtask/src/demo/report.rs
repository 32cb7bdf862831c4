//! The demo's report: a table for people, the same as JSON, and the verdict on the bars.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};
use gantry_tests::scraper::Counters;
use gantry_tests::sipp::{Records, Span};
use serde::Serialize;
use serde_json::Value;

use super::Strictness;

/// A thing that was done, and when.
pub struct Step {
    pub name: String,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// How many calls an instance took while the spread was counted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    pub pod: String,
    pub cpu_milli: u32,
    pub calls: u64,
}

/// How calls spread over the instances for a while.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    pub name: String,
    pub shares: Vec<Share>,
}

impl Spread {
    fn text(&self) -> String {
        let one = |s: &Share| format!("{} ({}m)", s.calls, s.cpu_milli);
        self.shares.iter().map(one).collect::<Vec<_>>().join(" / ")
    }

    /// Each instance took what its size says, within a third: a wide margin over some hundred calls.
    fn is_fair(&self) -> bool {
        let calls: u64 = self.shares.iter().map(|s| s.calls).sum();
        let size: u32 = self.shares.iter().map(|s| s.cpu_milli).sum();
        let fair = |s: &Share| {
            let expected = calls as f64 * f64::from(s.cpu_milli) / f64::from(size.max(1));
            (s.calls as f64 - expected).abs() <= expected / 3.0
        };
        self.shares.len() == 4 && self.shares.iter().all(fair)
    }
}

/// What was collected besides the generator's records.
pub struct Facts {
    pub restarts: u64,
    pub receipts: Value,
    pub exit_code: Option<i32>,
    pub counters: BTreeMap<String, Counters>,
    pub spreads: Vec<Spread>,
}

/// Everything.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    steps: Vec<Line>,
    under_operations: Span,
    undisturbed: Span,
    calls: Calls,
    spreads: Vec<Spread>,
    container_restarts: u64,
    receipts: Value,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    operation: String,
    duration_ms: u64,
    #[serde(flatten)]
    span: Span,
}

/// The same calls, counted by the generator and by the proxies.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    generator_created: u64,
    generator_completed: u64,
    generator_failed: u64,
    generator_retransmissions: u64,
    proxies_accepted: u64,
    proxies_completed: u64,
    proxies_misrouted: u64,
    per_pod: BTreeMap<String, u64>,
}

/// Something that must hold, with the figure.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bar {
    bar: &'static str,
    figure: String,
    met: bool,
    /// Depends on how fast the machine is.
    timed: bool,
}

/// Calls that a proxy accepted.
pub fn calls(counters: &Counters) -> f64 {
    counters.get("kamailio_calls_total").copied().unwrap_or_default()
}

impl Report {
    pub fn new(
        steps: &[Step],
        operations: (u64, u64),
        calm: (u64, u64),
        records: &Records,
        facts: Facts,
    ) -> Self {
        let line = |step: &Step| Line {
            operation: step.name.clone(),
            duration_ms: step.to_ms - step.from_ms,
            span: records.span(step.from_ms, step.to_ms),
        };
        let mut report = Self {
            steps: steps.iter().map(line).collect(),
            under_operations: records.span(operations.0, operations.1),
            undisturbed: records.span(calm.0, calm.1),
            calls: Calls::new(records, &facts.counters),
            spreads: facts.spreads,
            container_restarts: facts.restarts,
            receipts: facts.receipts,
            bars: Vec::new(),
        };
        report.bars = report.judge(facts.exit_code);
        report
    }

    fn judge(&self, exit_code: Option<i32>) -> Vec<Bar> {
        let (busy, calm, calls) = (&self.under_operations, &self.undisturbed, &self.calls);
        let lost: u64 = self
            .receipts
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|o| o["status"]["receipt"]["sessionsLost"].as_u64())
            .sum();
        let slowest_allowed = (2.0 * calm.longest_response_ms).max(200.0);
        vec![
            bar(
                "at least 3,000 calls",
                calls.generator_created.to_string(),
                calls.generator_created >= 3000,
            ),
            bar(
                "0 failed calls",
                calls.generator_failed.to_string(),
                calls.generator_failed == 0 && exit_code == Some(0),
            ),
            bar(
                "every call completed",
                calls.generator_completed.to_string(),
                calls.generator_completed == calls.generator_created,
            ),
            timed(
                "no retransmission that the undisturbed run does not have",
                format!(
                    "{} and {} undisturbed",
                    busy.retransmissions, calm.retransmissions
                ),
                busy.retransmissions <= calm.retransmissions,
            ),
            timed(
                "longest response at most twice the undisturbed one's, or 200 ms",
                format!(
                    "{} ms and {} ms undisturbed",
                    busy.longest_response_ms, calm.longest_response_ms
                ),
                busy.longest_response_ms <= slowest_allowed,
            ),
            bar(
                "generator and proxies count the same calls",
                format!("{} and {}", calls.generator_created, calls.proxies_accepted),
                calls.generator_created == calls.proxies_accepted,
            ),
            bar(
                "every in-dialog request reached its dialog",
                format!("{} did not", calls.proxies_misrouted),
                calls.proxies_misrouted == 0,
            ),
            bar("0 sessions lost in the receipts", lost.to_string(), lost == 0),
            bar(
                "no container restarted",
                self.container_restarts.to_string(),
                self.container_restarts == 0,
            ),
            bar(
                "calls spread over the instances by size",
                self.spreads
                    .iter()
                    .map(Spread::text)
                    .collect::<Vec<_>>()
                    .join("; "),
                self.spreads.len() == 2 && self.spreads.iter().all(Spread::is_fair),
            ),
        ]
    }

    /// An error that names the bars that were missed.
    pub fn verdict(&self, strictness: Strictness) -> Result<()> {
        let counts = |bar: &&Bar| !bar.timed || strictness == Strictness::All;
        let missed: Vec<String> = self
            .bars
            .iter()
            .filter(counts)
            .filter(|b| !b.met)
            .map(|b| format!("{}: {}", b.bar, b.figure))
            .collect();
        if missed.is_empty() {
            return Ok(());
        }
        bail!("bars missed:\n  {}", missed.join("\n  "))
    }
}

impl Calls {
    fn new(records: &Records, counters: &BTreeMap<String, Counters>) -> Self {
        let sum = |name: &str| {
            counters
                .values()
                .map(|c| c.get(name).copied().unwrap_or_default())
                .sum::<f64>() as u64
        };
        let last = records.last();
        Self {
            generator_created: last.created,
            generator_completed: records.completed(),
            generator_failed: last.failed,
            generator_retransmissions: last.retransmissions,
            proxies_accepted: sum("kamailio_calls_total"),
            proxies_completed: sum("kamailio_calls_completed_total"),
            proxies_misrouted: sum("kamailio_misrouted_total"),
            per_pod: counters
                .iter()
                .map(|(pod, c)| (pod.clone(), calls(c) as u64))
                .collect(),
        }
    }
}

fn bar(bar: &'static str, figure: String, met: bool) -> Bar {
    Bar {
        bar,
        figure,
        met,
        timed: false,
    }
}

fn timed(name: &'static str, figure: String, met: bool) -> Bar {
    Bar {
        timed: true,
        ..bar(name, figure, met)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "OPERATION",
            "TOOK",
            "UP BEFORE",
            "NEW CALLS",
            "UP AFTER",
            "FAILED",
            "RETRANS",
            "LONGEST",
        ];
        writeln!(
            f,
            "\n{:<44}{:>9}{:>11}{:>11}{:>10}{:>8}{:>9}{:>10}",
            head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]
        )?;
        let mut row = |name: &str, took_ms: Option<u64>, s: &Span| {
            let took = took_ms.map_or(String::new(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
            writeln!(
                f,
                "{name:<44}{took:>9}{:>11}{:>11}{:>10}{:>8}{:>9}{:>7} ms",
                s.calls_up_before,
                s.calls,
                s.calls_up_after,
                s.failed,
                s.retransmissions,
                s.longest_response_ms
            )
        };
        for line in &self.steps {
            row(&line.operation, Some(line.duration_ms), &line.span)?;
        }
        row("all operations", None, &self.under_operations)?;
        row("undisturbed, same length", None, &self.undisturbed)?;
        writeln!(f, "\ncalls by instance:")?;
        for (pod, calls) in &self.calls.per_pod {
            writeln!(f, "  {pod:<42}{calls:>8}")?;
        }
        writeln!(f)?;
        for bar in &self.bars {
            writeln!(
                f,
                "{}  {}: {}",
                if bar.met { "met   " } else { "MISSED" },
                bar.bar,
                bar.figure
            )?;
        }
        Ok(())
    }
}
