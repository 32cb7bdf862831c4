//! Fields that Kubernetes has and Gantry does not act on: accepted, kept, and named in a warning; never silently ignored.

use serde_json::Value;

use super::path::{at, list};

const POD_SPEC: &[&str] = &[
    "containers",
    "volumes",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "nodeName",
    "nodeSelector",
    "hostNetwork",
    "priority",
    "securityContext",
];
const CONTAINER: &[&str] = &[
    "name",
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
    "securityContext",
];
const POD_SECURITY: &[&str] = &["runAsUser", "runAsGroup"];
const CONTAINER_SECURITY: &[&str] = &[
    "runAsUser",
    "runAsGroup",
    "capabilities",
    "privileged",
    "readOnlyRootFilesystem",
];
const SERVICE_SPEC: &[&str] = &[
    "ports",
    "selector",
    "clusterIP",
    "clusterIPs",
    "type",
    "publishNotReadyAddresses",
];

/// What Kubernetes' defaults or clients write anyway, and changes nothing.
const HARMLESS: &[(&str, &str)] = &[
    ("dnsPolicy", "ClusterFirst"),
    ("schedulerName", "default-scheduler"),
    ("imagePullPolicy", "IfNotPresent"),
    ("terminationMessagePath", "/dev/termination-log"),
    ("terminationMessagePolicy", "File"),
    ("serviceAccountName", "default"),
    ("serviceAccount", "default"),
    ("sessionAffinity", "None"),
    ("internalTrafficPolicy", "Cluster"),
    ("ipFamilyPolicy", "SingleStack"),
];

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
        _ => true,
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
    for (i, container) in list(spec, "/containers").iter().enumerate() {
        let here = format!("{path}.containers[{i}]");
        rest(container, &here, CONTAINER, &mut found);
        let security = at(container, "/securityContext");
        rest(
            security,
            &format!("{here}.securityContext"),
            CONTAINER_SECURITY,
            &mut found,
        );
    }
    found
}

/// A Pod's fields without effect.
pub(super) fn pod(object: &Value) -> Vec<String> {
    pod_spec(at(object, "/spec"), "spec")
}

/// Those in the template of a Deployment or ReplicaSet.
pub(super) fn workload(object: &Value) -> Vec<String> {
    pod_spec(at(object, "/spec/template/spec"), "spec.template.spec")
}

/// A Service's.
pub(super) fn service(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    rest(at(object, "/spec"), "spec", SERVICE_SPEC, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_without_effect_are_named() {
        let input = json!({"spec": {"dnsPolicy": "ClusterFirst", "hostPID": true, "hostIPC": false, "initContainers": [{"name": "i"}],
            "containers": [{"name": "c", "lifecycle": {"preStop": {}}, "securityContext": {"privileged": true, "runAsNonRoot": true}}]}});
        let mut found = pod(&input);
        found.sort();
        let expected = [
            "spec.containers[0].lifecycle",
            "spec.containers[0].securityContext.runAsNonRoot",
            "spec.hostPID",
            "spec.initContainers",
        ];
        assert_eq!(found, expected);
        assert_eq!(
            service(&json!({"spec": {"type": "ClusterIP", "sessionAffinity": "ClientIP"}})),
            ["spec.sessionAffinity"]
        );
    }
}
