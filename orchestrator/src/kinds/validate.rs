//! Rules beyond the types.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use gantry_catalog::{NetworkFunctionSpec, NetworkServiceSpec, NfPackageSpec, Problem};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::names::is_dns_label;
use super::path::{at, list, text};
use super::{Context, FieldError};

type Errors = Vec<FieldError>;

/// Nothing.
pub(super) fn none(_: &Value, _: Option<&Value>, _: &Context, _: &mut Errors) {}

fn immutable(new: &Value, old: Option<&Value>, pointer: &str, errors: &mut Errors) {
    if old.is_some_and(|old| at(old, pointer) != at(new, pointer)) {
        errors.push(FieldError::immutable(
            pointer.trim_start_matches('/').replace('/', "."),
        ));
    }
}

/// A PodSpec at a path.
fn pod_spec(spec: &Value, path: &str, errors: &mut Errors) {
    let containers = list(spec, "/containers");
    if containers.is_empty() {
        errors.push(FieldError {
            field: format!("{path}.containers"),
            message: "at least one container is needed".to_owned(),
            reason: "FieldValueRequired",
        });
    }
    let volumes: HashSet<&str> = list(spec, "/volumes").iter().map(|v| text(v, "/name")).collect();
    let mut names = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        let here = format!("{path}.containers[{i}]");
        let name = text(container, "/name");
        if !is_dns_label(name) {
            errors.push(FieldError::invalid(
                format!("{here}.name"),
                format!("{name:?} is not a DNS label (RFC 1123)"),
            ));
        }
        if !names.insert(name) {
            errors.push(FieldError::invalid(
                format!("{here}.name"),
                format!("{name:?} is there twice"),
            ));
        }
        if text(container, "/image").is_empty() {
            errors.push(FieldError::invalid(format!("{here}.image"), "an image is needed"));
        }
        for (j, mount) in list(container, "/volumeMounts").iter().enumerate() {
            let volume = text(mount, "/name");
            if !volumes.contains(volume) {
                let message = format!("the pod has no volume {volume:?}");
                errors.push(FieldError::invalid(
                    format!("{here}.volumeMounts[{j}].name"),
                    message,
                ));
            }
        }
        for which in ["requests", "limits"] {
            let quantities = at(container, &format!("/resources/{which}")).as_object();
            for (resource, quantity) in quantities.into_iter().flatten() {
                if quantity.as_str().is_none_or(|q| !is_quantity(q)) {
                    let message = format!("{quantity} is not a quantity: write for example 500m, 2, 128Mi");
                    errors.push(FieldError::invalid(
                        format!("{here}.resources.{which}.{resource}"),
                        message,
                    ));
                }
            }
        }
    }
}

/// A Kubernetes quantity: a number with an optional suffix.
fn is_quantity(quantity: &str) -> bool {
    let number = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &quantity[number.len()..];
    let known = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    (number.parse::<f64>().is_ok() && known.contains(&suffix))
        || quantity.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Pod: its spec; changes of a spec go through the sub-resources.
pub(super) fn pod(new: &Value, _: Option<&Value>, _: &Context, errors: &mut Errors) {
    pod_spec(at(new, "/spec"), "spec", errors);
}

/// Service: ports, and an address that stays.
pub(super) fn service(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    let address = text(new, "/spec/clusterIP");
    if old.is_some_and(|old| !["", address].contains(&text(old, "/spec/clusterIP"))) {
        errors.push(FieldError::immutable("spec.clusterIP"));
    }
    if !["", "None"].contains(&address) && address.parse::<Ipv4Addr>().is_err() {
        errors.push(FieldError::invalid(
            "spec.clusterIP",
            format!("{address:?} is not an IPv4 address"),
        ));
    }
    let type_ = text(new, "/spec/type");
    if type_ != "ClusterIP" {
        let message = format!("{type_} is not supported: use ClusterIP");
        errors.push(FieldError::invalid("spec.type", message));
    }
    let ports = list(new, "/spec/ports");
    if ports.is_empty() && address != "None" {
        errors.push(FieldError::invalid("spec.ports", "at least one port is needed"));
    }
    let mut seen = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let number = at(port, "/port").as_i64().unwrap_or_default();
        if !(1..=65_535).contains(&number) {
            errors.push(FieldError::invalid(
                format!("spec.ports[{i}].port"),
                "must be 1 to 65535",
            ));
        }
        if !seen.insert((number, text(port, "/protocol"))) {
            errors.push(FieldError::invalid(
                format!("spec.ports[{i}]"),
                "port and protocol are there twice",
            ));
        }
        if ports.len() > 1 && text(port, "/name").is_empty() {
            errors.push(FieldError::invalid(
                format!("spec.ports[{i}].name"),
                "several ports need names",
            ));
        }
    }
}

