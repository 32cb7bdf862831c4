//! The nodes' tables of services, which all namespaces share.

use std::time::Duration;

use anyhow::Result;
use gantry_tests::busybox::IMAGE;
use gantry_tests::poll;
use serde_json::{Value, json};

use super::{Case, Harm, Tenant};

/// How long a Service may be without a condition until it is in force.
const SOON: Duration = Duration::from_secs(15);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "more service ports than its share",
        kind: "service tables",
        protection: "namespace-share",
        attack: ports,
        told: "4096 service ports and 16384 backends are its share",
        harm: Harm::Told("all are in force"),
    },
    Case {
        name: "more backends than its share",
        kind: "service tables",
        protection: "namespace-share",
        attack: backends,
        told: "4096 service ports and 16384 backends are its share",
        harm: Harm::Told("all are in force"),
    },
];

fn service(name: &str, ports: u16) -> Value {
    let port = |i| json!({"name": format!("p{i}"), "port": 1000 + i, "targetPort": 80});
    let ports: Vec<Value> = (0..ports).map(port).collect();
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": "h"}, "ports": ports}})
}

/// One Service that takes nearly all of the share, and one more.
fn ports(tenant: &Tenant<'_>) -> Result<String> {
    tenant.make("services", &service("large", 4000))?;
    tenant.make("services", &service("more", 100))?;
    Ok(told(tenant, "services/more"))
}

/// The conditions of a Service that is not in force.
fn told(tenant: &Tenant<'_>, service: &str) -> String {
    let full = poll(SOON, || {
        let conditions = tenant.get(service).ok()?["status"]["conditions"].to_string();
        conditions.contains("TablesFull").then_some(conditions)
    });
    full.unwrap_or_else(|| "all are in force".to_owned())
}

/// Nine ready pods behind nineteen hundred ports.
fn backends(tenant: &Tenant<'_>) -> Result<String> {
    let container = json!({"name": "c", "image": IMAGE, "args": ["exec sleep 1000"]});
    for number in 0..9 {
        let metadata = json!({"name": format!("backend-{number}"), "labels": {"app": "h"}});
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
        tenant.make("pods", &json!({"metadata": metadata, "spec": spec}))?;
    }
    let ready = || {
        let pods = tenant.get("pods").ok()?;
        let ready = |pod: &&Value| {
            pod["status"]["conditions"]
                .to_string()
                .contains("\"status\":\"True\",\"type\":\"Ready\"")
        };
        (pods["items"].as_array()?.iter().filter(ready).count() == 9).then_some(())
    };
    tenant.wait("that its pods are ready", ready)?;
    tenant.make("services", &service("wide", 1900))?;
    Ok(told(tenant, "services/wide"))
}
