//! Processes without number, and those that do not end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::pods;
use super::{Case, Harm, Tenant};

/// More than a pod may have.
const MANY: u64 = 4300;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "4,500 processes",
        kind: "processes",
        protection: "pids",
        // They wait for a pipe that nobody writes: nothing of them is copied.
        attack: |tenant| {
            multiply(
                tenant,
                "busybox mkfifo /f; for i in $(busybox seq 4500); do read x < /f & done; wait",
            )
        },
        told: "PidsLimit",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "a bomb of forks",
        kind: "processes",
        protection: "pids",
        attack: bomb,
        told: "PidsLimit",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "ended processes that nobody waits for",
        kind: "processes",
        protection: "pids",
        attack: |tenant| {
            let zombie = "(busybox true & exec busybox sleep 600) &";
            multiply(
                tenant,
                &format!("for i in $(busybox seq 2250); do {zombie} done; wait"),
            )
        },
        told: "PidsLimit",
        harm: Harm::Told("it has"),
    },
    Case {
        name: "a hook before the end that hangs",
        kind: "ends",
        protection: "kill",
        attack: |tenant| {
            let hangs = json!({"exec": {"command": ["sleep", "600"]}});
            let lifecycle = json!({"lifecycle": {"preStop": hangs}});
            end(
                tenant,
                pods::container("exec sleep 600", lifecycle),
                "FailedPreStopHook",
            )
        },
        told: "FailedPreStopHook",
        harm: Harm::Told("it is still there"),
    },
    Case {
        name: "a program that does not end when it is asked",
        kind: "ends",
        protection: "kill",
        attack: |tenant| {
            let deaf = "trap '' TERM; while true; do sleep 1; done";
            end(tenant, pods::container(deaf, json!({})), "Killing")
        },
        told: "Killing",
        harm: Harm::Told("it is still there"),
    },
    Case {
        name: "daemons that would outlive their program",
        kind: "ends",
        protection: "pid-namespace",
        attack: daemons,
        told: "Completed",
        harm: Harm::Told("are left of it"),
    },
    Case {
        name: "a program that ends at once, again and again",
        kind: "restarts",
        protection: "back-off",
        attack: crash,
        told: "CrashLoopBackOff",
        harm: Harm::Told("times"),
    },
    Case {
        name: "twenty pods that end at once",
        kind: "restarts",
        protection: "back-off",
        attack: crashes,
        told: "CrashLoopBackOff",
        harm: Harm::Told("times"),
    },
];

fn multiply(tenant: &Tenant<'_>, script: &str) -> Result<String> {
    let pod = pods::run(tenant, script)?;
    let many = || pod.processes().filter(|count| *count > MANY);
    pod.told_or("PidsLimit", || {
        many().map(|count| format!("it has {count} processes"))
    })
}

/// It goes on for a while after the pod is told, so that neighbours feel it.
fn bomb(tenant: &Tenant<'_>) -> Result<String> {
    let told = multiply(tenant, "b() { b & b & }; while :; do b; done")?;
    std::thread::sleep(Duration::from_secs(5));
    Ok(told)
}

/// Deletes the pod, which should be gone in its time and a little.
fn end(tenant: &Tenant<'_>, container: Value, told: &str) -> Result<String> {
    let mut object = pods::of(container);
    object["spec"]["terminationGracePeriodSeconds"] = json!(2);
    let pod = pods::start(tenant, &object)?;
    tenant.api.ask("DELETE", &tenant.path("pods/p"), "", "")?;
    let began = Instant::now();
    let gone = || tenant.get("pods/p").is_ok_and(|answer| answer["code"] == 404);
    tenant.wait("that its pod is gone", || {
        let late = began.elapsed() > Duration::from_secs(20);
        (late || gone()).then_some(())
    })?;
    if !gone() {
        return Ok(format!("it is still there after {:?}", began.elapsed()));
    }
    pod.told_or(told, || None)
}

/// Another container keeps the pod, so that the pod's end is not what ends them. What the program has started is told by
/// nobody: it is counted as soon as the program's own end is told.
fn daemons(tenant: &Tenant<'_>) -> Result<String> {
    let script = "for i in $(busybox seq 20); do busybox setsid sh -c 'sleep 600 &' & done; wait";
    let stays = pods::container("exec sleep 600", json!({"name": "stays"}));
    let mut object = pods::of(stays);
    object["spec"]["restartPolicy"] = json!("Never");
    if let Some(containers) = object["spec"]["containers"].as_array_mut() {
        containers.push(pods::container(script, json!({})));
    }
    let pod = pods::start(tenant, &object)?;
    let end = tenant.wait("the end of its program", || {
        let pod = tenant.get("pods/p").ok()?;
        let statuses = pod["status"]["containerStatuses"].as_array()?;
        let own = statuses.iter().find(|status| status["name"] == "c")?;
        let ended = &own["state"]["terminated"];
        ended.is_object().then(|| ended.to_string())
    })?;
    match pod.processes().context("its pod has gone")? {
        0..=1 => Ok(end),
        more => Ok(format!("{} processes are left of it", more - 1)),
    }
}

/// More often than with pauses of 1, 2 and 4 seconds.
fn often(since: Instant, restarts: u64, pods: u64) -> Option<String> {
    let took = since.elapsed();
    (restarts > 8 * pods).then(|| format!("started again {restarts} times in {took:?}"))
}

fn crash(tenant: &Tenant<'_>) -> Result<String> {
    let pod = pods::run(tenant, "exit 1")?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        if let Some(harm) = often(began, pod.restarts().unwrap_or(0), 1) {
            return Ok(harm);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    pod.told_or("CrashLoopBackOff", || None)
}

fn crashes(tenant: &Tenant<'_>) -> Result<String> {
    let mut template = pods::of(pods::container("exit 1", json!({})));
    template["metadata"] = json!({"labels": {"app": "h"}});
    let spec = json!({"replicas": 20, "selector": {"matchLabels": {"app": "h"}}, "template": template});
    tenant.make(
        "apps/v1/deployments",
        &json!({"metadata": {"name": "many"}, "spec": spec}),
    )?;
    let restarts = |list: &Value| -> u64 {
        let pods = list["items"].as_array().into_iter().flatten();
        pods.filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64())
            .sum()
    };
    let began = Instant::now();
    tenant.wait("how its pods do", || {
        let pods = tenant.get("pods").ok()?;
        let over = began.elapsed() > Duration::from_secs(12);
        let text = pods.to_string();
        let backs_off = over && text.contains("CrashLoopBackOff");
        often(began, restarts(&pods), 20).or_else(|| backs_off.then_some(text))
    })
}
