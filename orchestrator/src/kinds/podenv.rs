//! Rules on where a container's environment comes from. What is not one of them could only be left out later.
//!
//! Source: k8s.io/kubernetes/pkg/apis/core/validation, `ValidateEnv`, `ValidateEnvFrom`.

use serde_json::Value;

use super::FieldError;
use super::names::is_env_name;
use super::path::{at, list, text};

type Errors = Vec<FieldError>;

/// Fields that a variable may have.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that a file may have.
const FILE_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
];
const RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"];

/// `env` and `envFrom` of the container at `here`.
pub(super) fn check(container: &Value, here: &str, errors: &mut Errors) {
    for (i, from) in list(container, "/envFrom").iter().enumerate() {
        let here = format!("{here}.envFrom[{i}]");
        let prefix = text(from, "/prefix");
        if !prefix.is_empty() && !is_env_name(prefix) {
            errors.push(bad_name(format!("{here}.prefix"), prefix));
        }
        let named: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|source| !at(from, &format!("/{source}")).is_null())
            .collect();
        match named.as_slice() {
            [one] => required(
                from,
                &format!("/{one}/name"),
                format!("{here}.{one}.name"),
                errors,
            ),
            [] => errors.push(FieldError::invalid(
                here,
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            _ => errors.push(FieldError::invalid(
                here,
                "may not have more than one field specified at a time",
            )),
        }
    }
    for (i, var) in list(container, "/env").iter().enumerate() {
        let here = format!("{here}.env[{i}]");
        let name = text(var, "/name");
        if name.is_empty() {
            required(var, "/name", format!("{here}.name"), errors);
        } else if !is_env_name(name) {
            errors.push(bad_name(format!("{here}.name"), name));
        }
        let from = at(var, "/valueFrom");
        if from.is_null() {
            continue;
        }
        let here = format!("{here}.valueFrom");
        if !text(var, "/value").is_empty() {
            let message = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(here, message));
            continue;
        }
        value_from(from, &here, errors);
    }
}

fn value_from(from: &Value, here: &str, errors: &mut Errors) {
    let named: Vec<&String> = from.as_object().into_iter().flatten().map(|(k, _)| k).collect();
    let source = match named.as_slice() {
        [one] if SOURCES.contains(&one.as_str()) => one.as_str(),
        [_, _, ..] => {
            let message = "may not have more than one field specified at a time";
            return errors.push(FieldError::invalid(here, message));
        }
        _ => {
            let message = format!("must specify one of: `{}`", SOURCES.join("`, `"));
            return errors.push(FieldError::invalid(here, message));
        }
    };
    let source_value = at(from, &format!("/{source}"));
    let here = format!("{here}.{source}");
    match source {
        "fieldRef" => field_ref(source_value, FIELDS, &here, errors),
        "resourceFieldRef" => resource_ref(source_value, &here, errors),
        _ => {
            required(source_value, "/name", format!("{here}.name"), errors);
            required(source_value, "/key", format!("{here}.key"), errors);
        }
    }
}

/// A `fieldRef` of a file in a volume.
pub(super) fn file_field_ref(source: &Value, here: &str, errors: &mut Errors) {
    field_ref(source, FILE_FIELDS, here, errors);
}

fn field_ref(source: &Value, known: &[&str], here: &str, errors: &mut Errors) {
    let path = text(source, "/fieldPath");
    let one_of = |prefix: &str| {
        path.strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix("']"))
            .is_some_and(|key| !key.is_empty())
    };
    let good = known.contains(&path) || one_of("metadata.labels['") || one_of("metadata.annotations['");
    if path.is_empty() {
        required(source, "/fieldPath", format!("{here}.fieldPath"), errors);
    } else if !good {
        let message = format!(
            "{path:?} is not supported: use {}, metadata.labels['KEY'] or metadata.annotations['KEY']",
            known.join(", ")
        );
        errors.push(unsupported(format!("{here}.fieldPath"), message));
    }
}

/// A `resourceFieldRef`.
pub(super) fn resource_ref(source: &Value, here: &str, errors: &mut Errors) {
    let resource = text(source, "/resource");
    let good = resource.split_once('.').is_some_and(|(which, name)| {
        ["limits", "requests"].contains(&which)
            && (RESOURCES.contains(&name) || name.starts_with("hugepages-"))
    });
    if resource.is_empty() {
        required(source, "/resource", format!("{here}.resource"), errors);
    } else if !good {
        let message = format!(
            "{resource:?} is not supported: use limits. or requests. with cpu, memory, ephemeral-storage or hugepages-SIZE"
        );
        errors.push(unsupported(format!("{here}.resource"), message));
    }
}

fn required(object: &Value, pointer: &str, field: String, errors: &mut Errors) {
    if text(object, pointer).is_empty() {
        errors.push(FieldError {
            field,
            message: "must be given".to_owned(),
            reason: "FieldValueRequired",
        });
    }
}

fn unsupported(field: String, message: String) -> FieldError {
    FieldError {
        field,
        message,
        reason: "FieldValueNotSupported",
    }
}

fn bad_name(field: String, name: &str) -> FieldError {
    let message = format!(
        "{name:?}: a valid environment variable name must consist only of printable ASCII characters other than '='"
    );
    FieldError::invalid(field, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(container: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(&container, "c", &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn every_variable_has_a_name_and_one_source() {
        let from = |source: Value| json!({"env": [{"name": "A", "valueFrom": source}]});
        for good in [
            json!({"env": [{"name": "a.b-c d", "value": "x"}, {"name": "B"}]}),
            json!({"envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}]}),
            from(json!({"fieldRef": {"fieldPath": "status.podIP"}})),
            from(json!({"fieldRef": {"fieldPath": "metadata.labels['a/b']"}})),
            from(json!({"resourceFieldRef": {"resource": "limits.hugepages-2Mi"}})),
            from(json!({"secretKeyRef": {"name": "s", "key": "k"}})),
        ] {
            assert!(refused(good.clone()).is_empty(), "{good}");
        }
        for (bad, field) in [
            (json!({"env": [{"name": "A=B"}]}), "c.env[0].name"),
            (json!({"env": [{"name": ""}]}), "c.env[0].name"),
            (json!({"env": [{"name": "\u{e4}"}]}), "c.env[0].name"),
            (
                json!({"envFrom": [{"prefix": "="  , "secretRef": {"name": "s"}}]}),
                "c.envFrom[0].prefix",
            ),
            (json!({"envFrom": [{}]}), "c.envFrom[0]"),
            (
                json!({"envFrom": [{"secretRef": {}}]}),
                "c.envFrom[0].secretRef.name",
            ),
            (
                json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
                "c.env[0].valueFrom",
            ),
            (from(json!({})), "c.env[0].valueFrom"),
            (from(json!({"fileKeyRef": {}})), "c.env[0].valueFrom"),
            (
                from(json!({"fieldRef": {"fieldPath": "spec.containers"}})),
                "c.env[0].valueFrom.fieldRef.fieldPath",
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "metadata.labels"}})),
                "c.env[0].valueFrom.fieldRef.fieldPath",
            ),
            (
                from(json!({"resourceFieldRef": {"resource": "limits.gpu"}})),
                "c.env[0].valueFrom.resourceFieldRef.resource",
            ),
            (
                from(json!({"secretKeyRef": {"name": "s"}})),
                "c.env[0].valueFrom.secretKeyRef.key",
            ),
        ] {
            assert_eq!(refused(bad.clone()), [field], "{bad}");
        }
    }
}
