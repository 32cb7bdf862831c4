//! What a pod answers to those who ask it: probes, hooks, metrics.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::pods;
use super::{Case, Harm, Process, Tenant};

/// Growth of the agent that is harm, in MiB.
const GROWTH_MIB: u64 = 100;
const MEMORY: Harm = Harm::Memory(Process::Agent, GROWTH_MIB);
/// What is told in time otherwise.
const SILENCE: Duration = Duration::from_secs(15);
const NOTHING: Harm = Harm::Told("nothing is said");

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a readiness answer without end",
        kind: "answers",
        protection: "http-bound",
        attack: |tenant| http(tenant, BODY, "\"ready\":true"),
        told: "\"ready\":true",
        harm: MEMORY,
    },
    Case {
        name: "a readiness header without end",
        kind: "answers",
        protection: "http-bound",
        attack: |tenant| http(tenant, HEADER, "the header is too long"),
        told: "Unhealthy",
        harm: MEMORY,
    },
    Case {
        name: "a readiness answer of a byte a second",
        kind: "answers",
        protection: "probe-time",
        attack: |tenant| http(tenant, DRIP, "no answer within"),
        told: "Unhealthy",
        harm: NOTHING,
    },
    Case {
        name: "a probe's command that never ends, and writes without end",
        kind: "answers",
        protection: "probe-time",
        attack: command,
        told: "Unhealthy",
        harm: NOTHING,
    },
    Case {
        name: "a hook's answer without end",
        kind: "answers",
        protection: "http-bound",
        attack: hook,
        told: "Killing",
        harm: MEMORY,
    },
    Case {
        name: "metrics without end",
        kind: "answers",
        protection: "http-bound",
        attack: |tenant| metrics(tenant, BODY),
        told: "SessionsUnknown",
        harm: MEMORY,
    },
    Case {
        name: "a metrics header without end",
        kind: "answers",
        protection: "http-bound",
        attack: |tenant| metrics(tenant, HEADER),
        told: "SessionsUnknown",
        harm: MEMORY,
    },
    Case {
        name: "three million series",
        kind: "answers",
        protection: "http-bound",
        attack: |tenant| metrics(tenant, SERIES),
        told: "SessionsUnknown",
        harm: Harm::Memory(Process::Agent, 50),
    },
    Case {
        name: "metrics that never come",
        kind: "answers",
        protection: "probe-time",
        attack: |tenant| metrics(tenant, DRIP),
        told: "SessionsUnknown",
        harm: NOTHING,
    },
    Case {
        name: "hundreds of commands a second beside a neighbour's probe",
        kind: "answers",
        protection: "probe-share",
        attack: commands,
        told: "is never restarted",
        harm: Harm::Told("is restarted"),
    },
];

/// How long a neighbour's probe is looked at.
const BESIDE: Duration = Duration::from_secs(25);

/// What the pod's web server does when it is asked.
const BODY: &str = "printf 'HTTP/1.0 200 OK\\r\\n\\r\\n'; exec busybox yes";
const HEADER: &str = "printf 'HTTP/1.0 200 OK\\r\\n'; exec busybox yes 'a: b'";
const DRIP: &str =
    "printf 'HTTP/1.0 200 OK\\r\\nContent-Length: 999\\r\\n\\r\\n'; while true; do echo; sleep 1; done";
const SERIES: &str =
    "printf 'HTTP/1.0 200 OK\\r\\n\\r\\n'; busybox yes 'sessions{a=\"bcdefgh\"} 1' | busybox head -n 3000000";

/// Serves it at this path of port 8080.
const PATH: &str = "/cgi-bin/x";

fn server(answer: &str) -> String {
    let quoted = answer.replace('\'', "'\\''");
    format!(
        "busybox mkdir -p /tmp/www/cgi-bin; echo '#!/bin/sh' > /tmp/www{PATH}; busybox printf '%s' '{quoted}' >> /tmp/www{PATH}; \
         busybox chmod +x /tmp/www{PATH}; exec httpd -f -p 8080 -h /tmp/www"
    )
}

