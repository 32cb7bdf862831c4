//! PersistentVolumeClaim: rules, defaults, and what its columns show. A claim is a directory on the disk of one node.
//!
//! Source: k8s.io/kubernetes/pkg/apis/core/validation, `ValidatePersistentVolumeClaimSpec`, `ValidatePersistentVolumeClaimUpdate`.

use serde_json::{Value, json};

use super::path::{at, list, set_default, text};
use super::{Context, FieldError};
use crate::core::claims::{FINALIZER, SELECTED_NODE};
use crate::quantity;

type Errors = Vec<FieldError>;

/// The class that there is.
const CLASS: &str = "local";
const MODES: &[&str] = &["ReadWriteOnce", "ReadWriteOncePod"];
const SIZE: &str = "/spec/resources/requests/storage";

/// Fields of the spec that would have to be done and are not, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    (
        "selector",
        "there are no PersistentVolumes to choose from: leave it out",
    ),
    ("dataSource", "a claim begins empty: leave it out"),
    ("dataSourceRef", "a claim begins empty: leave it out"),
    (
        "volumeAttributesClassName",
        "there are no VolumeAttributesClasses: leave it out",
    ),
    (
        "resources.limits",
        "a claim has one size: use resources.requests.storage alone",
    ),
];

/// A new one is protected from its birth; `typed` objects of the core have their uid.
pub(super) fn default(object: &mut Value) {
    set_default(object, &["spec", "storageClassName"], CLASS);
    set_default(object, &["spec", "volumeMode"], "Filesystem");
    set_default(object, &["status", "phase"], "Pending");
    let is_new = text(object, "/metadata/uid").is_empty();
    let finalizers = list(object, "/metadata/finalizers");
    if is_new && !finalizers.iter().any(|f| f == FINALIZER) {
        let mut all = finalizers.to_vec();
        all.push(json!(FINALIZER));
        object["metadata"]["finalizers"] = Value::Array(all);
    }
}

/// All rules.
pub(super) fn validate(new: &Value, old: Option<&Value>, _: &Context, errors: &mut Errors) {
    access_modes(new, errors);
    let class = text(new, "/spec/storageClassName");
    if !["", CLASS].contains(&class) {
        let message = format!("{class:?}: there is one StorageClass, {CLASS:?}: use it, or leave it out");
        errors.push(FieldError::invalid("spec.storageClassName", message));
    }
    let mode = text(new, "/spec/volumeMode");
    if mode != "Filesystem" {
        let message = format!("{mode:?}: a claim is a directory, no block device: use Filesystem");
        errors.push(FieldError::invalid("spec.volumeMode", message));
    }
    for (field, why) in REFUSED {
        let value = at(new, &format!("/spec/{}", field.replace('.', "/")));
        if !value.is_null() && value != &json!({}) && value != &json!("") {
            errors.push(FieldError::forbidden(format!("spec.{field}"), *why));
        }
    }
    size(new, old, errors);
    // What the core grants, and what nodes are told.
    let granted = |object| at(object, "/status/capacity").clone();
    if old.is_some_and(|old| granted(old) != granted(new)) {
        errors.push(FieldError::immutable("status.capacity"));
    }
    match old {
        None if !text(new, "/spec/volumeName").is_empty() => errors.push(FieldError::forbidden(
            "spec.volumeName",
            "a claim gets a volume of its own, on the node of the first pod that uses it: leave it out",
        )),
        Some(old) => unchanged(new, old, errors),
        None => {}
    }
}

fn access_modes(new: &Value, errors: &mut Errors) {
    let modes = list(new, "/spec/accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(
            "spec.accessModes",
            "at least 1 access mode is required",
        ));
    }
    for (i, mode) in modes.iter().enumerate() {
        if !mode.as_str().is_some_and(|mode| MODES.contains(&mode)) {
            let message = format!(
                "Unsupported value: {mode}: a claim is on the disk of one node; supported values: \"ReadWriteOnce\", \"ReadWriteOncePod\""
            );
            errors.push(FieldError::invalid(format!("spec.accessModes[{i}]"), message));
        }
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.push(FieldError::forbidden(
            "spec.accessModes",
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
}

fn size(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    const FIELD: &str = "spec.resources.requests[storage]";
    let bytes = |object| at(object, SIZE).as_str().and_then(quantity::units);
    match (at(new, SIZE), bytes(new)) {
        (Value::Null, _) => errors.push(FieldError::required(
            FIELD,
            "the size of the volume must be given",
        )),
        (_, Some(0)) => errors.push(FieldError::invalid(FIELD, "must be greater than zero")),
        (given, None) => {
            let message = format!("{given} is not a quantity that can be had: write for example 1Gi");
            errors.push(FieldError::invalid(FIELD, message));
        }
        (_, Some(bytes_now)) => {
            if old.and_then(bytes).is_some_and(|before| bytes_now < before) {
                let message = "field can not be less than before: what is in the volume may need it";
                errors.push(FieldError::forbidden(FIELD, message));
            }
        }
    }
    let others = at(new, "/spec/resources/requests").as_object();
    for (name, _) in others
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "storage")
    {
        let field = format!("spec.resources.requests[{name}]");
        errors.push(FieldError::forbidden(
            field,
            "a claim has storage and nothing else: leave it out",
        ));
    }
}

/// All but the size; and where it is, once it is somewhere: whoever could change that would have another's directory, or none.
fn unchanged(new: &Value, old: &Value, errors: &mut Errors) {
    let strip = |object: &Value| {
        let mut spec = at(object, "/spec").clone();
        spec["resources"] = Value::Null;
        spec
    };
    if strip(new) != strip(old) {
        errors.push(FieldError::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests: make another claim",
        ));
    }
    let place = |object| at(object, "/metadata/annotations").get(SELECTED_NODE).cloned();
    if !text(old, "/spec/volumeName").is_empty() && place(new) != place(old) {
        let field = format!("metadata.annotations[{SELECTED_NODE}]");
        errors.push(FieldError::forbidden(
            field,
            "the volume is on that node, and does not move",
        ));
    }
}

