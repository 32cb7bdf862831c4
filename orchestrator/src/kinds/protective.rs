//! What protects, or holds something back, is done or refused: somebody who asks for it relies on it. A field that becomes
//! honoured leaves these lists.

use serde_json::Value;

use super::FieldError;
use super::path::{at, list};

type Errors = Vec<FieldError>;

/// Of a PodSpec: pointer, and what to do instead. What a `securityContext` says is in `podsecurity`.
const POD: &[(&str, &str)] = &[
    (
        "/shareProcessNamespace",
        "containers do not see each other's processes: leave it out",
    ),
    ("/runtimeClassName", "there is one runtime: leave it out"),
    (
        "/schedulingGates",
        "nothing holds a pod back from its node: make it when it may run",
    ),
    (
        "/readinessGates",
        "no condition but those of its containers makes a pod ready: use a readinessProbe",
    ),
    (
        "/ephemeralContainers",
        "a pod cannot be made with them: use `kubectl exec` or a sidecar",
    ),
];

/// Of a Service.
const SERVICE: &[(&str, &str)] = &[(
    "/sessionAffinityConfig",
    "clients are not tied to backends, their connections are: leave it out",
)];

/// Values that say what is so anyway.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) | Value::Number(_) => false,
    }
}

/// All rules on the spec at `path`.
pub(super) fn spec(spec: &Value, path: &str, errors: &mut Errors) {
    refuse(spec, path, POD, errors);
    for containers in ["initContainers", "containers"] {
        for (i, container) in list(spec, &format!("/{containers}")).iter().enumerate() {
            let here = format!("{path}.{containers}[{i}]");
            capabilities(container, &here, errors);
        }
    }
    if !["", "linux"].contains(&at(spec, "/os/name").as_str().unwrap_or_default()) {
        errors.push(FieldError::invalid(format!("{path}.os.name"), "nodes run linux"));
    }
}

/// The same of a Service.
pub(super) fn service(spec: &Value, errors: &mut Errors) {
    refuse(spec, "spec", SERVICE, errors);
    if at(spec, "/sessionAffinity") == "ClientIP" {
        let message = "clients are not tied to backends, their connections are: use None";
        errors.push(forbidden("spec.sessionAffinity".to_owned(), message));
    }
}

fn refuse(object: &Value, path: &str, fields: &[(&str, &str)], errors: &mut Errors) {
    for (pointer, why) in fields {
        if !says_nothing(at(object, pointer)) {
            errors.push(forbidden(format!("{path}{}", pointer.replace('/', ".")), why));
        }
    }
}

fn forbidden(field: String, why: &str) -> FieldError {
    FieldError {
        field,
        message: why.to_owned(),
        reason: "FieldValueForbidden",
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
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(spec: Value) -> Vec<String> {
        let mut errors = Errors::new();
        super::spec(&spec, "spec", &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn what_protects_and_is_not_done_is_refused() {
        let spec = json!({"runtimeClassName": "gvisor", "shareProcessNamespace": true, "containers": [],
            "schedulingGates": [{"name": "a"}], "readinessGates": [{"conditionType": "a"}], "ephemeralContainers": []});
        let expected = [
            "shareProcessNamespace",
            "runtimeClassName",
            "schedulingGates",
            "readinessGates",
        ];
        assert_eq!(refused(spec), expected.map(|field| format!("spec.{field}")));
        let mut errors = Errors::new();
        service(&json!({"sessionAffinity": "None"}), &mut errors);
        assert!(errors.is_empty());
        service(&json!({"sessionAffinity": "ClientIP"}), &mut errors);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn what_is_so_anyway_is_taken() {
        let security = json!({"procMount": "Default", "runAsUser": 2_147_483_647, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}});
        let spec = json!({"hostUsers": true, "shareProcessNamespace": false, "os": {"name": "linux"}, "securityContext": {},
            "containers": [{"securityContext": security}]});
        assert!(refused(spec).is_empty());
        let both = json!({"containers": [{"securityContext": {"privileged": true, "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_RAW"], "drop": ["NET_RAW"]}}}]});
        assert_eq!(
            refused(both),
            ["spec.containers[0].securityContext.capabilities.drop[0]"]
        );
    }
}
