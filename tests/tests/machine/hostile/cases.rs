//! The table.

use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use gantry_tests::api::Api;
use gantry_tests::poll;
use serde_json::{Value, json};

use super::Case;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PATIENCE: Duration = Duration::from_secs(30);

const fn case(
    name: &'static str,
    kind: &'static str,
    protection: &'static str,
    told: &'static str,
    attack: fn(&Api) -> Result<String>,
) -> Case {
    Case {
        name,
        kind,
        protection,
        attack,
        told,
    }
}

/// By kind.
pub(super) const CASES: &[Case] = &[
    case(
        "copies that double",
        "json patch",
        "json-patch",
        "RequestEntityTooLarge",
        copies,
    ),
    case(
        "ten thousand and one operations",
        "json patch",
        "json-patch",
        "maximum operations",
        operations,
    ),
    case("a body of 12 MiB", "body", "body", "limit is 3145728", |api| {
        map(api, &"x".repeat(12 << 20))
    }),
    case("a ConfigMap of 2 MiB", "object size", "", "larger than", |api| {
        map(api, &"x".repeat(2 << 20))
    }),
    case("lists within lists", "nesting", "", "nested deeper", |api| {
        raw_map(api, &("[".repeat(5000) + &"]".repeat(5000)))
    }),
    case("a million values", "values", "", "values", |api| {
        raw_map(api, &format!("[{}0]", "0,".repeat(1_000_000)))
    }),
    case("a selector of 300 terms", "selector", "", "longer than", |api| {
        Ok(api
            .get(&format!("{MAPS}?labelSelector={}a", "a,".repeat(300)))?
            .body)
    }),
    case("forty loops of lists", "share", "share", "200", list_loops),
    case(
        "300 connections that say nothing",
        "connections",
        "connections",
        "open",
        strangers,
    ),
    case("two million replicas", "replicas", "", "TooManyWaiting", replicas),
    case("a thousand Events", "events", "", "201", events),
    case(
        "a service with a port twice",
        "services",
        "",
        "spec.ports[1]",
        port_twice,
    ),
    case(
        "a pod with the host's network",
        "pod security",
        "",
        "violates PodSecurity",
        host_network,
    ),
    case(
        "a template with the host's network",
        "pod security",
        "",
        "violates PodSecurity",
        template,
    ),
    case(
        "a user that is none",
        "security context",
        "",
        "runAsUser",
        |api| pod(api, json!({"runAsUser": -1})),
    ),
    case(
        "SELinux where there is none",
        "security context",
        "",
        "seLinuxOptions",
        |api| pod(api, json!({"seLinuxOptions": {"type": "t"}})),
    ),
    case(
        "a finalizer that never goes",
        "finalizers",
        "",
        "deletionTimestamp",
        finalizer,
    ),
    case("objects that own each other", "owners", "", "201 201", owners),
    case("names that are paths", "names", "", "422 422 422", names),
    case("two hundred namespaces", "namespaces", "", "201", namespaces),
];

fn map(api: &Api, text: &str) -> Result<String> {
    raw_map(api, &json!({"a": text}).to_string())
}

fn raw_map(api: &Api, data: &str) -> Result<String> {
    let body = format!("{{\"metadata\":{{\"name\":\"big\"}},\"data\":{data}}}");
    Ok(api.ask("POST", MAPS, "application/json", &body)?.body)
}

fn patch(api: &Api, operations: Vec<Value>) -> Result<String> {
    let _ = api.post(
        MAPS,
        &json!({"metadata": {"name": "patched"}, "data": {"a": "x".repeat(1000)}}),
    )?;
    let body = json!(operations).to_string();
    let path = format!("{MAPS}/patched");
    Ok(api
        .ask("PATCH", &path, "application/json-patch+json", &body)?
        .body)
}

fn copies(api: &Api) -> Result<String> {
    let copy = |i| json!({"op": "copy", "from": "/data", "path": format!("/data/b{i}")});
    patch(api, (0..21).map(copy).collect())
}

fn operations(api: &Api) -> Result<String> {
    patch(
        api,
        vec![json!({"op": "test", "path": "/data/a", "value": 1}); 10_001],
    )
}

/// Forty at a time, five times over; then what the tenant itself is told.
fn list_loops(api: &Api) -> Result<String> {
    for i in 0..600 {
        let object = json!({"metadata": {"name": format!("many{i:03}")}, "data": {"a": "x".repeat(1000)}});
        api.post(MAPS, &object)?;
    }
    for _ in 0..5 {
        let mut loops = Vec::new();
        for _ in 0..40 {
            let mut list = api.command("GET", &format!("{MAPS}?labelSelector=!none"), "");
            loops.push(list.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        }
        for mut list in loops {
            list.wait()?;
        }
    }
    Ok(api.get(&format!("{MAPS}?limit=1"))?.code.to_string())
}

fn strangers(api: &Api) -> Result<String> {
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(TcpStream::connect(api.address())?);
    }
    std::thread::sleep(Duration::from_secs(2));
    Ok(format!("{} open", open.len()))
}

