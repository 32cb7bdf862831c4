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
        protection: "group-share",
        attack: ports,
        told: "4096 service ports and 16384 backends are its share",
        harm: Harm::Told("all are in force"),
    },
    Case {
        name: "more backends than its share",
        kind: "service tables",
        protection: "group-share",
        attack: backends,
        told: "4096 service ports and 16384 backends are its share",
        harm: Harm::Told("all are in force"),
    },
    Case {
        name: "hundreds of services before one pod",
        kind: "services",
        protection: "counts",
        attack: many,
        told: "no more are taken",
        harm: Harm::Told("all are taken"),
    },
    Case {
        name: "two pods on one address, SCTP to another port",
        kind: "services",
        protection: "service-apart",
        attack: misfit,
        told: "SctpPortChange",
        harm: Harm::Told("NetworkUnavailable"),
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
    ready(tenant, 9)?;
    tenant.make("services", &service("wide", 1900))?;
    Ok(told(tenant, "services/wide"))
}

/// Each is rewritten whenever the pod behind it changes.
fn many(tenant: &Tenant<'_>) -> Result<String> {
    for number in 0..300 {
        let answer = tenant.post("services", &service(&format!("many-{number}"), 1))?;
        if answer.code != 201 {
            return Ok(answer.body);
        }
    }
    Ok("all are taken".to_owned())
}

/// Waits until so many pods are ready.
fn ready(tenant: &Tenant<'_>, count: usize) -> Result<()> {
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].to_string();
        conditions.contains("\"status\":\"True\",\"type\":\"Ready\"")
    };
    tenant.wait("that its pods are ready", || {
        let pods = tenant.get("pods").ok()?;
        (pods["items"].as_array()?.iter().filter(is_ready).count() == count).then_some(())
    })
}

/// Only the pods know to which port its name leads: the API cannot refuse it. The node is not to blame.
fn misfit(tenant: &Tenant<'_>) -> Result<String> {
    let ports = json!([{"name": "ngap", "containerPort": 38413, "protocol": "SCTP"}]);
    let container = json!({"name": "c", "image": IMAGE, "args": ["exec sleep 1000"], "ports": ports});
    for number in 0..2 {
        let metadata = json!({"name": format!("host-{number}"), "labels": {"app": "h"}});
        let spec =
            json!({"hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [container]});
        tenant.make("pods", &json!({"metadata": metadata, "spec": spec}))?;
    }
    ready(tenant, 2)?;
    let ports = json!([{"name": "ngap", "port": 38412, "protocol": "SCTP", "targetPort": "ngap"},
        {"name": "http", "port": 80, "targetPort": 8080}]);
    let spec = json!({"selector": {"app": "h"}, "ports": ports});
    tenant.make("services", &json!({"metadata": {"name": "misfit"}, "spec": spec}))?;
    tenant.wait("what becomes of its Service", || {
        let nodes = tenant.api.get("/api/v1/nodes").ok()?.json();
        let service = tenant.get("services/misfit").ok()?;
        let conditions = [&nodes["items"][0], &service].map(|o| o["status"]["conditions"].to_string());
        let telling = |c: &String| c.contains("NetworkUnavailable") || c.contains("SctpPortChange");
        conditions.into_iter().find(telling)
    })
}
