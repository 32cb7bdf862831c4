//! Fields that Kubernetes has and Gantry does not act on: accepted, kept, and named in a warning; never silently ignored. What
//! protects or constrains is refused in `protective.rs`; an older object that has it all the same is warned of here.

use serde_json::Value;

use super::path::{at, list, text};
use super::podvolumes::SOURCES;
use crate::core::DISK_PRESSURE;

const POD_SPEC: &[&str] = &[
    "containers",
    "initContainers",
    "volumes",
    "restartPolicy",
    "activeDeadlineSeconds",
    "terminationGracePeriodSeconds",
    "nodeName",
    "nodeSelector",
    "hostNetwork",
    "hostUsers",
    "priority",
    "securityContext",
    "hostAliases",
    "dnsPolicy",
    "dnsConfig",
    "hostname",
    "subdomain",
    "setHostnameAsFQDN",
];
const CONTAINER: &[&str] = &[
    "name",
    "resizePolicy",
    // Of an init container; others may not have one.
    "restartPolicy",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "env",
    "envFrom",
    "resources",
    "volumeMounts",
    "readinessProbe",
    "livenessProbe",
    "startupProbe",
    "lifecycle",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
];
const PORT: &[&str] = &["name", "containerPort", "protocol"];
/// Where the pod's network is the host's.
const HOST_PORT: &[&str] = &["name", "containerPort", "protocol", "hostPort"];
const MOUNT: &[&str] = &["name", "mountPath", "subPath", "subPathExpr", "readOnly"];
/// Of a volume's source, whatever the source is.
const VOLUME: &[&str] = &[
    "name",
    "secretName",
    "items",
    "optional",
    "sizeLimit",
    "path",
    "type",
    "defaultMode",
    "sources",
    "claimName",
    "readOnly",
];
const FILE: &[&str] = &["key", "path", "mode", "fieldRef", "resourceFieldRef"];
const LIFECYCLE: &[&str] = &["postStart", "preStop"];
const HOOK: &[&str] = &["exec", "httpGet", "sleep"];
const PROBE: &[&str] = &[
    "terminationGracePeriodSeconds",
    "exec",
    "httpGet",
    "tcpSocket",
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "failureThreshold",
    "successThreshold",
];
const HTTP_GET: &[&str] = &["port", "path", "httpHeaders"];
const RESOURCES: &[&str] = &["requests", "limits"];
/// Those of `RESOURCES`, beside hugepages.
const QUANTITIES: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const POD_SECURITY: &[&str] = &[
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "fsGroup",
    "fsGroupChangePolicy",
    "seccompProfile",
    "appArmorProfile",
    "sysctls",
];
const CONTAINER_SECURITY: &[&str] = &[
    "runAsUser",
    "runAsGroup",
    "capabilities",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsNonRoot",
    "allowPrivilegeEscalation",
    "seccompProfile",
    "appArmorProfile",
    "procMount",
];
const CAPABILITIES: &[&str] = &["add", "drop"];
const WORKLOAD_SPEC: &[&str] = &[
    "replicas",
    "selector",
    "template",
    "strategy",
    "paused",
    "progressDeadlineSeconds",
    "revisionHistoryLimit",
];
const NODE_SPEC: &[&str] = &["unschedulable", "podCIDR", "podCIDRs", "providerID"];
const SERVICE_SPEC: &[&str] = &[
    "ports",
    "selector",
    "clusterIP",
    "clusterIPs",
    "type",
    "publishNotReadyAddresses",
];

/// What an application's protocol is, tells only people.
const SERVICE_PORT: &[&str] = &["name", "protocol", "port", "targetPort", "appProtocol"];

/// What Kubernetes' defaults or clients write anyway, and changes nothing.
const HARMLESS: &[(&str, &str)] = &[
    ("dnsPolicy", "ClusterFirst"),
    ("schedulerName", "default-scheduler"),
    ("imagePullPolicy", "IfNotPresent"),
    // Images are imported, nothing pulls any.
    ("imagePullPolicy", "Never"),
    // Nothing makes room for a pod by ending others.
    ("preemptionPolicy", "Never"),
    ("serviceAccountName", "default"),
    ("serviceAccount", "default"),
    ("sessionAffinity", "None"),
    ("internalTrafficPolicy", "Cluster"),
    ("externalTrafficPolicy", "Cluster"),
    ("ipFamilyPolicy", "SingleStack"),
    ("hostIP", "0.0.0.0"),
    ("mountPropagation", "None"),
    ("recursiveReadOnly", "Disabled"),
    ("medium", "Memory"),
    ("scheme", "HTTP"),
];