fn template_of(security: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "none:1"}]});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), security.as_object()) {
        spec.extend(more.clone());
    }
    json!({"metadata": {"labels": {"app": "h"}}, "spec": spec})
}

fn deployment(name: &str, replicas: u32, template: Value) -> Value {
    json!({"metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "h"}}, "template": template}})
}

/// The condition of a Deployment's ReplicaSet, and the Deployment gone again.
fn condition(api: &Api, namespace: &str, deployment: &Value) -> Result<String> {
    let apps = format!("/apis/apps/v1/namespaces/{namespace}");
    api.make(&format!("{apps}/deployments"), deployment)?;
    let found = poll(PATIENCE, || {
        let sets = api.get(&format!("{apps}/replicasets")).ok()?.json();
        let conditions = sets["items"]
            .as_array()?
            .iter()
            .map(|s| s["status"]["conditions"].to_string());
        conditions.into_iter().find(|c| c.contains("ReplicaFailure"))
    });
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    api.ask("DELETE", &format!("{apps}/deployments/{name}"), "", "")?;
    found.context("the ReplicaSet has no condition")
}

fn replicas(api: &Api) -> Result<String> {
    condition(
        api,
        "default",
        &deployment("many", 2_000_000, template_of(json!({}))),
    )
}

fn events(api: &Api) -> Result<String> {
    let path = "/api/v1/namespaces/default/events";
    let mut last = 0;
    for i in 0..1000 {
        let event = json!({"metadata": {"name": format!("flood{i}")}, "involvedObject": {"kind": "Pod", "name": "x"}, "reason": "Flood"});
        last = api.post(path, &event)?.code;
    }
    Ok(last.to_string())
}

fn port_twice(api: &Api) -> Result<String> {
    let port = |name: &str| json!({"name": name, "port": 80});
    let service = json!({"metadata": {"name": "twice"}, "spec": {"ports": [port("a"), port("b")]}});
    Ok(api.post("/api/v1/namespaces/default/services", &service)?.body)
}

/// A namespace that takes no more than baseline.
fn baseline(api: &Api) -> Result<()> {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    let made = api.post(
        "/api/v1/namespaces",
        &json!({"metadata": {"name": "base", "labels": labels}}),
    )?;
    anyhow::ensure!([201, 409].contains(&made.code), "{}", made.body);
    Ok(())
}

fn host_network(api: &Api) -> Result<String> {
    baseline(api)?;
    let mut pod = template_of(json!({"hostNetwork": true}));
    pod["metadata"]["name"] = json!("host");
    Ok(api.post("/api/v1/namespaces/base/pods", &pod)?.body)
}

fn template(api: &Api) -> Result<String> {
    baseline(api)?;
    condition(
        api,
        "base",
        &deployment("host", 3, template_of(json!({"hostNetwork": true}))),
    )
}

fn pod(api: &Api, security: Value) -> Result<String> {
    let mut pod = template_of(json!({"securityContext": security}));
    pod["metadata"]["name"] = json!("context");
    Ok(api.post("/api/v1/namespaces/default/pods", &pod)?.body)
}

fn finalizer(api: &Api) -> Result<String> {
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.org/never"]}});
    api.make(MAPS, &held)?;
    Ok(api.ask("DELETE", &format!("{MAPS}/held"), "", "")?.body)
}

fn owners(api: &Api) -> Result<String> {
    let owned = |name: &str, by: &str| {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": by, "uid": by});
        json!({"metadata": {"name": name, "ownerReferences": [owner]}})
    };
    let (a, b) = (owned("cycle-a", "cycle-b"), owned("cycle-b", "cycle-a"));
    Ok(format!(
        "{} {}",
        api.post(MAPS, &a)?.code,
        api.post(MAPS, &b)?.code
    ))
}

fn names(api: &Api) -> Result<String> {
    let mut codes = Vec::new();
    for name in ["../../etc/passwd", "a%2Fb", "x\u{0}y"] {
        codes.push(
            api.post(MAPS, &json!({"metadata": {"name": name}}))?
                .code
                .to_string(),
        );
    }
    Ok(codes.join(" "))
}

fn namespaces(api: &Api) -> Result<String> {
    let mut last = 0;
    for i in 0..200 {
        last = api
            .post(
                "/api/v1/namespaces",
                &json!({"metadata": {"name": format!("n{i}")}}),
            )?
            .code;
    }
    Ok(last.to_string())
}
