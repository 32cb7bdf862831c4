//! What is filled in when it was left out. Values as Kubernetes documents them.

use serde_json::{Value, json};

use super::DEFAULT_GRACE_S;
use super::path::{entry, list, set_default, text};
use crate::quantity;

/// Nothing.
pub(super) fn none(_: &mut Value) {}

/// Namespace: active.
pub(super) fn namespace(object: &mut Value) {
    set_default(object, &["spec", "finalizers"], json!(["kubernetes"]));
    set_default(object, &["status", "phase"], "Active");
    let name = text(object, "/metadata/name").to_owned();
    set_default(
        object,
        &["metadata", "labels", "kubernetes.io/metadata.name"],
        name,
    );
}

/// Pod: policies, probes, protocols.
pub(super) fn pod(object: &mut Value) {
    set_default(object, &["status", "phase"], "Pending");
    if let Some(spec) = entry(object, &["spec"]) {
        pod_spec(spec);
    }
    let class = qos_class(object);
    set_default(object, &["status", "qosClass"], class);
}

/// A PodSpec, in a pod or in a template.
fn pod_spec(spec: &mut Value) {
    set_default(spec, &["restartPolicy"], "Always");
    set_default(spec, &["terminationGracePeriodSeconds"], DEFAULT_GRACE_S);
    set_default(spec, &["dnsPolicy"], "ClusterFirst");
    for volume in items(spec, "volumes") {
        for source in ["configMap", "secret"] {
            if !volume[source].is_null() {
                set_default(volume, &[source, "defaultMode"], 420);
            }
        }
    }
    for kind in ["initContainers", "containers"] {
        for container in items(spec, kind) {
            for port in items(container, "ports") {
                set_default(port, &["protocol"], "TCP");
            }
            for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
                if container.get(probe).is_some_and(Value::is_object) {
                    probe_defaults(&mut container[probe]);
                }
            }
            limits_are_requests(container);
        }
    }
}

/// A 0 is no number of any of these: in Kubernetes it says as little as nothing.
fn probe_defaults(probe: &mut Value) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if [Value::Null, json!(0)].contains(&probe[field]) {
            probe[field] = json!(value);
        }
    }
    if probe.get("httpGet").is_some_and(Value::is_object) {
        set_default(probe, &["httpGet", "path"], "/");
        set_default(probe, &["httpGet", "scheme"], "HTTP");
    }
}

/// A limit without a request is the request too.
fn limits_are_requests(container: &mut Value) {
    let Some(limits) = container
        .pointer("/resources/limits")
        .and_then(Value::as_object)
        .cloned()
    else {
        return;
    };
    for (name, limit) in limits {
        set_default(container, &["resources", "requests", &name], limit);
    }
}

/// The quality of service that a pod's sizes make.
/// Source: k8s.io/kubernetes/pkg/apis/core/v1/helper/qos, `ComputePodQOS`.
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    let main = list(pod, "/spec/containers");
    let mut any = false;
    let mut all = !main.is_empty();
    for container in list(pod, "/spec/initContainers").iter().chain(main) {
        for resource in ["cpu", "memory"] {
            let amount = |which: &str| {
                let quantity = container.pointer(&format!("/resources/{which}/{resource}"))?;
                amount(resource, quantity.as_str()?)
            };
            let limit = amount("limits").filter(|limit| *limit > 0);
            // A request that is absent is the limit; one of nothing is none.
            let request = amount("requests");
            any |= limit.is_some() || request.is_some_and(|request| request > 0);
            all &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (all, any) {
        (true, _) => "Guaranteed",
        (false, true) => "Burstable",
        (false, false) => "BestEffort",
    }
}

/// Thousandths of a CPU, or bytes.
fn amount(resource: &str, quantity: &str) -> Option<u64> {
    match resource {
        "cpu" => quantity::milli(quantity).map(u64::from),
        _ => quantity::units(quantity),
    }
}

fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Service: type, protocols, target ports.
pub(super) fn service(object: &mut Value) {
    set_default(object, &["spec", "type"], "ClusterIP");
    set_default(object, &["spec", "sessionAffinity"], "None");
    set_default(object, &["spec", "internalTrafficPolicy"], "Cluster");
    set_default(object, &["spec", "ipFamilyPolicy"], "SingleStack");
    set_default(object, &["spec", "ipFamilies"], json!(["IPv4"]));
    let Some(spec) = entry(object, &["spec"]) else {
        return;
    };
    for port in items(spec, "ports") {
        set_default(port, &["protocol"], "TCP");
        let number = port["port"].clone();
        set_default(port, &["targetPort"], number);
    }
}

/// EndpointSlice: ready unless told otherwise.
pub(super) fn endpoint_slice(object: &mut Value) {
    set_default(object, &["addressType"], "IPv4");
}

/// Secret: opaque.
pub(super) fn secret(object: &mut Value) {
    set_default(object, &["type"], "Opaque");
    let texts = object.as_object_mut().and_then(|o| o.remove("stringData"));
    for (key, text) in texts.iter().filter_map(Value::as_object).flatten() {
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        if let Some(slot) = entry(object, &["data", key]) {
            *slot = Value::String(encoded);
        }
    }
}

/// ReplicaSet: one replica, and its template's defaults.
pub(super) fn replica_set(object: &mut Value) {
    set_default(object, &["spec", "replicas"], 1);
    if let Some(spec) = entry(object, &["spec", "template", "spec"]) {
        pod_spec(spec);
    }
}

/// Deployment: as a ReplicaSet, with a rolling update.
pub(super) fn deployment(object: &mut Value) {
    replica_set(object);
    set_default(object, &["spec", "revisionHistoryLimit"], 10);
    set_default(object, &["spec", "progressDeadlineSeconds"], 600);
    set_default(object, &["spec", "strategy", "type"], "RollingUpdate");
    if text(object, "/spec/strategy/type") == "RollingUpdate" {
        set_default(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], "25%");
        set_default(
            object,
            &["spec", "strategy", "rollingUpdate", "maxUnavailable"],
            "25%",
        );
    }
}