/// `Bound`, `Pending`, `Terminating`.
pub(super) fn status(claim: &Value) -> Value {
    match text(claim, "/metadata/deletionTimestamp") {
        "" => at(claim, "/status/phase").clone(),
        _ => json!("Terminating"),
    }
}

/// `RWO`, as kubectl shows it: of a volume that is there.
pub(super) fn modes(claim: &Value) -> Value {
    let modes = list(claim, "/status/accessModes")
        .iter()
        .filter_map(Value::as_str);
    let short = modes.map(|mode| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    json!(short.collect::<Vec<_>>().join(","))
}

/// A field of a volume that is there; empty before.
pub(super) fn of_volume(claim: &Value, pointer: &str) -> Value {
    json!(text(claim, pointer))
}

#[cfg(test)]
mod tests {
    use super::super::named;
    use super::*;

    fn claim(spec: Value) -> Value {
        let kind = named("PersistentVolumeClaim").unwrap();
        let mut full =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        full.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let mut object = (kind.decode)(&json!({"metadata": {"name": "c"}, "spec": full})).unwrap();
        (kind.default)(&mut object);
        object
    }

    fn fields(new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut errors = Errors::new();
        validate(new, old, &Context::default(), &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn what_is_not_done_is_refused_with_its_field() {
        for good in [
            json!({}),
            json!({"storageClassName": "local"}),
            json!({"storageClassName": ""}),
            json!({"accessModes": ["ReadWriteOncePod"]}),
            json!({"volumeMode": "Filesystem"}),
        ] {
            assert_eq!(fields(&claim(good.clone()), None), Vec::<String>::new(), "{good}");
        }
        let size = "spec.resources.requests[storage]";
        let requests = |requests: Value| json!({"resources": {"requests": requests}});
        for (bad, field) in [
            (json!({"accessModes": []}), "spec.accessModes"),
            (json!({"accessModes": ["ReadWriteMany"]}), "spec.accessModes[0]"),
            (json!({"accessModes": ["ReadOnlyMany"]}), "spec.accessModes[0]"),
            (
                json!({"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"]}),
                "spec.accessModes",
            ),
            (requests(json!({})), size),
            (requests(json!({"storage": "0"})), size),
            (requests(json!({"storage": "-1"})), size),
            (
                requests(json!({"storage": "1Gi", "cpu": "1"})),
                "spec.resources.requests[cpu]",
            ),
            (
                json!({"resources": {"requests": {"storage": "1Gi"}, "limits": {"storage": "2Gi"}}}),
                "spec.resources.limits",
            ),
            (json!({"storageClassName": "fast"}), "spec.storageClassName"),
            (json!({"volumeMode": "Block"}), "spec.volumeMode"),
            (json!({"volumeName": "pv"}), "spec.volumeName"),
            (json!({"selector": {"matchLabels": {"a": "b"}}}), "spec.selector"),
            (
                json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}}),
                "spec.dataSource",
            ),
        ] {
            assert_eq!(fields(&claim(bad.clone()), None), [field], "{bad}");
        }
    }

    #[test]
    fn it_grows_and_nothing_else_of_it_changes() {
        let of = |size: &str| claim(json!({"resources": {"requests": {"storage": size}}}));
        let mut bound = of("1Gi");
        bound["spec"]["volumeName"] = json!("pvc-1");
        bound["metadata"]["annotations"] = json!({SELECTED_NODE: "a"});
        let with = |size: &str| {
            let mut changed = bound.clone();
            changed["spec"]["resources"]["requests"]["storage"] = json!(size);
            changed
        };
        assert_eq!(fields(&with("2Gi"), Some(&bound)), Vec::<String>::new());
        assert_eq!(fields(&with("1024Mi"), Some(&bound)), Vec::<String>::new());
        assert_eq!(
            fields(&with("1023Mi"), Some(&bound)),
            ["spec.resources.requests[storage]"]
        );
        let mut moved = bound.clone();
        moved["metadata"]["annotations"] = json!({SELECTED_NODE: "b"});
        assert_eq!(
            fields(&moved, Some(&bound)),
            [format!("metadata.annotations[{SELECTED_NODE}]")]
        );
        let mut other = bound.clone();
        other["spec"]["volumeName"] = json!("pvc-2");
        assert_eq!(fields(&other, Some(&bound)), ["spec"]);
        other["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
        assert_eq!(fields(&other, Some(&bound)), ["spec"]);
    }

    #[test]
    fn only_a_new_one_gets_its_protection() {
        let mut object = claim(json!({}));
        assert_eq!(object["metadata"]["finalizers"], json!([FINALIZER]));
        object["metadata"] = json!({"name": "c", "uid": "1"});
        default(&mut object);
        assert!(object["metadata"].get("finalizers").is_none());
    }
}
