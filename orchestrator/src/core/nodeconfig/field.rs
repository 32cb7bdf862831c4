//! The downward API: what a container may be told of its own pod.
//!
//! Source: k8s.io/kubernetes/pkg/fieldpath and pkg/api/v1/resource, `ExtractContainerResourceValue`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceFieldSelector};

use super::super::world::{Key, Work};
use super::super::{meta, pods};
use crate::quantity;

/// The value of a `fieldRef`.
pub(super) fn value(work: &Work<'_>, pod: &Pod, path: &str) -> Result<String, String> {
    let m = &pod.metadata;
    let quoted = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    let address = || pods::address(pod).map(|a| a.to_string()).unwrap_or_default();
    let value = match path {
        "metadata.name" => meta::name(m).to_owned(),
        "metadata.namespace" => meta::namespace(m).to_owned(),
        "metadata.uid" => meta::uid(m).to_owned(),
        "metadata.labels" => lines(m.labels.as_ref()),
        "metadata.annotations" => lines(m.annotations.as_ref()),
        "spec.nodeName" => pods::node(pod).unwrap_or_default().to_owned(),
        "spec.serviceAccountName" => {
            let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
            account.unwrap_or_else(|| "default".to_owned())
        }
        "status.podIP" | "status.podIPs" => address(),
        "status.hostIP" | "status.hostIPs" => {
            let hello = pods::node(pod).and_then(|node| work.agents.get(node)?.hello.as_ref());
            hello.map(|hello| hello.address.to_string()).unwrap_or_default()
        }
        _ => match (quoted("metadata.labels['"), quoted("metadata.annotations['")) {
            (Some(key), _) => meta::label(m, key).unwrap_or_default().to_owned(),
            (_, Some(key)) => meta::annotation(m, key).unwrap_or_default().to_owned(),
            _ => return Err(format!("field {path:?} is not supported")),
        },
    };
    Ok(value)
}

/// `key="value"`, a line each.
fn lines(pairs: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = pairs
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef` in units of its divisor, rounded up. What has no limit may use all that its node gives.
pub(super) fn resource(
    work: &Work<'_>,
    pod: &Pod,
    own: Option<&Container>,
    wanted: &ResourceFieldSelector,
) -> Result<String, String> {
    let named = wanted.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => pods::containers(pod).map(|(c, _)| c).find(|c| c.name == name),
        None => own,
    };
    let container = container.ok_or_else(|| format!("container {} not found", named.unwrap_or_default()))?;
    let unsupported = || format!("unsupported container resource: {}", wanted.resource);
    let (which, resource) = wanted.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.clone().unwrap_or_default();
    let quantities = match which {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => return Err(unsupported()),
    };
    let own = quantities.and_then(|q| q.get(resource).cloned());
    let whole = (which == "limits" && ["cpu", "memory", "ephemeral-storage"].contains(&resource))
        .then(|| allocatable(work, pod, resource))
        .flatten();
    let amount = own.map(|q| q.0).or(whole).unwrap_or_else(|| "0".to_owned());
    let divisor = wanted.divisor.as_ref().map_or("1", |q| q.0.as_str());
    let thousandths = |text: &str| -> Result<u128, String> {
        let read = if resource == "cpu" {
            quantity::milli(text).map(u128::from)
        } else {
            quantity::units(text).map(|units| u128::from(units) * 1000)
        };
        read.ok_or_else(|| format!("{text:?} is not a quantity"))
    };
    let divisor = match thousandths(divisor)? {
        0 => 1000,
        some => some,
    };
    Ok(thousandths(&amount)?.div_ceil(divisor).to_string())
}

fn allocatable(work: &Work<'_>, pod: &Pod, resource: &str) -> Option<String> {
    let node = work.get::<Node>(&Key::new("", pods::node(pod)?))?;
    let all = node.status.as_ref()?.allocatable.as_ref()?;
    all.get(resource).map(|q| q.0.clone())
}
