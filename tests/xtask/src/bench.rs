//! `cargo xtask bench`: every benchmark in one table, each figure with a peer or floor measured in the same run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::shell;

/// Benchmarks: name, package, criterion bench target. In each group the function `gantry` is measured against one peer or
/// floor, named in the other function.
const BENCHES: [(&str, &str, &str); 3] = [
    ("planner", "gantry-plan", "plan"),
    ("cni", "gantry-cni", "add"),
    ("pod-start", "gantry-nodeagent", "pod_start"),
];

/// One measured figure.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    peer: String,
    peer_value: f64,
    ratio: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BenchReport {
    host: Host,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Host {
    kernel: String,
    cpu: String,
    cpus: usize,
    memory: String,
}

/// Runs all benchmarks, or one.
pub fn run(name: Option<&str>, report_file: Option<&Path>) -> Result<()> {
    let chosen: Vec<_> = BENCHES
        .iter()
        .filter(|(bench, _, _)| name.is_none_or(|n| n == *bench))
        .collect();
    if chosen.is_empty() {
        let known: Vec<&str> = BENCHES.iter().map(|b| b.0).collect();
        bail!(
            "no benchmark `{}`; there are: {}",
            name.unwrap_or_default(),
            known.join(", ")
        );
    }
    let mut figures = Vec::new();
    for (_, package, target) in chosen {
        figures.extend(measure(package, target)?);
    }
    let report = BenchReport {
        host: Host::here(),
        figures,
    };
    let host = &report.host;
    println!(
        "host: {} CPUs {}, {}, kernel {}",
        host.cpus, host.cpu, host.memory, host.kernel
    );
    println!(
        "{:<52}{:>12} {:<10}{:<44}{:>12}{:>8}",
        "FIGURE", "VALUE", "UNIT", "PEER OR FLOOR", "VALUE", "RATIO"
    );
    for f in &report.figures {
        println!(
            "{:<52}{:>12.3} {:<10}{:<44}{:>12.3}{:>8.2}",
            f.name, f.value, f.unit, f.peer, f.peer_value, f.ratio
        );
    }
    if let Some(file) = report_file {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Runs one criterion target (cargo builds the binaries that it needs) and reads the estimates that it leaves: none if it could
/// not run here, which it says itself.
fn measure(package: &str, target: &str) -> Result<Vec<Figure>> {
    let results = shell::target().join("criterion");
    if results.exists() {
        std::fs::remove_dir_all(&results).with_context(|| format!("cannot clear {}", results.display()))?;
    }
    // Wherever cargo builds, criterion writes where we look.
    shell::cargo_with(
        &["bench", "--quiet", "-p", package, "--bench", target],
        &[("CRITERION_HOME", &results)],
    )?;
    if !results.exists() {
        println!("SKIPPED: {package} {target}: no figures, for the reason above");
        return Ok(Vec::new());
    }
    let mut groups: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    for group in std::fs::read_dir(&results)?.flatten() {
        for function in std::fs::read_dir(group.path()).into_iter().flatten().flatten() {
            if let Some((group, function, milliseconds)) = estimate(&function.path()) {
                groups.entry(group).or_default().push((function, milliseconds));
            }
        }
    }
    groups
        .into_iter()
        .map(|(name, functions)| figure(name, &functions))
        .collect()
}

/// Group, function and mean in milliseconds of one criterion result.
fn estimate(directory: &Path) -> Option<(String, String, f64)> {
    let read = |name: &str| -> Option<Value> {
        serde_json::from_slice(&std::fs::read(directory.join("new").join(name)).ok()?).ok()
    };
    let id = read("benchmark.json")?;
    let mean_ns = read("estimates.json")?["mean"]["point_estimate"].as_f64()?;
    Some((
        id["group_id"].as_str()?.to_owned(),
        id["function_id"].as_str()?.to_owned(),
        mean_ns / 1e6,
    ))
}

fn figure(name: String, functions: &[(String, f64)]) -> Result<Figure> {
    let own = functions.iter().find(|(function, _)| function == "gantry");
    let peer = functions.iter().find(|(function, _)| function != "gantry");
    let (Some((_, value)), Some((peer, peer_value))) = (own, peer) else {
        bail!("the benchmark group `{name}` has no pair of `gantry` and a peer or floor");
    };
    Ok(Figure {
        value: *value,
        unit: "ms",
        peer: peer.clone(),
        peer_value: *peer_value,
        ratio: value / peer_value,
        name,
    })
}

impl Host {
    fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
            line.split_once(':')
                .map(|(_, v)| v.trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: field(&read("/proc/meminfo"), "MemTotal"),
        }
    }
}
