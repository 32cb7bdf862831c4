//! What containers write.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::pods::{self, Pod};
use super::{Case, Harm, Tenant};

/// Most that the two files of a log and one more piece may have, in MiB.
const LOG_MIB: u64 = 24;
/// Most that a shim may have, in MiB: an idle one of a debug build has some 10, most of it the program itself.
const SHIM_MIB: u64 = 40;
/// A log that grows faster than this many MiB a second is held back by nothing.
const FAST_MIB: u64 = 20;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "lines without end",
        kind: "logs",
        protection: "log-size",
        attack: size,
        told: "LogRateLimit",
        harm: Harm::Told("its logs have"),
    },
    Case {
        name: "a line of a gigabyte",
        kind: "logs",
        protection: "log-line",
        attack: line,
        told: "LogRateLimit",
        harm: Harm::Told("its shim has"),
    },
    Case {
        name: "a log as fast as the machine",
        kind: "logs",
        protection: "log-rate",
        attack: rate,
        told: "LogRateLimit",
        harm: Harm::Told("its log grows by"),
    },
];

/// What writes 1,000 bytes a line.
const LINES: &str = "exec busybox yes $(busybox head -c 1000 /dev/zero | busybox tr '\\0' x)";

fn shim_mib(pod: &Pod<'_>) -> Option<u64> {
    let status = pod.shim("status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

fn logs_mib(pod: &Pod<'_>) -> u64 {
    let files = fs::read_dir(pod.dir().join("logs/c"))
        .into_iter()
        .flatten()
        .flatten();
    let bytes: u64 = files.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum();
    bytes >> 20
}

fn line(tenant: &Tenant<'_>) -> Result<String> {
    let pod = pods::run(tenant, "busybox head -c 1073741824 /dev/zero; exec sleep 600")?;
    let grown = || shim_mib(&pod).filter(|mib| *mib > SHIM_MIB);
    let told = pod.told_or("LogRateLimit", || {
        grown().map(|mib| format!("its shim has {mib} MiB"))
    })?;
    ensure!(logs_mib(&pod) <= LOG_MIB, "its logs have {} MiB", logs_mib(&pod));
    Ok(told)
}

fn size(tenant: &Tenant<'_>) -> Result<String> {
    let pod = pods::run(tenant, LINES)?;
    let large = || Some(logs_mib(&pod)).filter(|mib| *mib > LOG_MIB);
    let told = pod.told_or("LogRateLimit", || {
        large().map(|mib| format!("its logs have {mib} MiB"))
    })?;
    // Whoever reads such a log gets an end.
    let log = tenant.api.get(&tenant.path("pods/p/log?tailLines=3"))?;
    ensure!(
        log.code == 200 && log.body.len() < 4000,
        "{}: {} bytes",
        log.code,
        log.body.len()
    );
    Ok(told)
}

/// What it may have at once is over soon.
fn rate(tenant: &Tenant<'_>) -> Result<String> {
    let pod = pods::run(tenant, LINES)?;
    let written = || -> Option<u64> {
        let io = pod.shim("io")?;
        io.lines().find_map(|l| l.strip_prefix("wchar: "))?.parse().ok()
    };
    std::thread::sleep(Duration::from_secs(3));
    let (before, began) = (written().context("its shim has gone")?, Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let after = written().context("its shim has gone")?;
    let mib_per_second = ((after - before) as f64 / began.elapsed().as_secs_f64()) as u64 >> 20;
    if mib_per_second > FAST_MIB {
        return Ok(format!("its log grows by {mib_per_second} MiB a second"));
    }
    pod.told_or("LogRateLimit", || None)
}
