//! Hostile tenants: what one user writes or sends, by kind, the answer it gets, and that everybody else goes on meanwhile.
//!
//! A case is a row of [`cases::CASES`]. `GANTRY_TEST_UNGUARDED` switches a protection off: then the same case does harm.

mod cases;
mod prober;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;

use crate::machine;
use cases::CASES;
use prober::Prober;

/// Memory of the orchestrator after any case, in MiB: an idle one has some 40.
const MEMORY_MIB: u64 = 500;

/// One thing that a tenant does.
struct Case {
    /// What it is called in the table.
    name: &'static str,
    /// What it is an example of.
    kind: &'static str,
    /// The protection, as `GANTRY_TEST_UNGUARDED` calls it; empty if it cannot be switched off.
    protection: &'static str,
    /// Does it, and returns what the tenant was told.
    attack: fn(&Api) -> Result<String>,
    /// Part of that.
    told: &'static str,
}

#[test]
fn hostile_tenants_harm_nobody_else() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let gantry = Gantry::new("hostile", false)?;
    gantry.first_up(&["--pod-cidr", "10.112.0.0/16", "--service-cidr", "10.113.0.0/16"])?;
    let api = Api::of(&gantry)?;
    println!(
        "{:<34} {:<20} {:<12} {:>8} {:>9} {:>8}",
        "case", "kind", "protection", "took", "slowest", "memory"
    );
    let mut harmed = Vec::new();
    for case in CASES {
        if let Err(error) = suffer(case, &gantry, &api) {
            harmed.push(format!("{}: {error:#}", case.name));
        }
    }
    ensure!(harmed.is_empty(), "{}", harmed.join("\n"));
    Ok(())
}

/// One case, and what its neighbours and the orchestrator's memory say of it.
fn suffer(case: &Case, gantry: &Gantry, api: &Api) -> Result<()> {
    let prober = Prober::start(api.clone());
    let started = Instant::now();
    let told = (case.attack)(api);
    let took = started.elapsed();
    let slowest = prober.stop().context("its neighbours")?;
    let memory = memory_mib(gantry.pid("orchestrator")?)?;
    println!(
        "{:<34} {:<20} {:<12} {:>6.1} s {:>6} ms {:>4} MiB",
        case.name,
        case.kind,
        case.protection,
        took.as_secs_f64(),
        slowest.as_millis(),
        memory
    );
    let told = told?;
    ensure!(told.contains(case.told), "`{}` is missing in: {told}", case.told);
    ensure!(memory < MEMORY_MIB, "the orchestrator has {memory} MiB");
    Ok(())
}

fn memory_mib(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the process has no memory")? / 1024)
}
