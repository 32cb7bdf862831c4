//! Memory and CPU.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::pods::{self, Pod};
use super::{Case, Harm, Tenant};

/// Of what the pods below may have, in MiB, and more than that.
const LIMIT: &str = "64Mi";
const MORE_MIB: u64 = 150;
/// How long a share of the CPU is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// More than all pods together may have, in MiB.
const ALL_PODS_MIB: u64 = 1700;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a program of 300 MiB",
        kind: "memory",
        protection: "memory-limit",
        attack: |tenant| {
            let hog = "set -e; busybox dd if=/dev/zero of=/dev/null bs=300M count=1000; exec sleep 600";
            memory(tenant, hog, json!({}))
        },
        told: "OOMKilled",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "files in memory, without a limit of their own",
        kind: "memory",
        protection: "memory-limit,pod-memory",
        attack: |tenant| {
            let hog = "set -e; busybox dd if=/dev/zero of=/v/x bs=1M count=200; exec sleep 600";
            memory(tenant, hog, json!({"emptyDir": {"medium": "Memory"}}))
        },
        told: "OOMKilled",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "files in memory that containers leave behind",
        kind: "memory",
        protection: "pod-memory",
        attack: left_behind,
        told: "OOMKilled",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "a program of 1.9 GiB that has no limit",
        kind: "memory",
        protection: "pods-memory",
        attack: |tenant| {
            let hog = "set -e; busybox dd if=/dev/zero of=/dev/null bs=1900M count=1000; exec sleep 600";
            let pod = pods::run(tenant, hog)?;
            killed_or(&pod, ALL_PODS_MIB)
        },
        told: "OOMKilled",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "a limit of a terabyte",
        kind: "memory",
        protection: "promised-memory",
        attack: beyond_the_promise,
        told: "a neighbour starts",
        harm: Harm::Told("a neighbour has no room"),
    },
    Case {
        name: "32 busy processes beside a neighbour's two",
        kind: "processors",
        protection: "cpu-weight",
        attack: cpu,
        told: "has what it asked for",
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
    killed_or(&pods::start(tenant, &object)?, MORE_MIB)
}

/// Each container keeps within its limit, and leaves what the next one adds to.
fn left_behind(tenant: &Tenant<'_>) -> Result<String> {
    let limits = json!({"limits": {"memory": LIMIT}});
    let writer = |i: u32| {
        let script = "exec busybox dd if=/dev/zero of=/v/f bs=1M count=40";
        let mounts = json!([{"name": format!("v{i}"), "mountPath": "/v"}]);
        let more = json!({"name": format!("i{i}"), "resources": limits, "volumeMounts": mounts});
        pods::container(script, more)
    };
    // A volume for each: one of them may not be larger than the pod's limit.
    let volume = |i: u32| json!({"name": format!("v{i}"), "emptyDir": {"medium": "Memory"}});
    let mut object = pods::of(pods::container("exec sleep 600", json!({"resources": limits})));
    object["spec"]["initContainers"] = (0..6).map(writer).collect();
    object["spec"]["volumes"] = (0..6).map(volume).collect();
    let pod = pods::make(tenant, &object)?;
    let large = || pod.memory_mib().filter(|mib| *mib > MORE_MIB);
    pod.told_or("OOMKilled", || large().map(|mib| format!("it has {mib} MiB")))
}

/// It asks for next to nothing, and may use more than there is; a neighbour asks for what it needs.
fn beyond_the_promise(tenant: &Tenant<'_>) -> Result<String> {
    let of = |request: &str, limit: &str| {
        let resources = json!({"requests": {"memory": request}, "limits": {"memory": limit}});
        pods::of(pods::container("exec sleep 600", json!({"resources": resources})))
    };
    let mut greedy = of("4Mi", "1Ti");
    greedy["metadata"]["name"] = json!("greedy");
    tenant.make("pods", &greedy)?;
    tenant.wait("that the greedy one has begun", || pods::begun(tenant, "greedy"))?;
    let neighbour = pods::make(tenant, &of("16Mi", "16Mi"))?;
    let begun = || pods::begun(tenant, "p").map(|_| "a neighbour starts".to_owned());
    let told = neighbour.told_or("FailedScheduling", begun)?;
    Ok(match told.contains("FailedScheduling") {
        true => format!("a neighbour has no room: {told}"),
        false => told,
    })
}

/// Waits until the kernel has ended it, or it has more than this.
fn killed_or(pod: &Pod<'_>, most_mib: u64) -> Result<String> {
    let large = || pod.memory_mib().filter(|mib| *mib > most_mib);
    pod.told_or("OOMKilled", || large().map(|mib| format!("it has {mib} MiB")))
}

/// The neighbour asks for half a CPU. Beside eight pods of a tenant that ask for next to nothing it gets it, wherever the kernel
/// has its processes run; among nine equals it would not.
fn cpu(tenant: &Tenant<'_>) -> Result<String> {
    let busy =
        |count: u32| format!("for i in $(busybox seq {count}); do while true; do true; done & done; wait");
    let pod = |name: &str, count: u32, request: &str| {
        let requests = json!({"resources": {"requests": {"cpu": request}}});
        let mut pod = pods::of(pods::container(&busy(count), requests));
        pod["metadata"]["name"] = json!(name);
        pod
    };
    for number in 1..=8 {
        tenant.make("pods", &pod(&format!("hog-{number}"), 4, "5m"))?;
    }
    for number in 1..=8 {
        let name = format!("hog-{number}");
        tenant.wait(&format!("that {name} has begun"), || pods::begun(tenant, &name))?;
    }
    let neighbour = pods::start(tenant, &pod("p", 2, "500m"))?;
    let used = || neighbour.cpu_ns().context("the neighbour has gone");
    let (before, began) = (used()?, Instant::now());
    std::thread::sleep(MEASURED);
    let milli = (used()? - before) * 1000 / u64::try_from(began.elapsed().as_nanos())?;
    Ok(match milli >= 400 {
        true => format!("the neighbour has what it asked for: {milli}m of 500m"),
        false => format!("the neighbour is pushed aside: {milli}m of 500m"),
    })
}
