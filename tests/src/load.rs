//! The SIP load that the catalog's package `sip-load` makes, deployed under the name `load`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::gantry::Gantry;
use crate::scraper::scrape_at;
use crate::sipp::Records;

/// Where the generator writes.
const FILES: &str = "/var/log/sipp";
/// Where the generator shows its counters.
const METRICS: &str = "/cgi-bin/metrics";
/// The longest call lasts a minute, and its port is kept quiet for half a minute more.
const LAST_CALLS: Duration = Duration::from_secs(150);

/// Calls so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Calls {
    /// Begun.
    pub begun: f64,
    /// Failed.
    pub failed: f64,
    /// Requests sent again.
    pub retransmissions: f64,
}

/// What the generator counts now.
pub fn calls(gantry: &Gantry) -> Result<Calls> {
    let pods = gantry.instances("load")?;
    let load = pods.first().context("the load generator is gone")?;
    let counters = scrape_at(load.metrics, METRICS).context("the load generator shows no metrics")?;
    let count = |name: &str| {
        let found = counters.get(&format!("sipp_{name}_total")).copied();
        found.with_context(|| format!("the load generator does not count {name}"))
    };
    Ok(Calls {
        begun: count("calls")?,
        failed: count("failed")?,
        retransmissions: count("retransmissions")?,
    })
}

/// Asks for no more calls, waits for those that are up, and reads the records and sipp's exit code.
pub fn finish(gantry: &Gantry) -> Result<(Records, Option<i32>)> {
    let pods = gantry.instances("load")?;
    let pod = &pods.first().context("the load generator is gone")?.name;
    gantry.text(&[
        "exec",
        pod,
        "--",
        "/bin/sh",
        "-c",
        &format!("kill -USR1 $(cat {FILES}/pid)"),
    ])?;
    let deadline = Instant::now() + LAST_CALLS;
    let exit_code = loop {
        match gantry.read_file(pod, &format!("{FILES}/exit")) {
            Ok(code) => break code.trim().parse().ok(),
            Err(error) if Instant::now() > deadline => return Err(error.context("the last calls do not end")),
            Err(_) => sleep(Duration::from_secs(1)),
        }
    };
    let read = |name: &str| gantry.read_file(pod, &format!("{FILES}/{name}"));
    Ok((
        Records::parse(&read("stat.csv")?, &read("counts.csv")?, &read("rtt.csv")?)?,
        exit_code,
    ))
}
