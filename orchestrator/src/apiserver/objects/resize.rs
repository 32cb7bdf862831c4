//! What a resize may change of a pod, by Kubernetes' rules. One of its rules is not ours: a limit or request may be taken away
//! again, because the kernel and the planner can do so as well.
//!
//! Source: k8s.io/kubernetes/pkg/apis/core/validation, `ValidatePodResize`.

use serde_json::Value;

use super::super::error::ApiError;
use super::meta;
use super::prepare::reject;
use crate::kinds::{FieldError, Kind, at, qos_class};

/// The old pod with the new sizes.
pub(super) fn apply(kind: &Kind, mut new: Value, old: &Value) -> Result<Value, ApiError> {
    let mut known = old.clone();
    (kind.default)(&mut new);
    (kind.default)(&mut known);
    let mut errors = Vec::new();
    if strip(&new) != strip(&known) {
        let message = "only cpu and memory resources are mutable";
        errors.push(forbidden("spec", message));
        return reject(kind, old, &errors).map(|()| new);
    }
    let phase = at(old, "/status/phase").as_str().unwrap_or_default();
    if ["Succeeded", "Failed"].contains(&phase) {
        errors.push(forbidden("spec", "the pod has ended, and has no size any more"));
    } else if meta::is_going(old) {
        let message = "the pod is being deleted: its node only waits for its end";
        errors.push(forbidden("spec", message));
    }
    let mut merged = old.clone();
    for list in ["initContainers", "containers"] {
        let pointer = format!("/spec/{list}");
        let wanted = at(&new, &pointer).as_array();
        let containers = merged.pointer_mut(&pointer).and_then(Value::as_array_mut);
        let pairs = containers.into_iter().flatten().zip(wanted.into_iter().flatten());
        for (i, (container, wanted)) in pairs.enumerate().filter(|(_, (c, _))| may_change(list, c)) {
            if fixed(container) != fixed(wanted) {
                let field = format!("spec.{list}[{i}].resources");
                errors.push(forbidden(&field, "only cpu and memory resources are mutable"));
            }
            match wanted.get("resources") {
                Some(resources) => container["resources"] = resources.clone(),
                None => container["resources"] = Value::Object(Default::default()),
            }
        }
    }
    if qos_class(&merged) != qos_class(old) {
        let class = qos_class(&merged);
        let message = format!("{class:?}: Pod QOS Class may not change as a result of resizing");
        errors.push(FieldError::invalid("spec", message));
    }
    reject(kind, old, &errors).map(|()| merged)
}

fn forbidden(field: &str, message: &str) -> FieldError {
    FieldError {
        field: field.to_owned(),
        message: message.to_owned(),
        reason: "FieldValueForbidden",
    }
}

/// An init container that is no sidecar is over soon: it keeps the size that it was started with.
fn may_change(list: &str, container: &Value) -> bool {
    list == "containers" || container["restartPolicy"] == "Always"
}

/// The spec without its containers' sizes.
fn strip(pod: &Value) -> Value {
    let mut spec = at(pod, "/spec").clone();
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|c| may_change(list, c)) {
            if let Some(fields) = container.as_object_mut() {
                fields.remove("resources");
            }
        }
    }
    spec
}

/// The part of a container's sizes that is not CPU or memory.
fn fixed(container: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for which in ["requests", "limits"] {
        let quantities = at(container, &format!("/resources/{which}")).as_object();
        let others = quantities
            .into_iter()
            .flatten()
            .filter(|(name, _)| !["cpu", "memory"].contains(&name.as_str()));
        all.extend(others.map(|(name, amount)| (which.to_owned(), name.clone(), amount.clone())));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::named;

    fn pod(resources: Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]},
        });
        (named("Pod").unwrap().default)(&mut pod);
        pod
    }

    fn resized(from: Value, to: Value) -> Result<Value, String> {
        let merged = apply(named("Pod").unwrap(), pod(to), &pod(from));
        merged
            .map(|pod| at(&pod, "/spec/containers/0/resources").clone())
            .map_err(|e| {
                assert_eq!(e.code.as_u16(), 422);
                e.message
            })
    }

    #[test]
    fn cpu_and_memory_change_within_a_quality_of_service() {
        let from = json!({"requests": {"cpu": "10m"}, "limits": {"memory": "32Mi"}});
        let to = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "100m", "memory": "32Mi"}});
        let merged = resized(from.clone(), to.clone()).unwrap();
        assert_eq!(merged["limits"], json!({"cpu": "100m", "memory": "32Mi"}));
        assert_eq!(merged["requests"], json!({"cpu": "10m", "memory": "32Mi"}));
        resized(to, from).unwrap();
        let all = |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "32Mi"}});
        resized(all("1"), all("2000m")).unwrap();
    }

    #[test]
    fn a_sidecar_changes_and_an_init_container_does_not() {
        let with = |policy: Value, cpu: &str| {
            let mut pod = pod(json!({"requests": {"cpu": "1"}}));
            let resources = json!({"requests": {"cpu": cpu}});
            pod["spec"]["initContainers"] =
                json!([{"name": "i", "image": "i", "restartPolicy": policy, "resources": resources}]);
            (named("Pod").unwrap().default)(&mut pod);
            pod
        };
        let resized = |policy: &Value| {
            let (new, old) = (with(policy.clone(), "20m"), with(policy.clone(), "10m"));
            apply(named("Pod").unwrap(), new, &old)
        };
        let merged = resized(&json!("Always")).unwrap();
        let sizes = at(&merged, "/spec/initContainers/0/resources");
        assert_eq!(sizes["requests"]["cpu"], "20m");
        let error = resized(&Value::Null).unwrap_err();
        assert!(error.message.contains("only cpu and memory"), "{error}");
    }

    #[test]
    fn what_can_never_be_is_refused() {
        let none = json!({});
        let requests = json!({"requests": {"cpu": "1"}});
        let limits = json!({"limits": {"cpu": "1", "memory": "32Mi"}});
        let half =
            json!({"requests": {"cpu": "500m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "32Mi"}});
        for (from, to) in [
            (&none, &requests),
            (&requests, &none),
            (&limits, &half),
            (&half, &limits),
        ] {
            let error = resized(from.clone(), to.clone()).unwrap_err();
            assert!(error.contains("Pod QOS Class may not change"), "{error}");
        }
        let pages = json!({"requests": {"cpu": "1"}, "limits": {"hugepages-2Mi": "2Mi"}});
        let error = resized(requests.clone(), pages).unwrap_err();
        assert!(error.contains("only cpu and memory"), "{error}");
        let mut other = pod(requests.clone());
        other["spec"]["containers"][0]["image"] = json!("j");
        let error = apply(named("Pod").unwrap(), other, &pod(requests.clone())).unwrap_err();
        assert!(error.message.contains("only cpu and memory"), "{error}");
        let mut ended = pod(requests.clone());
        ended["status"]["phase"] = json!("Succeeded");
        let error = apply(named("Pod").unwrap(), pod(requests.clone()), &ended).unwrap_err();
        assert!(error.message.contains("has ended"), "{error}");
        let mut going = pod(requests.clone());
        going["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        let error = apply(named("Pod").unwrap(), pod(requests), &going).unwrap_err();
        assert!(error.message.contains("is being deleted"), "{error}");
    }
}
