//! What protects, constrains or holds something back is done or refused: somebody who asks for it relies on it. A wish that may
//! stay one is accepted, and named in a warning (`honoured.rs`). A field that becomes honoured leaves these lists.

use serde_json::Value;

use super::FieldError;
use super::path::{at, list, text};
use crate::core::DISK_PRESSURE;

type Errors = Vec<FieldError>;

/// A field that would not be done (`[]` is each of a list), values that say what is so anyway, and what to do instead.
struct Row(&'static str, &'static [&'static str], &'static str);

const ON_NODES: &str = "pods are placed by `nodeSelector` and `nodeName`: use nodeSelector";
const APART: &str = "no rule keeps pods apart or together (instances of one owner are spread anyway): use preferredDuringScheduling, or nodeName";

/// Of a PodSpec. What a `securityContext` says is in `podsecurity`.
const POD: &[Row] = &[
    Row(
        "shareProcessNamespace",
        &[],
        "containers do not see each other's processes: leave it out",
    ),
    Row("runtimeClassName", &[], "there is one runtime: leave it out"),
    Row(
        "overhead",
        &[],
        "there is one runtime, and it has none: leave it out",
    ),
    Row("os.name", &["linux"], "nodes run linux"),
    Row(
        "schedulingGates",
        &[],
        "nothing holds a pod back from its node: make it when it may run",
    ),
    Row(
        "schedulingGroup",
        &[],
        "there are no PodGroups: use `group` of the annotation gantry.dev/extras",
    ),
    Row(
        "schedulerName",
        &["default-scheduler"],
        "no other scheduler is waited for: leave it out",
    ),
    Row(
        "priorityClassName",
        &[],
        "there are no PriorityClasses: leave it out",
    ),
    // Whoever gives the number himself goes before all others, for ever.
    Row(
        "priority",
        &["0"],
        "only a PriorityClass gives the number, and there are none: leave it out",
    ),
    Row(
        "readinessGates",
        &[],
        "no condition but those of its containers makes a pod ready: use a readinessProbe",
    ),
    Row(
        "evictionResponders",
        &[],
        "an eviction asks nobody: use a preStop hook",
    ),
    Row(
        "ephemeralContainers",
        &[],
        "a pod cannot be made with them: use `kubectl exec` or a sidecar",
    ),
    Row("resourceClaims", &[], "no node has devices to give: leave it out"),
    Row(
        "resources",
        &[],
        "a pod has no size of its own: give each container its `resources`",
    ),
    Row(
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        &[],
        ON_NODES,
    ),
    Row(
        "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        &[],
        APART,
    ),
    Row(
        "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        &[],
        APART,
    ),
    Row(
        "volumes[].emptyDir.mode",
        &["511"],
        "an emptyDir has mode 0777: leave it out, or use fsGroup",
    ),
];

/// Of a container.
const CONTAINER: &[Row] = &[
    Row(
        "ports[].hostIP",
        &["0.0.0.0"],
        "no address of the host leads to a pod: use a Service",
    ),
    Row(
        "resources.claims",
        &[],
        "no node has devices to give: leave it out",
    ),
    Row(
        "resizePolicy[].restartPolicy",
        &["NotRequired"],
        "containers are resized while they run: use NotRequired",
    ),
    Row(
        "restartPolicyRules",
        &[],
        "exit codes make no difference: use the pod's restartPolicy",
    ),
    Row(
        "volumeDevices",
        &[],
        "block devices are not given to containers: use volumeMounts",
    ),
    Row(
        "volumeMounts[].mountPropagation",
        &["None"],
        "mounts do not travel between a container and its node: use None",
    ),
    Row(
        "volumeMounts[].recursiveReadOnly",
        &["Disabled"],
        "only the mount itself is read-only, not those below it: use Disabled",
    ),
    Row(
        "volumeMounts[].bindMountOptions",
        &[],
        "volumes have no options of their own: leave it out",
    ),
    Row(
        "lifecycle.stopSignal",
        &[],
        "the image says with which signal a container is stopped: leave it out, or use a preStop hook",
    ),
];

/// Of a Deployment's or ReplicaSet's spec, besides what is said of all pods.
const WORKLOAD: &[Row] = &[
    Row(
        "minReadySeconds",
        &["0"],
        "a pod is available as soon as it is ready: use a readinessProbe with initialDelaySeconds or successThreshold",
    ),
    // Pods that end by their own will would come and go for ever.
    Row(
        "template.spec.restartPolicy",
        &["Always"],
        "pods that end are replaced: use Always, or a Pod of its own",
    ),
    Row(
        "template.spec.activeDeadlineSeconds",
        &[],
        "pods that end are replaced: leave it out, or use a Pod of its own",
    ),
];

/// Of a Service's spec.
const SERVICE: &[Row] = &[
    Row(
        "sessionAffinity",
        &["None"],
        "clients are not tied to backends, their connections are: use None",
    ),
    Row(
        "sessionAffinityConfig",
        &[],
        "clients are not tied to backends, their connections are: leave it out",
    ),
    Row(
        "externalIPs",
        &[],
        "no node takes traffic for other addresses: use clusterIP, or a pod with hostNetwork",
    ),
    Row(
        "loadBalancerSourceRanges",
        &[],
        "there are no load balancers, and clients are not told apart: leave it out",
    ),
    Row(
        "externalTrafficPolicy",
        &["Cluster"],
        "nothing comes from outside through a Service: leave it out",
    ),
    Row(
        "internalTrafficPolicy",
        &["Cluster"],
        "every node sends to all backends, not only to its own: use Cluster",
    ),
    Row(
        "ipFamilyPolicy",
        &["SingleStack", "PreferDualStack"],
        "addresses are IPv4 only: use SingleStack",
    ),
    Row(
        "ports[].nodePort",
        &["0"],
        "nodes open no ports for Services: use a pod with hostNetwork",
    ),
];

/// AppArmor profiles as pods asked for them before there was a field.
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// All rules on a pod, or on the template of a workload, at `path`.
pub(super) fn pod(pod: &Value, path: &str, errors: &mut Errors) {
    let annotations = at(pod, "/metadata/annotations").as_object();
    for (key, _) in annotations
        .into_iter()
        .flatten()
        .filter(|(k, _)| k.starts_with(APPARMOR))
    {
        let field = format!("{path}metadata.annotations[{key}]");
        errors.push(forbidden(field, "use securityContext.appArmorProfile"));
    }
    let (spec, path) = (at(pod, "/spec"), format!("{path}spec"));
    refuse(spec, &path, POD, errors);
    for (i, constraint) in list(spec, "/topologySpreadConstraints").iter().enumerate() {
        if text(constraint, "/whenUnsatisfiable") != "ScheduleAnyway" {
            let field = format!("{path}.topologySpreadConstraints[{i}].whenUnsatisfiable");
            let why =
                "nothing forces pods apart (instances of one owner are spread anyway): use ScheduleAnyway";
            errors.push(forbidden(field, why));
        }
    }
    let on_host = at(spec, "/hostNetwork") == true;
    for containers in ["initContainers", "containers"] {
        for (i, container) in list(spec, &format!("/{containers}")).iter().enumerate() {
            let here = format!("{path}.{containers}[{i}]");
            refuse(container, &here, CONTAINER, errors);
            host_ports(container, on_host, &here, errors);
            capabilities(container, &here, errors);
        }
    }
}

/// The same of a Deployment or ReplicaSet.
pub(super) fn workload(object: &Value, errors: &mut Errors) {
    pod(at(object, "/spec/template"), "spec.template.", errors);
    let spec = at(object, "/spec");
    refuse(spec, "spec", WORKLOAD, errors);
    let none = |field: &str| {
        let value = at(spec, &format!("/strategy/rollingUpdate/{field}"));
        value == 0 || value == "0%"
    };
    let here = "spec.strategy.rollingUpdate";
    if none("maxSurge") && none("maxUnavailable") {
        let why = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(format!("{here}.maxUnavailable"), why));
    } else if none("maxSurge") {
        let why = "an update runs one pod more than wanted for a while: use 1, or leave it out";
        errors.push(forbidden(format!("{here}.maxSurge"), why));
    }
    if text(spec, "/strategy/type") == "Recreate" {
        let why =
            "Recreate is not supported: old and new pods run side by side for a while; use RollingUpdate";
        errors.push(FieldError::invalid("spec.strategy.type", why));
    }
}

