//! Rules beyond the types.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use gantry_catalog::{
    NetworkFunctionSpec, NetworkServiceSpec, NfPackageSpec, Problem, function_name_problem,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::names::{is_dns_label, label_problem};
use super::path::{at, list, text};
use super::{Context, FieldError, extras, labelselector, podports, podspec, protective};
use crate::podsecurity::label_errors;

type Errors = Vec<FieldError>;

// What a package may ask for its pods may have.
const _: () = assert!(gantry_catalog::MAX_ID == gantry_nodeagent_api::MAX_ID);

/// Nothing.
pub(super) fn none(_: &Value, _: Option<&Value>, _: &Context, _: &mut Errors) {}

fn immutable(new: &Value, old: Option<&Value>, pointer: &str, errors: &mut Errors) {
    if old.is_some_and(|old| at(old, pointer) != at(new, pointer)) {
        errors.push(FieldError::immutable(
            pointer.trim_start_matches('/').replace('/', "."),
        ));
    }
}

/// Namespace: labels that say what its pods may have must be readable; those that are there already do not stand in the way.
pub(super) fn namespace(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    let labels = |object| label_errors(at(object, "/metadata/labels"));
    let before = old.map(labels).unwrap_or_default();
    let wrong = labels(new).into_iter().filter(|error| !before.contains(error));
    errors.extend(wrong.map(|(key, why)| FieldError::invalid(format!("metadata.labels[{key}]"), why)));
}

/// Node: taints, and the addresses of its pods, which the controllers give out.
pub(super) fn node(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    for pointer in ["/spec/podCIDR", "/spec/podCIDRs"] {
        let same = old.map_or(&Value::Null, |old| at(old, pointer)) == at(new, pointer);
        if !same {
            let message =
                "the addresses of a node's pods are given out by the controllers: leave it as it is";
            errors.push(FieldError::invalid(pointer[1..].replace('/', "."), message));
        }
    }
    protective::node(new, errors);
}

/// Pod: its spec and what its annotation adds; changes of a spec go through the sub-resources.
pub(super) fn pod(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    podspec::spec(at(new, "/spec"), "spec", errors);
    // Controllers give it; what it was is nowhere else.
    for pointer in ["/status/podIP", "/status/podIPs"] {
        immutable(new, old, pointer, errors);
    }
    protective::pod(new, "", errors);
    extras::pod(new, old, errors);
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
    protective::service(at(new, "/spec"), errors);
    let (mut seen, mut names) = (HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let number = at(port, "/port").as_i64().unwrap_or_default();
        podports::protocol(port, &format!("spec.ports[{i}]"), errors);
        if !podports::is_port(number) {
            errors.push(FieldError::invalid(
                format!("spec.ports[{i}].port"),
                "must be 1 to 65535",
            ));
        }
        let protocol = match text(port, "/protocol") {
            "" => "TCP",
            protocol => protocol,
        };
        if !seen.insert((number, protocol)) {
            let value = json!({"protocol": protocol, "port": number});
            errors.push(FieldError::duplicate(format!("spec.ports[{i}]"), &value));
        }
        let name = text(port, "/name");
        if ports.len() > 1 && name.is_empty() {
            errors.push(FieldError::invalid(
                format!("spec.ports[{i}].name"),
                "several ports need names",
            ));
        } else if !name.is_empty() && !is_dns_label(name) {
            errors.push(FieldError::invalid(
                format!("spec.ports[{i}].name"),
                label_problem(name),
            ));
        } else if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(
                format!("spec.ports[{i}].name"),
                at(port, "/name"),
            ));
        }
        let target = at(port, "/targetPort").as_i64().filter(|target| *target != 0);
        let field = format!("spec.ports[{i}].targetPort");
        if target.is_some_and(|target| !podports::is_port(target)) {
            errors.push(FieldError::invalid(field, "must be 1 to 65535"));
        } else if let Some(name) = at(port, "/targetPort").as_str()
            && !podports::is_port_name(name)
        {
            errors.push(FieldError::invalid(field, podports::port_name_problem(name)));
        }
        if protocol == "SCTP" && address != "None" && target.is_some_and(|target| target != number) {
            let message =
                format!("SCTP keeps its port on the way to a pod (its checksum covers it): use {number}");
            errors.push(FieldError::invalid(
                format!("spec.ports[{i}].targetPort"),
                message,
            ));
        }
    }
}

/// EndpointSlice: the controllers write what a Service's pods are. An address that somebody else could write there would lead the
/// traffic of a whole namespace anywhere, and is not served.
pub(super) fn endpoint_slice(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    for field in ["addressType", "endpoints", "ports"] {
        let same = old.is_some_and(|old| at(old, &format!("/{field}")) == at(new, &format!("/{field}")));
        if !same {
            errors.push(FieldError {
                field: field.to_owned(),
                message: "endpoints are the pods that a Service selects, and no others: give the Service a `selector`".to_owned(),
                reason: "FieldValueForbidden",
            });
            return;
        }
    }
}

/// Deployment, ReplicaSet: the selector stays and fits the template.
pub(super) fn workload(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    immutable(new, old, "/spec/selector", errors);
    if at(new, "/spec/replicas").as_i64().is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid("spec.replicas", "must not be negative"));
    }
    let seconds = |field: &str| at(new, &format!("/spec/{field}")).as_i64();
    let least = seconds("minReadySeconds").unwrap_or(0).max(0);
    if seconds("progressDeadlineSeconds").is_some_and(|n| n <= least) {
        let message = format!("must be greater than minReadySeconds ({least})");
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", message));
    }
    let selector = at(new, "/spec/selector");
    let wanted = at(selector, "/matchLabels").as_object();
    if wanted.is_none_or(|w| w.is_empty()) && list(selector, "/matchExpressions").is_empty() {
        errors.push(FieldError::invalid("spec.selector", "must select something"));
    }
    let before = errors.len();
    labelselector::check(selector, "spec.selector", errors);
    let is_sound = errors.len() == before;
    if is_sound && !labelselector::selects(selector, at(new, "/spec/template/metadata/labels")) {
        let message = "the template's labels must match spec.selector";
        errors.push(FieldError::invalid("spec.template.metadata.labels", message));
    }
    podspec::spec(at(new, "/spec/template/spec"), "spec.template.spec", errors);
    protective::workload(new, errors);
    extras::template(at(new, "/spec/template"), errors);
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
    let texts = at(new, "/data").as_object();
    for (key, _) in texts.into_iter().flatten() {
        if at(new, "/binaryData").get(key).is_some() {
            let message = format!("{key:?}: duplicate of key present in binaryData");
            errors.push(FieldError::invalid(format!("data[{key}]"), message));
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
    // One that was made by an earlier version may still be changed.
    let name = old.is_none().then(|| text(new, "/metadata/name"));
    if let Some(message) = name.and_then(function_name_problem) {
        errors.push(FieldError::invalid("metadata.name", message));
    }
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
