//! The demo's report: a table for people, the same as JSON.

use std::collections::BTreeMap;
use std::fmt;

use gantry_tests::scraper::Counters;
use gantry_tests::sipp::{Records, Span};
use serde::Serialize;
use serde_json::Value;

use super::bars::{self, Bar};

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

/// What was collected besides the generator's records.
pub struct Facts {
    pub restarts: u64,
    pub receipts: Value,
    pub exit_code: Option<i32>,
    pub counters: BTreeMap<String, Counters>,
    pub spreads: Vec<Spread>,
    /// How long the service was away after the kill of an instance, once the load had ended.
    pub away_after_kill_ms: u64,
}

/// Everything.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    steps: Vec<Line>,
    pub under_operations: Span,
    pub undisturbed: Span,
    pub calls: Calls,
    pub spreads: Vec<Spread>,
    pub container_restarts: u64,
    pub away_after_kill_ms: u64,
    pub receipts: Value,
    pub bars: Vec<Bar>,
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
pub struct Calls {
    pub generator_created: u64,
    pub generator_completed: u64,
    pub generator_failed: u64,
    pub generator_retransmissions: u64,
    pub generator_exit_code: Option<i32>,
    pub proxies_accepted: u64,
    pub proxies_completed: u64,
    pub proxies_in_dialog: u64,
    pub proxies_misrouted: u64,
    pub per_pod: BTreeMap<String, u64>,
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
            calls: Calls::new(records, facts.exit_code, &facts.counters),
            spreads: facts.spreads,
            container_restarts: facts.restarts,
            away_after_kill_ms: facts.away_after_kill_ms,
            receipts: facts.receipts,
            bars: Vec::new(),
        };
        report.bars = bars::judge(&report);
        report
    }
}

impl Calls {
    fn new(records: &Records, exit_code: Option<i32>, counters: &BTreeMap<String, Counters>) -> Self {
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
            generator_exit_code: exit_code,
            proxies_accepted: sum("kamailio_calls_total"),
            proxies_completed: sum("kamailio_calls_completed_total"),
            proxies_in_dialog: sum("kamailio_indialog_total"),
            proxies_misrouted: sum("kamailio_misrouted_total"),
            per_pod: counters
                .iter()
                .map(|(pod, c)| (pod.clone(), calls(c) as u64))
                .collect(),
        }
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
        row("undisturbed", None, &self.undisturbed)?;
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