/// The same of a Service.
pub(super) fn service(spec: &Value, errors: &mut Errors) {
    refuse(spec, "spec", SERVICE, errors);
    if !["", "IPv4"].contains(&text(spec, "/ipFamilies/0")) {
        let field = "spec.ipFamilies[0]".to_owned();
        errors.push(forbidden(field, "addresses are IPv4 only: use IPv4"));
    }
}

/// The same of a Node: the only taint that keeps pods away is the one that Gantry itself sets.
pub(super) fn node(object: &Value, errors: &mut Errors) {
    for (i, taint) in list(object, "/spec/taints").iter().enumerate() {
        let wish = ["PreferNoSchedule"].contains(&text(taint, "/effect"));
        if !wish && text(taint, "/key") != DISK_PRESSURE {
            let why = "taints keep no pods away: use `kubectl cordon`, or nodeSelector in the pods";
            errors.push(forbidden(format!("spec.taints[{i}]"), why));
        }
    }
}

fn refuse(object: &Value, path: &str, rows: &[Row], errors: &mut Errors) {
    for Row(field, so, why) in rows {
        each(object, field, path.to_owned(), &mut |value, path| {
            if !says_nothing(value, so) {
                errors.push(forbidden(path, why));
            }
        });
    }
}

/// Every value at a field, with its path.
fn each(value: &Value, field: &str, path: String, found: &mut dyn FnMut(&Value, String)) {
    if field.is_empty() {
        return found(value, path);
    }
    let (name, rest) = field.split_once('.').unwrap_or((field, ""));
    match name.strip_suffix("[]") {
        None => each(
            at(value, &format!("/{name}")),
            rest,
            format!("{path}.{name}"),
            found,
        ),
        Some(name) => {
            for (i, item) in list(value, &format!("/{name}")).iter().enumerate() {
                each(item, rest, format!("{path}.{name}[{i}]"), found);
            }
        }
    }
}

