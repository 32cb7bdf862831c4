//! The nodes' tables of services, which all namespaces share.

use std::time::Duration;

use anyhow::Result;
use gantry_tests::busybox::IMAGE;
use serde_json::{Value, json};

use super::super::prober;
use super::{Case, Harm, Tenant};

/// Ports of a large Service: one less than a namespace may have.
const PORTS: u16 = 127;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "all service ports that a node takes",
        kind: "service tables",
        protection: "namespace-share",
        attack: ports,
        told: "128 service ports and 1024 backends are its share",
        harm: Harm::Told("the neighbour has no room"),
    },
    Case {
        name: "more backends than its share",
        kind: "service tables",
        protection: "namespace-share",
        attack: backends,
        told: "128 service ports and 1024 backends are its share",
        harm: Harm::Told("all are in force"),
    },
];

fn service(name: &str, ports: u16) -> Value {
    let port = |i| json!({"name": format!("p{i}"), "port": 1000 + i, "targetPort": 80});
    let ports: Vec<Value> = (0..ports).map(port).collect();
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": "h"}, "ports": ports}})
}

/// Four large Services, and small ones for what is left; then a neighbour makes one.
fn ports(tenant: &Tenant<'_>) -> Result<String> {
    for number in 0..4 {
        tenant.make("services", &service(&format!("large-{number}"), PORTS))?;
    }
    for number in 0..8 {
        tenant.make("services", &service(&format!("small-{number}"), 1))?;
    }
    let told = tenant.condition("services/small-7", "TablesFull")?;
    let services = format!("/api/v1/namespaces/{}/services", prober::NAMESPACE);
    let name = format!("beside-{}", tenant.namespace);
    tenant.make_outside(&services, &service(&name, 1))?;
    // A condition would be there after the next pass.
    std::thread::sleep(Duration::from_secs(2));
    let beside = tenant.api.get(&format!("{services}/{name}"))?.body;
    Ok(match beside.contains("TablesFull") {
        true => format!("the neighbour has no room: {beside}"),
        false => told,
    })
}

/// Nine ready pods behind as many ports.
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
    tenant.make("services", &service("wide", PORTS))?;
    std::thread::sleep(Duration::from_secs(2));
    let told = tenant.get("services/wide")?["status"]["conditions"].to_string();
    Ok(match told.contains("TablesFull") {
        true => told,
        false => format!("all are in force: {told}"),
    })
}
