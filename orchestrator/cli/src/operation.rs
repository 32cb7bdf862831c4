//! Operations and their receipts.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use gantry_api::{Operation, OperationPhase, labels};

use crate::args::Output;
use crate::client::Client;
use crate::output::{self, duration};

/// Whether an operation is one of the function with this uid.
pub fn belongs_to(operation: &Operation, uid: &str) -> bool {
    let annotations = operation.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(labels::FUNCTION_UID))
        .map(String::as_str)
        == Some(uid)
}

/// `gantry receipt [OPERATION]`.
pub async fn receipt(client: &Client, name: Option<&str>, output: Output) -> Result<()> {
    let path = client.own(Operation::PLURAL);
    let Some(name) = name else {
        let mut operations: Vec<Operation> = client.list(&path).await?;
        operations.sort_by_key(|o| o.status.started_at_ms);
        return output::print(output, &operations, || operations_table(&operations));
    };
    let operation: Option<Operation> = client.find(&format!("{path}/{name}")).await?;
    let operation =
        operation.with_context(|| format!("no operation `{name}`; `gantry receipt` lists them"))?;
    output::print(output, &operation, || receipt_text(&operation))
}

/// One line per operation.
pub fn operations_table(operations: &[Operation]) -> String {
    let rows = operations.iter().map(|o| {
        let receipt = &o.status.receipt;
        [
            o.metadata.name.clone().unwrap_or_default(),
            o.spec.asked.clone(),
            format!("{:?}", o.status.phase),
            took(o),
            receipt.sessions_drained.to_string(),
            count(receipt.sessions_lost),
        ]
    });
    output::table(["OPERATION", "ASKED", "STATUS", "TOOK", "DRAINED", "LOST"], rows)
}

fn took(operation: &Operation) -> String {
    let status = &operation.status;
    if status.finished_at_ms == 0 {
        "-".to_owned()
    } else {
        duration(status.finished_at_ms.saturating_sub(status.started_at_ms))
    }
}

/// What an operation did and what it cost.
pub fn receipt_text(operation: &Operation) -> String {
    let (spec, status) = (&operation.spec, &operation.status);
    let receipt = &status.receipt;
    let name = operation.metadata.name.as_deref().unwrap_or_default();
    let phase = output::colour(
        &format!("{:?}", status.phase),
        status.phase == OperationPhase::Succeeded,
    );
    let mut text = format!("{name}: {} - {phase} in {}\n", spec.asked, took(operation));
    if !status.message.is_empty() {
        text += &format!("  {}\n", status.message);
    }
    let rows = status.pods.iter().map(|(pod, p)| {
        let cpus = match (p.cpus_before.to_string(), p.cpus_after.to_string()) {
            (before, after) if before == after => or_dash(before),
            (before, after) => format!("{} -> {}", or_dash(before), or_dash(after)),
        };
        [
            pod.clone(),
            p.action.clone(),
            cpus,
            p.sessions_before.to_string(),
            count(p.sessions_lost),
        ]
    });
    if !status.pods.is_empty() {
        text += &output::table(
            ["  POD", "DONE", "EXCLUSIVE CPUS", "SESSIONS", "LOST"],
            rows.map(|mut row| {
                row[0] = format!("  {}", row[0]);
                row
            }),
        );
    }
    text += &format!(
        "  sessions: {} before, {} ended while draining, {} lost; packets: {}, {} dropped{}; restarts: {}\n",
        receipt.sessions_before,
        receipt.sessions_drained,
        output::colour(&count(receipt.sessions_lost), receipt.sessions_lost == Some(0)),
        receipt.packets,
        receipt.packets_dropped,
        reasons(&receipt.drops),
        receipt.restarts,
    );
    text
}

/// Why packets were dropped, in brackets.
fn reasons(drops: &BTreeMap<String, u64>) -> String {
    if drops.is_empty() {
        return String::new();
    }
    let each = drops.iter().map(|(reason, count)| format!("{count} {reason}"));
    format!(" ({})", each.collect::<Vec<_>>().join(", "))
}

/// A dash stands for what nobody counted.
fn count(number: Option<u64>) -> String {
    or_dash(number.map(|n| n.to_string()).unwrap_or_default())
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
