//! Revisions of a Deployment: its ReplicaSets are numbered in the order in which they came in force, for `kubectl rollout history`
//! and `kubectl rollout undo`.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::ObjectMeta;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::Value;

use super::meta;
use super::world::{Key, Kinded, Work};

/// Annotation of a Deployment and of its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotations of a Deployment that its ReplicaSets do not take over: these, and what kubectl last applied.
const OWN: &str = "deployment.kubernetes.io/";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Fields in which 0 and false say nothing: protobuf carries them all the same. (In others they may be what protects.)
const SAY_NOTHING: &[&str] = &[
    "generation",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
];

/// The revision of a ReplicaSet; 0 if it has none yet.
pub fn of(metadata: &ObjectMeta) -> i64 {
    let text = meta::annotation(metadata, REVISION);
    text.and_then(|t| t.parse().ok()).unwrap_or(0)
}

/// Numbers the ReplicaSets: the current one has the highest. It takes over the Deployment's annotations, with the cause of the change
/// among them: an undo puts back those of the ReplicaSet.
pub fn number(
    work: &mut Work<'_>,
    deployment: &Deployment,
    current: &Key,
    others: &[(Key, Arc<ReplicaSet>)],
) {
    let mut last = others.iter().map(|(_, s)| of(&s.metadata)).max().unwrap_or(0);
    // Those of a version that did not number them, in the order of their birth.
    let mut unnumbered: Vec<_> = others.iter().filter(|(_, s)| of(&s.metadata) == 0).collect();
    unnumbered.sort_by_key(|(_, s)| s.metadata.creation_timestamp.clone());
    for (key, _) in unnumbered {
        last = last.saturating_add(1);
        annotate::<ReplicaSet>(
            work,
            key,
            BTreeMap::from([(REVISION.to_owned(), last.to_string())]),
        );
    }
    let Some(set) = work.get::<ReplicaSet>(current) else {
        return;
    };
    let revision = match of(&set.metadata) {
        known if known > last => known,
        _ => last.saturating_add(1),
    };
    let of_deployment = deployment.metadata.annotations.clone().unwrap_or_default();
    let mut annotations = of_deployment;
    annotations.retain(|key, _| !key.starts_with(OWN) && key != LAST_APPLIED);
    let number = BTreeMap::from([(REVISION.to_owned(), revision.to_string())]);
    annotations.extend(number.clone());
    annotate::<ReplicaSet>(work, current, annotations);
    annotate::<Deployment>(work, &Key::of(&deployment.metadata), number);
}

/// Nothing is copied where they are so already.
fn annotate<T: Kinded>(work: &mut Work<'_>, key: &Key, annotations: BTreeMap<String, String>) {
    let has = |object: &T| {
        let mut wanted = annotations.iter();
        wanted.all(|(key, value)| meta::annotation(object.meta(), key) == Some(value))
    };
    if work.get::<T>(key).is_some_and(|object| !has(&object))
        && let Some(object) = work.edit::<T>(key)
    {
        let known = object.meta_mut().annotations.get_or_insert_default();
        known.extend(annotations);
    }
}

/// Whether a ReplicaSet was made of this template. An undo sends it back with empty fields that it did not have.
pub fn is_of(set: &ReplicaSet, deployment: &Deployment, hash_label: &str) -> bool {
    let form = |mut value: Value| {
        let labels = value
            .pointer_mut("/metadata/labels")
            .and_then(Value::as_object_mut);
        labels.map(|labels| labels.remove(hash_label));
        strip(&mut value);
        value
    };
    let Ok(ours) = serde_json::to_value(&set.spec.template) else {
        return false;
    };
    serde_json::to_value(&deployment.spec.template).is_ok_and(|asked| form(asked) == form(ours))
}

/// Takes out fields that say nothing.
fn strip(value: &mut Value) {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(strip);
            let is_zero = |value: &Value| *value == false || *value == 0;
            fields
                .retain(|key, value| says(value) && !(is_zero(value) && SAY_NOTHING.contains(&key.as_str())));
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_is_the_same_without_what_says_nothing_and_another_without_what_protects() {
        let bare = || json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let is_same = |change: fn(&mut Value)| {
            let mut template = bare();
            change(&mut template);
            let set = json!({"metadata": {}, "spec": {"selector": {}, "template": template}});
            let deployment = json!({"metadata": {}, "spec": {"selector": {}, "template": bare()}});
            let set: ReplicaSet = serde_json::from_value(set).unwrap();
            is_of(&set, &serde_json::from_value(deployment).unwrap(), "hash")
        };
        let same: [fn(&mut Value); 5] = [
            |_| (),
            |t| t["metadata"]["labels"]["hash"] = json!("x"),
            |t| t["metadata"]["generation"] = json!(0),
            |t| t["spec"]["hostNetwork"] = json!(false),
            |t| t["spec"]["containers"][0]["resources"] = json!({"limits": {}}),
        ];
        assert_eq!(same.map(is_same), [true; 5]);
        let other: [fn(&mut Value); 5] = [
            |t| t["metadata"]["labels"]["x"] = json!(""),
            |t| t["spec"]["hostNetwork"] = json!(true),
            |t| t["spec"]["containers"][0]["image"] = json!("j"),
            |t| t["spec"]["terminationGracePeriodSeconds"] = json!(0),
            |t| t["spec"]["containers"][0]["securityContext"] = json!({"allowPrivilegeEscalation": false}),
        ];
        assert_eq!(other.map(is_same), [false; 5]);
    }
}
