//! Values of columns that take more than a path.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::columns::human_age;
use super::path::{at, list, text};

pub(super) fn count(object: &Value, pointer: &str) -> i64 {
    at(object, pointer).as_i64().unwrap_or_default()
}

pub(super) fn size(object: &Value, pointer: &str) -> usize {
    let found = at(object, pointer);
    found
        .as_object()
        .map(|o| o.len())
        .or(found.as_array().map(Vec::len))
        .unwrap_or_default()
}

pub(super) fn joined(parts: impl Iterator<Item = String>, none: &str) -> Value {
    let text = parts.collect::<Vec<_>>().join(",");
    Value::String(if text.is_empty() { none.to_owned() } else { text })
}

pub(super) fn or_none(value: &Value, pointer: &str) -> Value {
    let found = text(value, pointer);
    json!(if found.is_empty() { "<none>" } else { found })
}

pub(super) fn node_status(node: &Value) -> Value {
    let ready = list(node, "/status/conditions")
        .iter()
        .find(|c| text(c, "/type") == "Ready");
    let mut status = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if at(node, "/spec/unschedulable") == true {
        status.push_str(",SchedulingDisabled");
    }
    json!(status)
}

pub(super) fn node_roles(node: &Value) -> Value {
    let labels = at(node, "/metadata/labels").as_object();
    let roles = labels
        .into_iter()
        .flatten()
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"));
    joined(roles.map(str::to_owned), "<none>")
}

pub(super) fn node_address(node: &Value) -> Value {
    let found = list(node, "/status/addresses")
        .iter()
        .find(|a| text(a, "/type") == "InternalIP");
    json!(found.map_or("<none>", |a| text(a, "/address")))
}

pub(super) fn service_ports(service: &Value) -> Value {
    let port = |p: &Value| {
        let node = count(p, "/nodePort");
        let outside = if node == 0 {
            String::new()
        } else {
            format!(":{node}")
        };
        format!("{}{outside}/{}", count(p, "/port"), text(p, "/protocol"))
    };
    joined(list(service, "/spec/ports").iter().map(port), "<none>")
}

pub(super) fn selector_text(selector: &Value) -> Value {
    let pairs = selector.as_object().into_iter().flatten();
    joined(
        pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())),
        "<none>",
    )
}

pub(super) fn slice_ports(slice: &Value) -> Value {
    joined(
        list(slice, "/ports")
            .iter()
            .map(|p| count(p, "/port").to_string()),
        "<unset>",
    )
}

pub(super) fn slice_endpoints(slice: &Value) -> Value {
    let addresses = list(slice, "/endpoints")
        .iter()
        .flat_map(|e| list(e, "/addresses"));
    joined(addresses.filter_map(Value::as_str).map(str::to_owned), "<unset>")
}

pub(super) fn event_object(event: &Value) -> Value {
    let kind = text(event, "/involvedObject/kind").to_lowercase();
    json!(format!("{kind}/{}", text(event, "/involvedObject/name")))
}

pub(super) fn event_seen(event: &Value) -> Value {
    let seen = ["/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let time = seen
        .iter()
        .map(|p| text(event, p))
        .find(|t| !t.is_empty())
        .unwrap_or_default();
    match OffsetDateTime::parse(time, &Rfc3339) {
        Ok(since) => json!(human_age((OffsetDateTime::now_utc() - since).whole_seconds())),
        Err(_) => json!("<unknown>"),
    }
}

pub(super) fn template_parts(object: &Value, field: &str) -> Value {
    let containers = list(object, "/spec/template/spec/containers").iter();
    joined(containers.map(|c| text(c, field).to_owned()), "<none>")
}

pub(super) fn topology_cpus(node: &Value) -> Value {
    json!(size(node, "/spec/topology/cpus"))
}

pub(super) fn topology_held(node: &Value) -> Value {
    let held = at(node, "/status/exclusive").as_object().into_iter().flatten();
    joined(
        held.map(|(who, cpus)| format!("{who}={}", cpus.as_str().unwrap_or_default())),
        "<none>",
    )
}
