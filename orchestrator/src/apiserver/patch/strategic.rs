//! Strategic merge patch: as a merge patch, but lists of objects merge by a key, and directives (`$patch`,
//! `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`, `$retainKeys`) say more. Kubernetes: `api-machinery/strategic-merge-patch`.

use serde_json::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merge keys by field name, from the `patchMergeKey` tags of Kubernetes' types.
fn merge_keys(field: &str) -> &'static [&'static str] {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets" => &["name"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        // Containers have containerPort, Services port.
        "ports" => &["containerPort", "port"],
        "hostAliases" => &["ip"],
        "ownerReferences" => &["uid"],
        "conditions" | "addresses" => &["type"],
        "topologySpreadConstraints" => &["topologyKey"],
        "podIPs" | "hostIPs" => &["ip"],
        "taints" => &["key"],
        _ => &[],
    }
}

/// Lists of plain values that merge instead of being replaced.
fn merges_primitives(field: &str) -> bool {
    matches!(field, "finalizers" | "podCIDRs")
}

/// Each element of a list's patch (`patches`) is looked for among the list's (`items`); `most` of `PatchLimits::comparisons`.
fn comparable(items: usize, patches: usize, most: usize) -> Result<(), String> {
    if items.saturating_mul(patches) > most {
        return Err(format!(
            "the lists of {items} and {patches} elements are too long to be merged: replace the list instead"
        ));
    }
    Ok(())
}

/// Applies a patch to an object; `most` bounds the comparisons of a list.
pub(super) fn merge(object: &mut Value, patch: &Value, most: usize) -> Result<(), String> {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return Ok(());
    };
    match fields.get(PATCH).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *object = clean(patch);
            return Ok(());
        }
        Some("delete") => {
            *object = Value::Null;
            return Ok(());
        }
        Some(other) => return Err(format!("unknown $patch directive {other:?}")),
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(target) = object.as_object_mut() else {
        return Ok(());
    };
    for (field, value) in fields {
        if field == PATCH || field == RETAIN || field.starts_with(ORDER) {
            continue;
        }
        if let Some(list) = field.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(target, list, value, most)?;
            continue;
        }
        merge_field(target, field, value, most)?;
    }
    for (field, order) in fields
        .iter()
        .filter_map(|(f, v)| Some((f.strip_prefix(ORDER)?, v)))
    {
        if let (Some(Value::Array(items)), Some(order)) = (target.get_mut(field), order.as_array()) {
            comparable(items.len(), order.len(), most)?;
            reorder(items, order, merge_keys(field));
        }
    }
    if let Some(retain) = fields.get(RETAIN).and_then(Value::as_array) {
        target.retain(|field, _| retain.iter().any(|r| r == field.as_str()));
    }
    Ok(())
}

fn merge_field(
    target: &mut Map<String, Value>,
    field: &str,
    value: &Value,
    most: usize,
) -> Result<(), String> {
    match value {
        Value::Null => {
            target.remove(field);
        }
        Value::Object(_) => {
            let slot = target.entry(field).or_insert(Value::Null);
            merge(slot, value, most)?;
            if slot.is_null() {
                target.remove(field);
            }
        }
        Value::Array(patches) => {
            let slot = target.entry(field).or_insert_with(|| Value::Array(Vec::new()));
            let items = match slot {
                Value::Array(items) => std::mem::take(items),
                _ => Vec::new(),
            };
            *slot = Value::Array(merge_list(field, items, patches, most)?);
        }
        plain => {
            target.insert(field.to_owned(), plain.clone());
        }
    }
    Ok(())
}

fn merge_list(
    field: &str,
    mut items: Vec<Value>,
    patches: &[Value],
    most: usize,
) -> Result<Vec<Value>, String> {
    let is_replace = |p: &Value| p.get(PATCH).is_some_and(|d| d == "replace");
    if patches.iter().any(is_replace) {
        let kept = patches
            .iter()
            .filter(|p| !(is_replace(p) && p.as_object().is_some_and(|o| o.len() == 1)));
        return Ok(kept.map(clean).collect());
    }
    if merges_primitives(field) {
        comparable(items.len() + patches.len(), patches.len(), most)?;
        for patch in patches {
            if !items.contains(patch) {
                items.push(patch.clone());
            }
        }
        return Ok(items);
    }
    let keys = merge_keys(field);
    if keys.is_empty() || !patches.iter().all(Value::is_object) {
        return Ok(patches.iter().map(clean).collect());
    }
    comparable(items.len() + patches.len(), patches.len(), most)?;
    for patch in patches {
        let key = keys
            .iter()
            .find(|key| patch.get(**key).is_some())
            .ok_or_else(|| {
                format!(
                    "an element of the list {field} lacks its merge key {}",
                    keys.join(" or ")
                )
            })?;
        let found = items
            .iter()
            .position(|item| item.get(*key) == patch.get(*key) && same_protocol(item, patch));
        let deletes = patch.get(PATCH).is_some_and(|d| d == "delete");
        match (found, deletes) {
            (Some(i), true) => drop(items.remove(i)),
            (None, true) => {}
            (Some(i), false) => merge(&mut items[i], patch, most)?,
            (None, false) => items.push(clean(patch)),
        }
    }
    Ok(items)
}