/// Whether a value is none, or says what is `so` anyway.
fn says_nothing(value: &Value, so: &[&str]) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty() || so.contains(&text.as_str()),
        Value::Number(number) => so.contains(&number.to_string().as_str()),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn forbidden(field: String, why: &str) -> FieldError {
    FieldError {
        field,
        message: why.to_owned(),
        reason: "FieldValueForbidden",
    }
}

/// A port of the host leads to a pod only where the pod's network is the host's.
fn host_ports(container: &Value, on_host: bool, path: &str, errors: &mut Errors) {
    for (i, port) in list(container, "/ports").iter().enumerate() {
        let field = || format!("{path}.ports[{i}].hostPort");
        let asked = at(port, "/hostPort");
        if says_nothing(asked, &["0"]) || on_host && asked == at(port, "/containerPort") {
            continue;
        }
        if on_host {
            let why = "must match `containerPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(field(), why));
        } else {
            errors.push(forbidden(
                field(),
                "no port of the host leads to a pod: use a Service, or hostNetwork",
            ));
        }
    }
}

/// `drop` is done, as long as it is no contradiction.
fn capabilities(container: &Value, path: &str, errors: &mut Errors) {
    let added = list(container, "/securityContext/capabilities/add");
    let dropped = list(container, "/securityContext/capabilities/drop");
    for (i, capability) in dropped.iter().enumerate().filter(|(_, c)| added.contains(c)) {
        errors.push(FieldError::invalid(
            format!("{path}.securityContext.capabilities.drop[{i}]"),
            format!("{capability} is added too"),
        ));
    }
}

#[cfg(test)]
mod tests;
