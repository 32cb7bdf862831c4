//! All cases, one after the other, on one Gantry with neighbours.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use gantry_tests::{Images, busybox};

use super::neighbours::{Bars, Neighbours};
use super::process::{Memory, Process};
use super::{Case, Extent, Tenant};

/// Most memory of the orchestrator, in MiB: an idle one has some 40.
const ORCHESTRATOR_MIB: u64 = 500;
/// Most memory of the agent, in MiB.
const AGENT_MIB: u64 = 150;
/// Memory of all pods together: enough for the neighbours, and little enough to be used up.
const PODS_BYTES: u64 = 1536 << 20;

/// Runs the cases and prints the table; returns which of them did harm, and how.
pub(super) fn run(cases: &[Case], extent: Extent) -> Result<Vec<String>> {
    let gantry = Gantry::new("hostile", false)?;
    begin(&gantry, "10.112.0.0/16", "10.113.0.0/16")?;
    gantry.import_images(Images::SIP)?;
    let api = Api::of(&gantry)?;
    let neighbours = Neighbours::start(&gantry, &api)?;
    println!(
        "{:<44} {:<18} {:<16} {:>7} {:>8} {:>8} {:>15} {:>15} {:>13}",
        "case", "kind", "protection", "took", "answer", "pod", "orchestrator", "agent", "calls"
    );
    let mut harmed = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let tenant = Tenant::new(&gantry, &api, format!("tenant-{number}"), extent)?;
        if let Err(error) = suffer(case, tenant, &neighbours, extent) {
            println!("  HARM: {error:#}");
            harmed.push(format!("{}: {error:#}", case.name));
        }
    }
    match neighbours.end(extent) {
        Ok(calls) => println!("the neighbour's calls: {calls}"),
        Err(error) => harmed.push(format!("the neighbour's calls: {error:#}")),
    }
    Ok(harmed)
}

/// Starts a Gantry whose pods have little memory together, and takes over the image that neighbours and tenants run.
pub(super) fn begin(gantry: &Gantry, pods: &str, services: &str) -> Result<()> {
    let reserved = memory_bytes()?.saturating_sub(PODS_BYTES).to_string();
    let networks = ["--pod-cidr", pods, "--service-cidr", services];
    gantry.first_up(&[&networks[..], &["--reserved-memory", &reserved]].concat())?;
    let place = tempfile::tempdir()?;
    let layout = busybox::layout(place.path())?;
    gantry.run(&["image", "import", &layout.to_string_lossy()])
}

/// Of this machine: of its NUMA nodes together, which may be less than /proc/meminfo has where memory is taken back by a balloon.
fn memory_bytes() -> Result<u64> {
    let mut kib = 0;
    for node in fs::read_dir("/sys/devices/system/node")? {
        // Not every entry is a node's directory.
        let Ok(table) = fs::read_to_string(node?.path().join("meminfo")) else {
            continue;
        };
        let total = table.lines().find_map(|line| line.split_once("MemTotal:"));
        let of_node = total.and_then(|(_, value)| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib += of_node.context("a NUMA node has no MemTotal")?;
    }
    ensure!(kib > 0, "no NUMA node says how much memory it has");
    Ok(kib << 10)
}

/// One case, and what its neighbours and the processes' memory say of it.
fn suffer(case: &Case, tenant: Tenant<'_>, neighbours: &Neighbours<'_>, extent: Extent) -> Result<()> {
    let memory = |process: Process| Memory::of(process.pid(tenant.gantry)?);
    let (orchestrator, agent) = (memory(Process::Orchestrator)?, memory(Process::Agent)?);
    let failed_before = neighbours.calls()?.failed;
    neighbours.forget();
    let started = Instant::now();
    let told = (case.attack)(&tenant);
    let took = started.elapsed();
    let left = tenant.leave().context("what the tenant made stays");
    let (probes, pods) = neighbours.take();
    let calls = neighbours.calls()?;
    let grown = |memory: &Memory| -> Result<String> {
        Ok(format!("{} {} {}", memory.before, memory.peak()?, memory.now()?))
    };
    println!(
        "{:<44} {:<18} {:<16} {:>5.1} s {:>5} ms {:>5} ms {:>11} MiB {:>11} MiB {:>6} / {}",
        case.name,
        case.kind,
        case.protection,
        took.as_secs_f64(),
        probes.slowest.as_millis(),
        pods.slowest.as_millis(),
        grown(&orchestrator)?,
        grown(&agent)?,
        calls.begun,
        calls.failed
    );
    let told = told?;
    ensure!(told.contains(case.told), "`{}` is missing in: {told}", case.told);
    left?;
    let bars = Bars::of(extent);
    for (who, figures, bar) in [
        ("a write, read or delete", &probes, bars.answer),
        ("a pod", &pods, bars.start),
    ] {
        ensure!(
            figures.wrong.is_none(),
            "{who} of a neighbour: {:?}",
            figures.wrong
        );
        ensure!(
            figures.slowest < bar,
            "{who} of a neighbour took {:?}",
            figures.slowest
        );
    }
    ensure!(
        calls.failed == failed_before,
        "calls of a neighbour failed: {calls:?}"
    );
    for (process, memory, most) in [
        (Process::Orchestrator, &orchestrator, ORCHESTRATOR_MIB),
        (Process::Agent, &agent, AGENT_MIB),
    ] {
        let peak = memory.peak()?;
        ensure!(peak < most, "{process:?} had {peak} MiB");
    }
    Ok(())
}