/// The same for numbers.
const HARMLESS_NUMBERS: &[(&str, i64)] = &[
    ("minReadySeconds", 0),
    ("hostPort", 0),
    ("nodePort", 0),
    ("healthCheckNodePort", 0),
    ("mode", 0o777),
];

/// Wishes that are annotations of a pod.
const ANNOTATIONS: &[&str] = &["controller.kubernetes.io/pod-deletion-cost"];

/// A kind that is acted on as a whole.
pub(super) fn none(_: &Value) -> Vec<String> {
    Vec::new()
}

fn says_something(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty() && !HARMLESS.contains(&(name, text)),
        Value::Array(items) => items.len() > usize::from(name == "ipFamilies"),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(number) => !HARMLESS_NUMBERS
            .iter()
            .any(|(field, harmless)| *field == name && number.as_i64() == Some(*harmless)),
        Value::Bool(true) => true,
    }
}

fn rest(object: &Value, path: &str, honoured: &[&str], found: &mut Vec<String>) {
    for (name, value) in object.as_object().into_iter().flatten() {
        if !honoured.contains(&name.as_str()) && says_something(name, value) {
            found.push(format!("{path}.{name}"));
        }
    }
}

fn pod_spec(spec: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    rest(spec, path, POD_SPEC, &mut found);
    rest(
        at(spec, "/securityContext"),
        &format!("{path}.securityContext"),
        POD_SECURITY,
        &mut found,
    );
    let on_host = at(spec, "/hostNetwork") == true;
    for kind in ["initContainers", "containers"] {
        for (i, from) in list(spec, &format!("/{kind}")).iter().enumerate() {
            container(from, on_host, &format!("{path}.{kind}[{i}]"), &mut found);
        }
    }
    for (i, from) in list(spec, "/volumes").iter().enumerate() {
        volume(from, &format!("{path}.volumes[{i}]"), &mut found);
    }
    found
}

fn container(from: &Value, on_host: bool, path: &str, found: &mut Vec<String>) {
    rest(from, path, CONTAINER, found);
    let parts = [
        ("securityContext", CONTAINER_SECURITY),
        ("securityContext.capabilities", CAPABILITIES),
        ("resources", RESOURCES),
        ("readinessProbe", PROBE),
        ("readinessProbe.httpGet", HTTP_GET),
        ("livenessProbe", PROBE),
        ("livenessProbe.httpGet", HTTP_GET),
        ("startupProbe", PROBE),
        ("startupProbe.httpGet", HTTP_GET),
        ("lifecycle", LIFECYCLE),
        ("lifecycle.postStart", HOOK),
        ("lifecycle.postStart.httpGet", HTTP_GET),
        ("lifecycle.preStop", HOOK),
        ("lifecycle.preStop.httpGet", HTTP_GET),
    ];
    for (part, honoured) in parts {
        let value = at(from, &format!("/{}", part.replace('.', "/")));
        rest(value, &format!("{path}.{part}"), honoured, found);
    }
    let ports = if on_host { HOST_PORT } else { PORT };
    for (field, honoured) in [("ports", ports), ("volumeMounts", MOUNT)] {
        for (i, item) in list(from, &format!("/{field}")).iter().enumerate() {
            rest(item, &format!("{path}.{field}[{i}]"), honoured, found);
        }
    }
    for which in RESOURCES {
        let quantities = at(from, &format!("/resources/{which}")).as_object();
        let names = quantities.into_iter().flatten().map(|(name, _)| name);
        let ignored = names.filter(|n| !QUANTITIES.contains(&n.as_str()) && !n.starts_with("hugepages-"));
        found.extend(ignored.map(|name| format!("{path}.resources.{which}.{name}")));
    }
}

fn volume(from: &Value, path: &str, found: &mut Vec<String>) {
    // Others are refused.
    for source in SOURCES {
        let here = format!("{path}.{source}");
        let value = at(from, &format!("/{source}"));
        rest(value, &here, VOLUME, found);
        for (i, item) in list(value, "/items").iter().enumerate() {
            rest(item, &format!("{here}.items[{i}]"), FILE, found);
        }
    }
}

/// A Pod's fields without effect.
pub(super) fn pod(object: &Value) -> Vec<String> {
    let mut found = pod_spec(at(object, "/spec"), "spec");
    annotations(object, "", &mut found);
    found
}

