//! Rules on the annotation `gantry.dev/extras`: what a PodSpec cannot say. One that could not be read would count as none.

use gantry_api::{PodExtras, labels};
use gantry_nodeagent_api::read_subnets;
use serde_json::{Map, Value};

use super::path::{at, list, text};
use super::wire::through;
use super::{FieldError, unknown_fields};
use crate::quantity;

type Errors = Vec<FieldError>;

/// A pod's. The number of exclusive CPUs is in the annotation; `resources` may repeat it, and not ask for another.
pub(super) fn pod(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let Some(extras) = read(new, "metadata", errors) else {
        return;
    };
    check(&extras, at(new, "/spec"), "metadata", errors);
    let before = old.map_or(&[][..], |old| list(old, "/spec/containers"));
    for (i, container) in list(new, "/spec/containers").iter().enumerate() {
        let name = text(container, "/name");
        let Some(wish) = extras.exclusive.get(name) else {
            continue;
        };
        let before = before.iter().find(|c| text(c, "/name") == name);
        for which in ["requests", "limits"] {
            let pointer = format!("/resources/{which}/cpu");
            let asked = at(container, &pointer);
            if before.is_some_and(|before| at(before, &pointer) == asked) {
                continue;
            }
            let milli = asked.as_str().and_then(quantity::milli);
            if milli.is_some_and(|milli| Some(milli) != wish.count.checked_mul(1000)) {
                let message = format!(
                    "container {name:?} has {} exclusive CPUs: change `count` in the annotation {}, or the NetworkFunction",
                    wish.count,
                    labels::EXTRAS
                );
                let field = format!("spec.containers[{i}].resources.{which}.cpu");
                errors.push(FieldError::invalid(field, message));
            }
        }
    }
}

/// Those in the template of a Deployment or ReplicaSet.
pub(super) fn template(template: &Value, errors: &mut Errors) {
    let path = "spec.template.metadata";
    if let Some(extras) = read(template, path, errors) {
        check(&extras, at(template, "/spec"), path, errors);
    }
}

fn wrong(path: &str, message: impl Into<String>) -> FieldError {
    FieldError::invalid(format!("{path}.annotations[{}]", labels::EXTRAS), message)
}

fn read(object: &Value, path: &str, errors: &mut Errors) -> Option<PodExtras> {
    let text = at(object, "/metadata/annotations")
        .get(labels::EXTRAS)?
        .as_str()?;
    let read = || {
        let given: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let given = Value::Object(given);
        let known = through::<PodExtras>(&given).map_err(|e| e.to_string())?;
        match unknown_fields(&given, &known).as_slice() {
            [] => serde_json::from_value(known).map_err(|e| e.to_string()),
            unknown => Err(format!("unknown field {}", unknown.join(", "))),
        }
    };
    read().map_err(|why| errors.push(wrong(path, why))).ok()
}

fn check(extras: &PodExtras, spec: &Value, path: &str, errors: &mut Errors) {
    if let Err(why) = read_subnets(&extras.subnets) {
        errors.push(wrong(path, format!("`subnets`: {why}")));
    } else if !extras.subnets.is_empty() && at(spec, "/hostNetwork") == true {
        let why = "`subnets`: a pod on the host's network has none behind it";
        errors.push(wrong(path, why));
    }
    for name in extras.exclusive.keys() {
        let sidecars = list(spec, "/initContainers").iter();
        let sidecars = sidecars.filter(|c| text(c, "/restartPolicy") == "Always");
        if !sidecars
            .chain(list(spec, "/containers"))
            .any(|c| text(c, "/name") == name)
        {
            errors.push(wrong(
                path,
                format!("`exclusive`: the pod has no container {name:?}"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(extras: &str, cpu: &str) -> Value {
        json!({"metadata": {"annotations": {labels::EXTRAS: extras}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}})
    }

    fn fields(new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut errors = Errors::new();
        pod(new, old, &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    const TWO: &str = r#"{"exclusive": {"c": {"count": 2}}}"#;

    #[test]
    fn an_annotation_that_cannot_be_read_is_refused() {
        assert!(fields(&made(TWO, "2"), None).is_empty());
        for bad in [
            "{",
            "[]",
            r#"{"exclusive": {"c": {"count": "2"}}}"#,
            r#"{"exlusive": {"c": {"count": 2}}}"#,
            r#"{"exclusive": {"d": {"count": 2}}}"#,
        ] {
            let found = fields(&made(bad, "2"), None);
            assert_eq!(found, ["metadata.annotations[gantry.dev/extras]"], "{bad}");
        }
    }

    #[test]
    fn subnets_are_networks_of_nobody_else_and_not_behind_the_host() {
        let with = |subnets: &str, host: bool| {
            let mut pod = made(&format!(r#"{{"subnets": [{subnets}]}}"#), "2");
            pod["spec"]["hostNetwork"] = host.into();
            fields(&pod, None)
        };
        let good = r#""10.45.0.0/16", "198.51.100.7/32""#;
        assert!(with(good, false).is_empty() && with("", true).is_empty());
        let refused = ["metadata.annotations[gantry.dev/extras]"];
        assert_eq!(with(good, true), refused);
        for bad in [
            r#""10.45.0.1/16""#,
            r#""10.45.0.0""#,
            r#""0.0.0.0/0""#,
            r#""10.45.0.0/16", "10.45.0.0/16""#,
            "7",
        ] {
            assert_eq!(with(bad, false), refused, "{bad}");
        }
        let many: Vec<String> = (0..17).map(|i| format!(r#""10.45.{i}.0/24""#)).collect();
        assert_eq!(with(&many.join(", "), false), refused);
    }

    #[test]
    fn resources_cannot_ask_for_another_number_of_exclusive_cpus() {
        let cpu = ["spec.containers[0].resources.limits.cpu"];
        let old = made(TWO, "2");
        assert_eq!(fields(&made(TWO, "4"), None), cpu);
        assert_eq!(fields(&made(TWO, "4"), Some(&old)), cpu);
        let four = TWO.replace('2', "4");
        assert!(
            fields(&made(&four, "2"), Some(&old)).is_empty(),
            "the annotation first"
        );
        assert!(fields(&made(&four, "4"), Some(&made(&four, "2"))).is_empty());
    }
}