/// Two ports of the same number differ by protocol; a patch that does not name one means any.
fn same_protocol(item: &Value, patch: &Value) -> bool {
    match (item.get("protocol"), patch.get("protocol")) {
        (Some(item), Some(patch)) => item == patch,
        _ => true,
    }
}

fn delete_primitives(
    target: &mut Map<String, Value>,
    field: &str,
    values: &Value,
    most: usize,
) -> Result<(), String> {
    let values = values
        .as_array()
        .ok_or_else(|| format!("{DELETE_PRIMITIVES}{field} must be a list"))?;
    if let Some(Value::Array(items)) = target.get_mut(field) {
        comparable(items.len(), values.len(), most)?;
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

/// Elements in the order that the patch gives; those that it does not name keep their place after them.
fn reorder(items: &mut [Value], order: &[Value], keys: &[&str]) {
    let place = |item: &Value| {
        order
            .iter()
            .position(
                |wanted| match keys.iter().find(|key| wanted.get(**key).is_some()) {
                    Some(key) => wanted.get(*key) == item.get(*key) && same_protocol(item, wanted),
                    None => wanted == item,
                },
            )
            .unwrap_or(order.len())
    };
    items.sort_by_key(place);
}

/// Without directives and nulls: what a patch says where nothing was.
fn clean(patch: &Value) -> Value {
    match patch {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(field, value)| !field.starts_with('$') && !value.is_null())
                .map(|(field, value)| (field.clone(), clean(value)))
                .collect(),
        ),
        Value::Array(items) => items
            .iter()
            .filter(|item| item.get(PATCH).is_none_or(|directive| directive != "delete"))
            .map(clean)
            .collect(),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MOST: usize = 1000;

    fn after(mut object: Value, patch: Value) -> Value {
        merge(&mut object, &patch, MOST).unwrap();
        object
    }

    #[test]
    fn lists_merge_by_key() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]}});
        assert_eq!(
            after(pod, patch),
            json!({"spec": {"containers": [
                {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                {"name": "b"}, {"name": "c"}]}})
        );
    }

    #[test]
    fn directives() {
        let object =
            json!({"containers": [{"name": "a"}, {"name": "b"}], "finalizers": ["x", "y"], "args": [1, 2]});
        let patch = json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "c"}],
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            "$deleteFromPrimitiveList/finalizers": ["x"], "finalizers": ["z"], "args": [3]});
        let merged = after(object, patch);
        assert_eq!(merged["containers"], json!([{"name": "c"}, {"name": "b"}]));
        assert_eq!(merged["args"], json!([3]));
        let mut finalizers: Vec<_> = merged["finalizers"].as_array().unwrap().clone();
        finalizers.sort_by_key(Value::to_string);
        assert_eq!(finalizers, [json!("y"), json!("z")]);
        assert_eq!(
            after(
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"$patch": "replace", "d": 3}})
            ),
            json!({"a": {"d": 3}})
        );
        assert_eq!(
            after(
                json!({"s": {"a": 1, "b": 2}}),
                json!({"s": {"$retainKeys": ["b"], "b": 3}})
            ),
            json!({"s": {"b": 3}})
        );
        assert_eq!(
            after(json!({"a": 1, "b": 2}), json!({"a": null})),
            json!({"b": 2})
        );
    }

    #[test]
    fn service_ports_differ_by_protocol() {
        let service =
            json!({"ports": [{"port": 5060, "protocol": "UDP"}, {"port": 5060, "protocol": "TCP"}]});
        let merged = after(
            service,
            json!({"ports": [{"port": 5060, "protocol": "TCP", "name": "t"}]}),
        );
        assert_eq!(
            merged["ports"],
            json!([{"port": 5060, "protocol": "UDP"}, {"port": 5060, "protocol": "TCP", "name": "t"}])
        );
        assert!(merge(&mut json!({}), &json!({"containers": [{"image": "x"}]}), MOST).is_err());
    }

    fn containers() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", "[0-9]", 0..4).prop_map(|m| {
            Value::Array(
                m.into_iter()
                    .map(|(name, image)| json!({"name": name, "image": image}))
                    .collect(),
            )
        })
    }

    proptest! {
        #[test]
        fn idempotent_and_complete(old in containers(), patch in containers()) {
            let patch = json!({"containers": patch});
            let once = after(json!({"containers": old}), patch.clone());
            prop_assert_eq!(&after(once.clone(), patch.clone()), &once);
            for wanted in patch["containers"].as_array().unwrap() {
                prop_assert!(once["containers"].as_array().unwrap().contains(wanted));
            }
        }

        #[test]
        fn without_lists_it_is_a_merge_patch(
            old in prop::collection::btree_map("[a-c]", prop::option::of(0..3), 0..3),
            patch in prop::collection::btree_map("[a-c]", prop::option::of(0..3), 0..3),
        ) {
            let (old, patch) = (json!({"x": old}), json!({"x": patch}));
            let mut merged = old.clone();
            json_patch::merge(&mut merged, &patch);
            prop_assert_eq!(after(old, patch), merged);
        }
    }
}
