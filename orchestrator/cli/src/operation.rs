//! Waiting for operations, and their receipts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gantry_api::{Operation, OperationPhase};

use crate::args::{Output, Wait};
use crate::client::{Client, is_status};
use crate::output::{self, Progress, duration};

const POLL: Duration = Duration::from_millis(150);

/// Waits until the operation of a function's generation has ended, then prints its receipt.
pub async fn finish(
    client: &Client,
    function: &str,
    generation: i64,
    wait: &Wait,
    output: Output,
) -> Result<()> {
    let name = format!("{function}-{generation}");
    if wait.no_wait {
        return output::write_out(&format!(
            "operation {name} started; see `gantry receipt {name}`\n"
        ));
    }
    let operation = wait_for(client, &name, wait.timeout).await?;
    output::print(output, &operation, || receipt_text(&operation))?;
    ensure_succeeded(&operation)
}

async fn wait_for(client: &Client, name: &str, timeout_s: u64) -> Result<Operation> {
    let path = format!("{}/{name}", client.own(Operation::PLURAL));
    let mut progress = Progress::new(&format!("{name}: planning"));
    let started = Instant::now();
    let mut failures = 0;
    loop {
        match client.find::<Operation>(&path).await {
            Ok(Some(operation)) if operation.status.phase != OperationPhase::Running => return Ok(operation),
            Ok(Some(operation)) => progress.set(&format!("{name}: {}", operation.status.message)),
            Ok(None) => {}
            // The control plane may be restarting; the operation goes on without it.
            Err(error) if failures < 200 && !is_status(&error, 403) => {
                failures += 1;
                progress.set(&format!("{name}: waiting for the API server"));
            }
            Err(error) => return Err(error),
        }
        if timeout_s > 0 && started.elapsed().as_secs() >= timeout_s {
            bail!("operation {name} still runs after {timeout_s} s; it goes on: see `gantry receipt {name}`");
        }
        tokio::time::sleep(POLL).await;
    }
}

fn ensure_succeeded(operation: &Operation) -> Result<()> {
    let name = operation.metadata.name.as_deref().unwrap_or_default();
    match operation.status.phase {
        OperationPhase::Succeeded => Ok(()),
        OperationPhase::Superseded => {
            bail!("operation {name} was replaced by a newer change of the same function")
        }
        OperationPhase::Failed | OperationPhase::Running => {
            bail!("operation {name} failed: {}", operation.status.message)
        }
    }
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
            receipt.sessions_lost.to_string(),
        ]
    });
    output::table(["OPERATION", "ASKED", "PHASE", "TOOK", "DRAINED", "LOST"], rows)
}

fn took(operation: &Operation) -> String {
    let status = &operation.status;
    if status.finished_at_ms == 0 {
        "-".to_owned()
    } else {
        duration(status.finished_at_ms.saturating_sub(status.started_at_ms))
    }
}

fn receipt_text(operation: &Operation) -> String {
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
            p.sessions_lost.to_string(),
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
        "  sessions: {} before, {} ended while draining, {} lost; packets: {}, {} dropped; restarts: {}\n",
        receipt.sessions_before,
        receipt.sessions_drained,
        output::colour(&receipt.sessions_lost.to_string(), receipt.sessions_lost == 0),
        receipt.packets,
        receipt.packets_dropped,
        receipt.restarts,
    );
    text
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