fn get(more: Value) -> Value {
    let mut probe = json!({"httpGet": {"port": 8080, "path": PATH}});
    pods::merge(&mut probe, more);
    probe
}

fn http(tenant: &Tenant<'_>, answer: &str, told: &str) -> Result<String> {
    let probe = get(json!({"periodSeconds": 2, "timeoutSeconds": 2, "initialDelaySeconds": 1}));
    let container = pods::container(&server(answer), json!({"readinessProbe": probe}));
    said(tenant, &pods::of(container), told)
}

fn command(tenant: &Tenant<'_>) -> Result<String> {
    let endless = json!({"exec": {"command": ["busybox", "yes"]}, "periodSeconds": 2, "timeoutSeconds": 2});
    let container = pods::container("exec sleep 600", json!({"livenessProbe": endless}));
    said(tenant, &pods::of(container), "did not end within")
}

/// Its pod is deleted: the hook comes first, and has all the time that the pod is given.
fn hook(tenant: &Tenant<'_>) -> Result<String> {
    let more = json!({"lifecycle": {"preStop": get(json!({}))},
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    let mut object = pods::of(pods::container(&server(BODY), more));
    object["spec"]["terminationGracePeriodSeconds"] = json!(10);
    let pod = pods::start(tenant, &object)?;
    pod.told_or("\"ready\":true", || None)?;
    tenant.api.ask("DELETE", &tenant.path("pods/p"), "", "")?;
    let gone = || (tenant.get("pods/p").ok()?["code"] == 404).then_some(());
    tenant.wait("that its pod is gone", gone)?;
    let said = pod.told_or("Killing", || None)?;
    ensure!(!said.contains("FailedPreStopHook"), "{said}");
    Ok(said)
}

fn metrics(tenant: &Tenant<'_>, answer: &str) -> Result<String> {
    let mut object = pods::of(pods::container(&server(answer), json!({})));
    let sessions = json!({"port": 8080, "path": PATH, "metric": "sessions"});
    let extras = json!({"drain": {"method": "sessions", "sessions": sessions}});
    object["metadata"]["annotations"] = json!({"gantry.dev/extras": extras.to_string()});
    said(tenant, &object, "SessionsUnknown")
}

fn said(tenant: &Tenant<'_>, object: &Value, told: &str) -> Result<String> {
    let pod = pods::start(tenant, object)?;
    let began = Instant::now();
    let late = || began.elapsed() > SILENCE;
    pod.told_or(told, || late().then(|| "nothing is said of it".to_owned()))
}

/// A neighbour whose probe is a command, beside pods of 64 containers with two such probes each.
fn commands(tenant: &Tenant<'_>) -> Result<String> {
    let container = |name: String| {
        let command = json!({"command": ["busybox", "true"]});
        let probe = json!({"exec": command, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3});
        let more = json!({"livenessProbe": probe, "readinessProbe": probe});
        let mut container = pods::container("exec sleep 600", more);
        container["name"] = json!(name);
        container
    };
    let neighbour = pods::start(tenant, &pods::of(container("c".to_owned())))?;
    let hogs = ["hog-1", "hog-2", "hog-3"];
    for name in hogs {
        let mut hog = pods::of(Value::Null);
        hog["metadata"]["name"] = json!(name);
        hog["spec"]["containers"] = (0..64).map(|i| container(format!("c{i}"))).collect();
        tenant.make("pods", &hog)?;
    }
    for name in hogs {
        tenant.wait(&format!("that {name} has begun"), || pods::begun(tenant, name))?;
    }
    let began = Instant::now();
    while began.elapsed() < BESIDE {
        if neighbour.restarts().is_some_and(|restarts| restarts > 0) {
            return Ok("the neighbour is restarted".to_owned());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok("the neighbour is never restarted".to_owned())
}
