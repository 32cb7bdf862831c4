//! What must hold, each with its figure; and the verdict.

use anyhow::{Result, bail};
use gantry_tests::sipp::Span;
use serde::Serialize;
use serde_json::Value;

use super::Strictness;
use super::report::{Report, Share, Spread};

/// Changes in the demo that have a receipt: three deployments, two scalings, two resizes, an upgrade, a rollback.
const OPERATIONS: usize = 9;
/// How far an instance's share of some hundred calls may be from what its size says.
const SPREAD_TOLERANCE: f64 = 0.25;

/// Something that must hold, with the figure.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bar {
    pub bar: &'static str,
    pub figure: String,
    pub met: bool,
    /// Depends on how fast the machine is.
    timed: bool,
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

/// All of them.
pub fn judge(report: &Report) -> Vec<Bar> {
    [calls(report), times(report), operations(report)]
        .into_iter()
        .flatten()
        .collect()
}

fn calls(report: &Report) -> Vec<Bar> {
    let calls = &report.calls;
    let spreads: Vec<String> = report.spreads.iter().map(text).collect();
    vec![
        bar(
            "at least 3,000 calls",
            calls.generator_created.to_string(),
            calls.generator_created >= 3000,
        ),
        bar(
            "0 failed calls",
            calls.generator_failed.to_string(),
            calls.generator_failed == 0 && calls.generator_exit_code == Some(0),
        ),
        bar(
            "every call completed",
            calls.generator_completed.to_string(),
            calls.generator_completed == calls.generator_created,
        ),
        bar(
            "generator and proxies count the same calls, begun and completed",
            format!(
                "{} and {}, {} and {}",
                calls.generator_created,
                calls.proxies_accepted,
                calls.generator_completed,
                calls.proxies_completed
            ),
            calls.generator_created == calls.proxies_accepted
                && calls.generator_completed == calls.proxies_completed,
        ),
        bar(
            "every in-dialog request reached its dialog",
            format!(
                "{} of {} did not",
                calls.proxies_misrouted, calls.proxies_in_dialog
            ),
            calls.proxies_misrouted == 0 && calls.proxies_in_dialog > 0,
        ),
        bar(
            "calls spread over the instances by size",
            spreads.join("; "),
            report.spreads.len() == 2 && report.spreads.iter().all(is_fair),
        ),
    ]
}

fn times(report: &Report) -> Vec<Bar> {
    let (busy, calm) = (&report.under_operations, &report.undisturbed);
    let slowest_allowed = (2.0 * calm.longest_response_ms).max(200.0);
    vec![
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
            "both runs have answers to INVITE, UPDATE and BYE",
            format!("{} and {}", answered(busy), answered(calm)),
            has_all_answers(busy) && has_all_answers(calm),
        ),
        timed(
            "the service answers within 2 s of a kill -9 of an instance",
            format!("{} ms", report.away_after_kill_ms),
            report.away_after_kill_ms <= 2000,
        ),
    ]
}

fn operations(report: &Report) -> Vec<Bar> {
    let operations = report.receipts.as_array().map(Vec::as_slice).unwrap_or_default();
    let succeeded = operations.iter().filter(|o| o["status"]["phase"] == "Succeeded");
    let succeeded = succeeded.count();
    let sum = |what: &str| -> u64 {
        let of = |o: &Value| o["status"]["receipt"][what].as_u64();
        operations.iter().filter_map(of).sum()
    };
    vec![
        bar(
            "every operation succeeded",
            format!("{succeeded} of {}", operations.len()),
            succeeded == operations.len() && succeeded >= OPERATIONS,
        ),
        bar(
            "0 sessions lost in the receipts",
            format!("{} of {}", sum("sessionsLost"), sum("sessionsBefore")),
            sum("sessionsLost") == 0 && sum("sessionsBefore") > 0,
        ),
        bar(
            "no container restarted",
            (report.container_restarts + sum("restarts")).to_string(),
            report.container_restarts + sum("restarts") == 0,
        ),
    ]
}

const METHODS: [&str; 3] = ["invite", "update", "bye"];

fn answered(span: &Span) -> String {
    let count = |method: &str| span.responses.get(method).copied().unwrap_or(0).to_string();
    METHODS.map(count).join(" / ")
}

fn has_all_answers(span: &Span) -> bool {
    METHODS
        .iter()
        .all(|m| span.responses.get(*m).is_some_and(|n| *n > 0))
}

fn text(spread: &Spread) -> String {
    let one = |s: &Share| format!("{} ({}m)", s.calls, s.cpu_milli);
    spread.shares.iter().map(one).collect::<Vec<_>>().join(" / ")
}

/// Each of the four instances took what its size says.
fn is_fair(spread: &Spread) -> bool {
    let calls: u64 = spread.shares.iter().map(|s| s.calls).sum();
    let size: u32 = spread.shares.iter().map(|s| s.cpu_milli).sum();
    let fair = |s: &Share| {
        let expected = calls as f64 * f64::from(s.cpu_milli) / f64::from(size.max(1));
        (s.calls as f64 - expected).abs() <= expected * SPREAD_TOLERANCE
    };
    calls > 0 && spread.shares.len() == 4 && spread.shares.iter().all(fair)
}

/// An error that names the bars that were missed.
pub fn verdict(bars: &[Bar], strictness: Strictness) -> Result<()> {
    let missed: Vec<String> = bars
        .iter()
        .filter(|bar| !bar.timed || strictness == Strictness::All)
        .filter(|bar| !bar.met)
        .map(|bar| format!("{}: {}", bar.bar, bar.figure))
        .collect();
    if missed.is_empty() {
        return Ok(());
    }
    bail!("bars missed:\n  {}", missed.join("\n  "))
}
