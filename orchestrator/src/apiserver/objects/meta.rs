//! The metadata that the server owns.

use gantry_api::labels::REQUESTER;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::kinds::{
    FieldError, Kind, at, is_dns_label, is_dns_subdomain, is_label_value, is_qualified_name, label_problem,
    subdomain_problem,
};

/// Finalizers that are Kubernetes' own, and have no domain.
const FINALIZERS: &[&str] = &["orphan", "foregroundDeletion", "kubernetes"];

/// Now, RFC 3339 with whole seconds.
pub(crate) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0)
        .unwrap_or(now)
        .format(&Rfc3339)
        .expect("a current time formats as RFC 3339")
}

/// The metadata, made if missing.
pub(super) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let slot = &mut object["metadata"];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("it was made an object above")
}

/// Text of a metadata field, empty if missing.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|m| m.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Who has made a namespace; `None` for the administrator, who makes them for others.
pub(super) fn requester(namespace: &Value) -> Option<&str> {
    at(namespace, "/metadata/annotations")[REQUESTER].as_str()
}

/// Writes who has made a namespace into it, whatever is said there.
pub(in crate::apiserver) fn set_requester(namespace: &mut Value, user: Option<&str>) {
    if user.is_none() && requester(namespace).is_none() {
        return;
    }
    let annotations = metadata(namespace)
        .entry("annotations")
        .or_insert_with(|| json!({}));
    let Some(annotations) = annotations.as_object_mut() else {
        return;
    };
    match user {
        Some(user) => annotations.insert(REQUESTER.to_owned(), json!(user)),
        None => annotations.remove(REQUESTER),
    };
}

/// Deletion has begun.
pub(super) fn is_going(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// Somebody still has to clean up after the object.
pub(super) fn has_finalizers(object: &Value) -> bool {
    at(object, "/metadata/finalizers")
        .as_array()
        .is_some_and(|f| !f.is_empty())
}

/// Fields of a new object.
pub(super) fn on_create(object: &mut Value) {
    let has_spec = object.get("spec").is_some();
    let metadata = metadata(object);
    for field in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(now()));
    if has_spec {
        metadata.insert("generation".to_owned(), json!(1));
    }
}

/// Fields that an update cannot change; the generation rises with the spec.
pub(super) fn on_update(object: &mut Value, old: &Value) {
    let changed = object.get("spec") != old.get("spec");
    let generation = at(old, "/metadata/generation").as_i64();
    let metadata = metadata(object);
    metadata.remove("managedFields");
    metadata.remove("selfLink");
    let kept = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "generation",
        "resourceVersion",
    ];
    for field in kept {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    if changed {
        metadata.insert("generation".to_owned(), json!(generation.unwrap_or(1) + 1));
    }
}

/// Rules on names, labels, annotations, finalizers, owners.
pub(super) fn validate(kind: &Kind, object: &Value, errors: &mut Vec<FieldError>) {
    let name = text(object, "name");
    let good = if kind.label_name {
        is_dns_label(name)
    } else {
        is_dns_subdomain(name)
    };
    if !good {
        let message = if kind.label_name {
            label_problem(name)
        } else {
            subdomain_problem(name)
        };
        errors.push(FieldError::invalid("metadata.name", message));
    }
    for (key, value) in at(object, "/metadata/labels").as_object().into_iter().flatten() {
        if !is_qualified_name(key) || !value.as_str().is_some_and(is_label_value) {
            errors.push(FieldError::invalid(
                "metadata.labels",
                format!("{key}={value} is not a valid label"),
            ));
        }
    }
    for (key, _) in at(object, "/metadata/annotations")
        .as_object()
        .into_iter()
        .flatten()
    {
        if !is_qualified_name(key) {
            errors.push(FieldError::invalid(
                "metadata.annotations",
                format!("{key:?} is not a valid key"),
            ));
        }
    }
    finalizers(object, errors);
    owners(object, errors);
}

/// A finalizer's name says who cleans up.
fn finalizers(object: &Value, errors: &mut Vec<FieldError>) {
    let names = at(object, "/metadata/finalizers").as_array();
    for (i, name) in names.into_iter().flatten().enumerate() {
        let name = name.as_str().unwrap_or_default();
        let why = if !is_qualified_name(name) {
            "is not a qualified name: write for example example.com/name"
        } else if !name.contains('/') && !FINALIZERS.contains(&name) {
            "is neither a standard finalizer name nor is it fully qualified: write for example example.com/name"
        } else {
            continue;
        };
        let field = format!("metadata.finalizers[{i}]");
        errors.push(FieldError::invalid(field, format!("{name:?} {why}")));
    }
}

/// An owner that nobody can find would own nothing, or what is of another.
fn owners(object: &Value, errors: &mut Vec<FieldError>) {
    let owners = at(object, "/metadata/ownerReferences").as_array();
    let mut controller = None;
    for (i, owner) in owners.into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let field = format!("metadata.ownerReferences[{i}].{field}");
                errors.push(FieldError::invalid(field, "must not be empty"));
            }
        }
        if owner["controller"] != true {
            continue;
        }
        if let Some(first) = controller.replace(owner) {
            let name = |owner: &Value| format!("{}/{}", owner["kind"], owner["name"]).replace('"', "");
            let message = format!(
                "only one reference can have controller set to true, not both {} and {}",
                name(first),
                name(owner)
            );
            errors.push(FieldError::invalid("metadata.ownerReferences", message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::named;

    fn refused(metadata: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "m"}});
        let fields = object["metadata"].as_object_mut().unwrap();
        fields.extend(metadata.as_object().unwrap().clone());
        let mut errors = Vec::new();
        validate(named("ConfigMap").unwrap(), &object, &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn a_finalizer_says_whose_it_is() {
        for good in [
            "orphan",
            "foregroundDeletion",
            "kubernetes",
            "example.com/x",
            "a/b",
        ] {
            assert!(refused(json!({"finalizers": [good]})).is_empty(), "{good}");
        }
        for bad in ["mine", "", "a/", "/b", "a/b/c", "A.example/x", "a b"] {
            let found = refused(json!({"finalizers": ["a/b", bad]}));
            assert_eq!(found, ["metadata.finalizers[1]"], "{bad}");
        }
    }

    #[test]
    fn owners_can_be_found_and_one_controls() {
        let owner = |controller: bool| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": controller});
        let with = |owners: Value| refused(json!({"ownerReferences": owners}));
        assert!(with(json!([owner(true), owner(false)])).is_empty());
        assert_eq!(
            with(json!([owner(true), owner(false), owner(true)])),
            ["metadata.ownerReferences"]
        );
        for field in ["apiVersion", "kind", "name", "uid"] {
            for nothing in [json!(""), Value::Null] {
                let mut owner = owner(true);
                owner[field] = nothing;
                assert_eq!(
                    with(json!([owner])),
                    [format!("metadata.ownerReferences[0].{field}")]
                );
            }
        }
    }
}