/// Deployment, ReplicaSet: the selector stays and fits the template.
pub(super) fn workload(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    immutable(new, old, "/spec/selector", errors);
    if at(new, "/spec/replicas").as_i64().is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid("spec.replicas", "must not be negative"));
    }
    let wanted = at(new, "/spec/selector/matchLabels").as_object();
    if wanted.is_none_or(|w| w.is_empty()) && list(new, "/spec/selector/matchExpressions").is_empty() {
        errors.push(FieldError::invalid("spec.selector", "must select something"));
    }
    let labels = at(new, "/spec/template/metadata/labels");
    if wanted
        .into_iter()
        .flatten()
        .any(|(key, value)| labels.get(key) != Some(value))
    {
        let message = "the template's labels must match spec.selector";
        errors.push(FieldError::invalid("spec.template.metadata.labels", message));
    }
    pod_spec(at(new, "/spec/template/spec"), "spec.template.spec", errors);
}

/// ConfigMap, Secret: keys that can be file names; no change once immutable.
pub(super) fn data(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    for field in ["data", "binaryData", "stringData"] {
        let keys = at(new, &format!("/{field}")).as_object();
        for (key, _) in keys.into_iter().flatten() {
            if !is_data_key(key) {
                let message = format!("{key:?}: use letters, digits, `-`, `_` and `.`, at most 253 of them");
                errors.push(FieldError::invalid(format!("{field}[{key}]"), message));
            }
        }
    }
    if old.is_some_and(|old| at(old, "/immutable") == true) {
        for pointer in ["/immutable", "/data", "/binaryData"] {
            immutable(new, old, pointer, errors);
        }
    }
}

/// As Kubernetes has it: one part of a path.
fn is_data_key(key: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&key.len()) && key.bytes().all(good) && !key.starts_with("..") && key != "."
}

fn spec<T: DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(at(object, "/spec").clone()).ok()
}

fn problems(found: Vec<Problem>, errors: &mut Errors) {
    errors.extend(found.into_iter().map(|p| FieldError::invalid(p.path, p.message)));
}

/// NfPackage: the catalog's rules; a version never changes.
pub(super) fn nf_package(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    immutable(new, old, "/spec", errors);
    let Some(spec) = spec::<NfPackageSpec>(new) else {
        return;
    };
    let name = format!("{}-{}", spec.package, spec.version);
    if text(new, "/metadata/name") != name {
        errors.push(FieldError::invalid(
            "metadata.name",
            format!("must be {name} (package and version)"),
        ));
    }
    problems(spec.problems(), errors);
}

/// NetworkFunction: the catalog's rules, where its package is known.
pub(super) fn network_function(new: &Value, old: Option<&Value>, context: &Context, errors: &mut Errors) {
    immutable(new, old, "/spec/package", errors);
    let Some(spec) = spec::<NetworkFunctionSpec>(new) else {
        return;
    };
    if let Some(package) = context
        .packages
        .get(&(spec.package.clone(), spec.version.clone()))
    {
        problems(spec.problems(package), errors);
    }
}

/// NetworkService: the catalog's rules, where all its packages are known.
pub(super) fn network_service(new: &Value, _: Option<&Value>, context: &Context, errors: &mut Errors) {
    let Some(spec) = spec::<NetworkServiceSpec>(new) else {
        return;
    };
    let find = |package: &str, version: &str| context.packages.get(&(package.to_owned(), version.to_owned()));
    if spec
        .functions
        .iter()
        .all(|f| find(&f.package, &f.version).is_some())
    {
        problems(spec.problems(find), errors);
    }
}

/// Network: one kind so far.
pub(super) fn network(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    immutable(new, old, "/spec", errors);
    if text(new, "/spec/type") != "pod" {
        errors.push(FieldError::invalid("spec.type", "only `pod` is supported"));
    }
    for field in ["cidr", "serviceCidr"] {
        if text(new, &format!("/spec/{field}"))
            .parse::<ipnet::Ipv4Net>()
            .is_err()
        {
            errors.push(FieldError::invalid(
                format!("spec.{field}"),
                "must be an IPv4 range such as 10.85.0.0/16",
            ));
        }
    }
}
