//! What is wrong with an object.

use anyhow::Result;
use serde_json::{Value, json};

use super::floods::template;
use super::pods;
use super::{Case, Harm, Process, Tenant};

/// Taken: there is an object now.
const TAKEN: Harm = Harm::Told("\"uid\"");

/// How often one ConfigMap is mounted: as often as a pod may mount at all.
const VOLUMES: usize = 128;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a ConfigMap of a megabyte, mounted 128 times",
        kind: "configuration",
        protection: "config-room",
        attack: |tenant| {
            tenant.make("configmaps", &big())?;
            tenant.make("pods", &mounting(VOLUMES))?;
            tenant.condition("pods/p", "a pod may have")
        },
        told: "a pod may have 4 MiB",
        harm: Harm::Memory(Process::Orchestrator, 300),
    },
    Case {
        name: "a node's room taken from five namespaces",
        kind: "configuration",
        protection: "group-share",
        attack: from_many_namespaces,
        told: "its pods there may come to 8 MiB",
        harm: Harm::Told("may come to 32 MiB"),
    },
    Case {
        name: "one long variable in thousands of arguments",
        kind: "configuration",
        protection: "config-room",
        attack: |tenant| {
            let more = json!({
                "env": [{"name": "A", "value": "x".repeat(100_000)}],
                "args": vec!["$(A)"; 5000],
            });
            tenant.make("pods", &pods::of(pods::container("", more)))?;
            tenant.condition("pods/p", "a pod may have")
        },
        told: "a pod may have 4 MiB",
        harm: Harm::Memory(Process::Orchestrator, 300),
    },
    Case {
        name: "a pod of five thousand containers",
        kind: "configuration",
        protection: "rules",
        attack: |tenant| {
            let container = |i: usize| json!({"name": format!("c{i}"), "image": "i"});
            let containers: Vec<Value> = (0..5000).map(container).collect();
            let pod = json!({"metadata": {"name": "many"}, "spec": {"containers": containers}});
            Ok(tenant.post("pods", &pod)?.body)
        },
        told: "a pod may have 64",
        harm: TAKEN,
    },
    Case {
        name: "a service with a port twice",
        kind: "services",
        protection: "rules",
        attack: port_twice,
        told: "spec.ports[1]",
        harm: TAKEN,
    },
    Case {
        name: "a user that is none",
        kind: "security context",
        protection: "rules",
        attack: |tenant| context(tenant, json!({"runAsUser": -1})),
        told: "runAsUser",
        harm: TAKEN,
    },
    Case {
        name: "SELinux where there is none",
        kind: "security context",
        protection: "rules",
        attack: |tenant| context(tenant, json!({"seLinuxOptions": {"type": "t"}})),
        told: "seLinuxOptions",
        harm: TAKEN,
    },
    Case {
        name: "a name that is a path",
        kind: "names",
        protection: "rules",
        attack: |tenant| named(tenant, "../../etc/passwd"),
        told: "metadata.name",
        harm: TAKEN,
    },
    Case {
        name: "a name with a null byte",
        kind: "names",
        protection: "rules",
        attack: |tenant| named(tenant, "x\u{0}y"),
        told: "metadata.name",
        harm: TAKEN,
    },
    Case {
        name: "a name of ten thousand characters",
        kind: "names",
        protection: "rules",
        attack: |tenant| named(tenant, &"x".repeat(10_000)),
        told: "metadata.name",
        harm: TAKEN,
    },
];

fn big() -> Value {
    json!({"metadata": {"name": "big"}, "data": {"a": "x".repeat(1_000_000)}})
}

/// A pod that mounts it so many times.
fn mounting(times: usize) -> Value {
    let names: Vec<String> = (0..times).map(|i| format!("v{i}")).collect();
    let mount = |v: &String| json!({"name": v, "mountPath": format!("/{v}")});
    let mounts: Vec<Value> = names.iter().map(mount).collect();
    let mut pod = pods::of(pods::container("exec sleep 600", json!({"volumeMounts": mounts})));
    let volume = |v: &String| json!({"name": v, "configMap": {"name": "big"}});
    pod["spec"]["volumes"] = names.iter().map(volume).collect();
    pod
}

/// In each as much as one group may have.
fn from_many_namespaces(tenant: &Tenant<'_>) -> Result<String> {
    let mut made = Vec::new();
    for number in 0..5 {
        let namespace = format!("{}-{number}", tenant.namespace);
        tenant.make_outside("/api/v1/namespaces", &json!({"metadata": {"name": namespace}}))?;
        let within = format!("/api/v1/namespaces/{namespace}");
        tenant.api.make(&format!("{within}/configmaps"), &big())?;
        for name in ["a", "b"] {
            let mut pod = mounting(4);
            pod["metadata"]["name"] = json!(name);
            tenant.api.make(&format!("{within}/pods"), &pod)?;
            made.push(format!("{within}/pods/{name}"));
        }
    }
    tenant.wait("that there is no room", || {
        made.iter().find_map(|pod| {
            let pod = tenant.api.get(pod).ok()?.json();
            let said = pod["status"]["conditions"].to_string();
            said.contains("no room left").then_some(said)
        })
    })
}

fn port_twice(tenant: &Tenant<'_>) -> Result<String> {
    let port = |name: &str| json!({"name": name, "port": 80});
    let service = json!({"metadata": {"name": "twice"}, "spec": {"ports": [port("a"), port("b")]}});
    Ok(tenant.post("services", &service)?.body)
}

fn context(tenant: &Tenant<'_>, security: Value) -> Result<String> {
    let mut pod = template(json!({"securityContext": security}));
    pod["metadata"]["name"] = json!("context");
    Ok(tenant.post("pods", &pod)?.body)
}

fn named(tenant: &Tenant<'_>, name: &str) -> Result<String> {
    Ok(tenant
        .post("configmaps", &json!({"metadata": {"name": name}}))?
        .body)
}
