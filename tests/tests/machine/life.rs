//! An instance that is killed under calls, and what is left when all is taken away.

use anyhow::{Context, Result, ensure};
use gantry_tests::gantry::{Gantry, Instance};
use gantry_tests::leftovers::Leftovers;
use gantry_tests::scraper::{Counters, scrape};
use gantry_tests::{poll, processes, sip};

use crate::{PATIENCE, machine, up};

/// Calls that the other instance completes after the kill, before we believe that it was not touched.
const CALLS_AFTER: f64 = 50.0;

#[test]
fn a_killed_container_comes_back_and_nothing_is_left_in_the_end() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let before = Leftovers::now()?;
    let gantry = up("kill", 100, &[])?;
    let running = Leftovers::now()?;
    gantry.run(&["deploy", "sip-core"])?;
    gantry.run(&["scale", "pcscf", "--replicas", "2"])?;
    gantry.run(&[
        "deploy",
        "sip-load",
        "--name",
        "load",
        "--peer",
        "pcscf=pcscf",
        "--set",
        "rate=20",
    ])?;
    kill_one_of_two(&gantry)?;

    gantry.run(&["undeploy", "load", "sip-core"])?;
    let status = gantry.json(&["status"])?;
    ensure!(
        status["pods"].as_array().is_some_and(Vec::is_empty),
        "undeploy left pods"
    );
    running.ensure_nothing_new_of_pods().context("after undeploy")?;
    drop(gantry);
    before.ensure_nothing_new().context("after down --purge")
}

fn kill_one_of_two(gantry: &Gantry) -> Result<()> {
    let pods = gantry.pods("pcscf")?;
    let (victim, other) = (&pods[0], &pods[1]);
    let address = Instance::of_pod(other)
        .context("the other has no address")?
        .metrics;
    let others = processes::of_pod(other)?;
    let at_least = |completed: f64| {
        poll(PATIENCE, || {
            let counters = scrape(address)?;
            (completed_calls(&counters) >= completed).then_some(counters)
        })
        .context("the other instance completes no calls")
    };
    let counted = at_least(1.0)?;

    let vip = gantry.vip("pcscf")?;
    processes::kill_pod(victim)?;
    let away = sip::back_after(&vip, PATIENCE)?.context("the service stays away")?;
    println!("the service answered again {away:?} after the kill");

    let counted = at_least(completed_calls(&counted) + CALLS_AFTER)?;
    ensure!(
        processes::of_pod(other)? == others,
        "the other instance was touched"
    );
    // Requests within the dead instance's calls come to it now, so it may count some as misrouted.
    let failed = counted.get("kamailio_calls_failed_total");
    ensure!(
        failed == Some(&0.0),
        "calls failed on the other instance: {failed:?}"
    );
    Ok(())
}

fn completed_calls(counters: &Counters) -> f64 {
    counters
        .get("kamailio_calls_completed_total")
        .copied()
        .unwrap_or_default()
}