fn annotations(object: &Value, path: &str, found: &mut Vec<String>) {
    let said = at(object, "/metadata/annotations").as_object();
    let wishes = said
        .into_iter()
        .flatten()
        .filter(|(key, _)| ANNOTATIONS.contains(&key.as_str()));
    found.extend(wishes.map(|(key, _)| format!("{path}metadata.annotations[{key}]")));
}

/// A Deployment's or ReplicaSet's, and those in its template.
pub(super) fn workload(object: &Value) -> Vec<String> {
    let mut found = pod_spec(at(object, "/spec/template/spec"), "spec.template.spec");
    annotations(at(object, "/spec/template"), "spec.template.", &mut found);
    rest(at(object, "/spec"), "spec", WORKLOAD_SPEC, &mut found);
    // One pod more than wanted and none less, whatever the update says; the defaults are no wish.
    let wished = at(object, "/spec/strategy/rollingUpdate").as_object();
    let wished = wished.into_iter().flatten().filter(|(_, value)| *value != "25%");
    found.extend(wished.map(|(field, _)| format!("spec.strategy.rollingUpdate.{field}")));
    found
}

/// A Node's.
pub(super) fn node(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    rest(at(object, "/spec"), "spec", NODE_SPEC, &mut found);
    // The one that Gantry itself sets has an effect.
    let own = |taint: &Value| text(taint, "/key") == DISK_PRESSURE;
    if list(object, "/spec/taints").iter().all(own) {
        found.retain(|field| field != "spec.taints");
    }
    found
}

/// A Service's.
pub(super) fn service(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    rest(at(object, "/spec"), "spec", SERVICE_SPEC, &mut found);
    for (i, port) in list(object, "/spec/ports").iter().enumerate() {
        rest(port, &format!("spec.ports[{i}]"), SERVICE_PORT, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_without_effect_are_named() {
        let input = json!({"spec": {"dnsPolicy": "ClusterFirst", "hostPID": true, "hostIPC": false, "hostUsers": false, "initContainers": [{"name": "i", "tty": true}],
            "containers": [{"name": "c", "lifecycle": {"stopSignal": "SIGUSR1"}, "securityContext": {"privileged": true, "runAsNonRoot": true}}]}});
        let mut found = pod(&input);
        found.sort();
        let expected = [
            "spec.containers[0].lifecycle.stopSignal",
            "spec.hostPID",
            "spec.initContainers[0].tty",
        ];
        assert_eq!(found, expected);
        assert_eq!(
            service(&json!({"spec": {"type": "ClusterIP", "externalIPs": ["192.0.2.1"]}})),
            ["spec.externalIPs"]
        );
    }

    #[test]
    fn fields_within_fields_are_named_too() {
        let input = json!({"spec": {
            "containers": [{
                "name": "c",
                "ports": [{"containerPort": 80, "hostPort": 80}],
                "resources": {"requests": {"cpu": "1", "memory": "1Mi", "ephemeral-storage": "1Gi", "hugepages-2Mi": "2Mi"}},
                "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP", "httpHeaders": [{"name": "a", "value": "b"}]}},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": "$(A)", "mountPropagation": "Bidirectional"}],
                "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}},
            }],
            "volumes": [
                {"name": "v", "configMap": {"name": "m", "defaultMode": 256, "items": [{"key": "k", "path": "p", "mode": 256}]}},
                {"name": "w", "secret": {"secretName": "s", "defaultMode": 420}},
                {"name": "x", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "y", "hostPath": {"path": "/", "type": "Directory"}},
            ],
        }});
        let mut found = pod(&input);
        found.sort();
        let container = "spec.containers[0]";
        let expected = [
            format!("{container}.ports[0].hostPort"),
            format!("{container}.volumeMounts[0].mountPropagation"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn wishes_about_updates_and_nodes_are_named() {
        let update = json!({"maxSurge": 2, "maxUnavailable": "25%"});
        let input = json!({"spec": {"replicas": 1, "minReadySeconds": 5, "progressDeadlineSeconds": 60,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": update}}});
        assert_eq!(
            workload(&input),
            ["spec.minReadySeconds", "spec.strategy.rollingUpdate.maxSurge"]
        );
        let tainted =
            json!({"spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]}});
        assert_eq!(node(&tainted), ["spec.taints"]);
        let own = json!({"spec": {"taints": [{"key": DISK_PRESSURE, "effect": "NoSchedule"}]}});
        assert!(node(&own).is_empty());
    }
}
