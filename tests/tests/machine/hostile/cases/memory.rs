//! Memory and CPU.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::pods;
use super::{Case, Harm, Tenant};

/// Of what the pods below may have, in MiB, and more than that.
const LIMIT: &str = "64Mi";
const MORE_MIB: u64 = 150;

/// Processor time that no start takes, in nanoseconds.
const STARTED_NS: u64 = 400_000_000;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a program of 300 MiB",
        kind: "memory",
        protection: "memory-limit",
        attack: |tenant| {
            let hog = "set -e; busybox dd if=/dev/zero of=/dev/null bs=300M count=4; exec sleep 600";
            memory(tenant, hog, json!({}))
        },
        told: "OOMKilled",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "files in memory, without a limit of their own",
        kind: "memory",
        protection: "memory-limit",
        attack: |tenant| {
            let hog = "set -e; busybox dd if=/dev/zero of=/v/x bs=1M count=200; exec sleep 600";
            memory(tenant, hog, json!({"emptyDir": {"medium": "Memory"}}))
        },
        told: "OOMKilled",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "32 busy processes beside a neighbour's two",
        kind: "memory",
        protection: "cpu-weight",
        attack: cpu,
        told: "keeps its share",
        harm: Harm::Told("is pushed aside"),
    },
];

fn memory(tenant: &Tenant<'_>, script: &str, volume: Value) -> Result<String> {
    let mut more = json!({"resources": {"limits": {"memory": LIMIT}}});
    let with_volume = volume != json!({});
    if with_volume {
        more["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    }
    let mut object = pods::of(pods::container(script, more));
    if with_volume {
        let mut named = json!({"name": "v"});
        pods::merge(&mut named, volume);
        object["spec"]["volumes"] = json!([named]);
    }
    let pod = pods::start(tenant, &object)?;
    let large = || pod.memory_mib().filter(|mib| *mib > MORE_MIB);
    pod.told_or("OOMKilled", || large().map(|mib| format!("it has {mib} MiB")))
}

/// Two containers of one tenant would share its weight: the neighbour is another pod, with ten times the request.
fn cpu(tenant: &Tenant<'_>) -> Result<String> {
    let busy =
        |count: u32| format!("for i in $(busybox seq {count}); do while true; do true; done & done; wait");
    let requests = |milli: &str| json!({"resources": {"requests": {"cpu": milli}}});
    let mut neighbour = pods::of(pods::container(&busy(2), requests("500m")));
    neighbour["metadata"]["name"] = json!("neighbour");
    tenant.make("pods", &neighbour)?;
    let runs = || {
        tenant.get("pods/neighbour").ok()?["metadata"]["uid"]
            .as_str()
            .map(str::to_owned)
    };
    let uid = tenant.wait("that its neighbour runs", runs)?;
    let hog = pods::start(tenant, &pods::of(pods::container(&busy(32), requests("50m"))))?;
    let neighbour = hog.another(uid);
    let used = || -> Option<(u64, u64)> { Some((hog.cpu_ns()?, neighbour.cpu_ns()?)) };
    // The time in which both work counts, not that of their start.
    tenant.wait("that both work", || {
        used().filter(|(hog, other)| hog.min(other) > &STARTED_NS)
    })?;
    let (before, began) = (used().context("they have gone")?, Instant::now());
    while began.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let after = used().context("they have gone")?;
    let (hog, other) = (after.0 - before.0, after.1 - before.1);
    let ratio = other as f64 / hog.max(1) as f64;
    Ok(match ratio > 3.0 {
        true => format!("the neighbour keeps its share: {ratio:.1} times the other's"),
        false => format!("the neighbour is pushed aside: {ratio:.1} times the other's"),
    })
}
