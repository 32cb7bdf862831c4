//! What protects is done or refused: somebody who asks for it relies on it. A field that becomes honoured leaves these lists.

use serde_json::Value;

use super::FieldError;
use super::path::{at, list};

type Errors = Vec<FieldError>;

/// Largest user and group number, as in Kubernetes.
const MAX_ID: i64 = i32::MAX as i64;

/// Of a PodSpec: pointer, and what to do instead.
const POD: &[(&str, &str)] = &[
    ("/hostPID", "pods do not share the node's processes: leave it out"),
    ("/hostIPC", "pods do not share the node's IPC: leave it out"),
    (
        "/shareProcessNamespace",
        "containers do not see each other's processes: leave it out",
    ),
    ("/runtimeClassName", "there is one runtime: leave it out"),
    ("/hostUsers", "user namespaces are not supported: leave it out"),
    ("/securityContext/runAsNonRoot", NOT_YET),
    ("/securityContext/seccompProfile", NOT_YET),
    ("/securityContext/appArmorProfile", NOT_YET),
    ("/securityContext/seLinuxOptions", NOT_YET),
    ("/securityContext/windowsOptions", "nodes run Linux: leave it out"),
    ("/securityContext/fsGroup", NOT_YET),
    ("/securityContext/supplementalGroups", NOT_YET),
    ("/securityContext/sysctls", NOT_YET),
];

/// Of a container.
const CONTAINER: &[(&str, &str)] = &[
    ("/securityContext/runAsNonRoot", NOT_YET),
    ("/securityContext/seccompProfile", NOT_YET),
    ("/securityContext/appArmorProfile", NOT_YET),
    ("/securityContext/seLinuxOptions", NOT_YET),
    ("/securityContext/windowsOptions", "nodes run Linux: leave it out"),
    ("/securityContext/procMount", "only Default is supported"),
];

const NOT_YET: &str = "is not supported: leave it out if the pod may run without";

/// Values that say what is so anyway.
fn says_nothing(pointer: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => *flag == (pointer == "/hostUsers"),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty() || (pointer.ends_with("/procMount") && text == "Default"),
        Value::Number(_) => false,
    }
}

/// All rules on the spec at `path`.
pub(super) fn spec(spec: &Value, path: &str, errors: &mut Errors) {
    refuse(spec, path, POD, errors);
    ids(spec, path, errors);
    for containers in ["initContainers", "containers"] {
        for (i, container) in list(spec, &format!("/{containers}")).iter().enumerate() {
            let here = format!("{path}.{containers}[{i}]");
            refuse(container, &here, CONTAINER, errors);
            ids(container, &here, errors);
            capabilities(container, &here, errors);
        }
    }
    if !["", "linux"].contains(&at(spec, "/os/name").as_str().unwrap_or_default()) {
        errors.push(FieldError::invalid(format!("{path}.os.name"), "nodes run linux"));
    }
}

fn refuse(object: &Value, path: &str, fields: &[(&str, &str)], errors: &mut Errors) {
    for (pointer, why) in fields {
        if !says_nothing(pointer, at(object, pointer)) {
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

/// A number that is none would be taken for the image's user, which may be root.
fn ids(object: &Value, path: &str, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        let value = at(object, "/securityContext").get(field).and_then(Value::as_i64);
        if value.is_some_and(|id| !(0..=MAX_ID).contains(&id)) {
            errors.push(FieldError::invalid(
                format!("{path}.securityContext.{field}"),
                format!("must be between 0 and {MAX_ID}, inclusive"),
            ));
        }
    }
}

/// Containers have the capabilities that they add and no other: `drop` is done, as long as it is no contradiction.
fn capabilities(container: &Value, path: &str, errors: &mut Errors) {
    let added = list(container, "/securityContext/capabilities/add");
    let dropped = list(container, "/securityContext/capabilities/drop");
    for (i, capability) in dropped.iter().enumerate().filter(|(_, c)| added.contains(c)) {
        errors.push(FieldError::invalid(
            format!("{path}.securityContext.capabilities.drop[{i}]"),
            format!("{capability} is added too"),
        ));
    }
    let may_gain = at(container, "/securityContext/privileged") == true
        || added.iter().any(|c| c == "SYS_ADMIN" || c == "CAP_SYS_ADMIN");
    if may_gain && at(container, "/securityContext/allowPrivilegeEscalation") == false {
        errors.push(FieldError::invalid(
            format!("{path}.securityContext.allowPrivilegeEscalation"),
            "cannot be false for a privileged container or one with SYS_ADMIN",
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
        let spec = json!({"hostPID": true, "hostIPC": false, "runtimeClassName": "gvisor",
            "securityContext": {"seLinuxOptions": {"type": "t"}, "runAsUser": -1},
            "containers": [{"securityContext": {"procMount": "Unmasked", "runAsGroup": 4_294_967_295_i64}}]});
        assert_eq!(
            refused(spec),
            [
                "spec.hostPID",
                "spec.runtimeClassName",
                "spec.securityContext.seLinuxOptions",
                "spec.securityContext.runAsUser",
                "spec.containers[0].securityContext.procMount",
                "spec.containers[0].securityContext.runAsGroup",
            ]
        );
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
            [
                "spec.containers[0].securityContext.capabilities.drop[0]",
                "spec.containers[0].securityContext.allowPrivilegeEscalation",
            ]
        );
    }
}
