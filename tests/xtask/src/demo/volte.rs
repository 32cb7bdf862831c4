//! Voice over LTE on one server, end to end: attached, registered and calling subscribers, and a report.

use std::path::Path;

use anyhow::{Context, Result};
use gantry_tests::Images;
use gantry_tests::gantry::Gantry;
use gantry_tests::leftovers::Leftovers;
use gantry_tests::volte::{self, Load, Report};

use super::NETWORKS;
use crate::prepare;

/// Builds what is missing, runs, reports. Fails when anything failed or was lost.
pub fn run(load: Load, keep: bool, report_file: Option<&Path>) -> Result<()> {
    prepare::for_pods("demo volte")?;
    let before = Leftovers::now()?;
    let gantry = Gantry::new("volte", keep)?;
    gantry.first_up(&NETWORKS)?;
    gantry.import_images(Images::CORE)?;
    gantry.run(&["service", "graph", "volte"])?;
    let report = volte::play(&gantry, load)?;
    if let Some(file) = report_file {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    tell(&report);
    if keep {
        let place = gantry.path().display();
        println!("kept: export KUBECONFIG={place}/kubeconfig; gantry --data-dir {place}");
    } else {
        gantry.run(&["undeploy", "volte"])?;
        drop(gantry);
        before.ensure_nothing_new()?;
        println!("`down --purge` left nothing behind");
    }
    report.judge()
}

fn tell(report: &Report) {
    let attaches = &report.radio["attaches"];
    println!("attaches: {} of {}", attaches["attached"], attaches["asked"]);
    for what in ["registrations", "refreshes", "calls", "holds", "messages"] {
        let of = &report.calls[what];
        println!(
            "{what}: {} of {}, {} failed, p95 {} ms",
            of["done"], of["begun"], of["failed"], of["p95_ms"]
        );
    }
    let audio = &report.calls["audio"];
    println!("calls at once: {}", report.calls["calls_at_once"]);
    println!(
        "audio: {} packets, {} lost, longest gap {} ms; requests sent again: {}",
        audio["sent"], audio["lost"], audio["longest_gap_ms"], report.calls["retransmissions"]
    );
    println!("{:<16} {:>10} {:>12}", "FUNCTION", "PASSED", "MEMORY (MB)");
    for (function, passed) in &report.passed {
        let megabytes = report.memory_bytes.get(function).copied().unwrap_or(0) as f64 / 1e6;
        println!("{function:<16} {passed:>10} {megabytes:>12.1}");
    }
}
