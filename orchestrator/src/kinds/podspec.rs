//! Rules on a PodSpec, in a pod or in a template.

use std::collections::HashSet;

use serde_json::Value;

use super::names::{self, is_dns_label};
use super::path::{at, list, text};
use super::{
    DEFAULT_GRACE_S, FieldError, grace_seconds, podenv, podnames, podports, podprobes, podsecurity,
    podvolumes,
};
use crate::quantity;

type Errors = Vec<FieldError>;

/// Containers of a pod, of all roles: each is a tree of processes, and a row in all that is told of the pod.
const MAX_CONTAINERS: usize = 64;
/// Volumes of a pod, and mounts of all its containers: each may be a mount of the node, whose kernel takes 100,000
/// (`fs.mount-max`) and goes through all of them now and then.
const MAX_VOLUMES: usize = 128;
const MAX_MOUNTS: usize = 256;

/// All rules on the spec at `path`.
pub(super) fn spec(spec: &Value, path: &str, errors: &mut Errors) {
    podsecurity::check(spec, path, errors);
    let containers = list(spec, "/containers");
    if containers.is_empty() {
        errors.push(FieldError {
            field: format!("{path}.containers"),
            message: "at least one container is needed".to_owned(),
            reason: "FieldValueRequired",
        });
    }
    amounts(spec, path, errors);
    let mut names = HashSet::new();
    for kind in ["initContainers", "containers"] {
        for (i, from) in list(spec, &format!("/{kind}")).iter().enumerate() {
            let here = format!("{path}.{kind}[{i}]");
            let name = text(from, "/name");
            if !names.insert(name) {
                errors.push(FieldError::invalid(
                    format!("{here}.name"),
                    format!("{name:?} is there twice"),
                ));
            }
            container(from, spec, &here, errors);
            role(from, kind, &here, errors);
        }
    }
    policies(spec, path, errors);
    podvolumes::check(spec, path, errors);
    podnames::check(spec, path, errors);
}

/// Of how many parts a pod may be.
fn amounts(spec: &Value, path: &str, errors: &mut Errors) {
    let containers = || {
        list(spec, "/containers")
            .iter()
            .chain(list(spec, "/initContainers"))
    };
    let mounts = containers().map(|c| list(c, "/volumeMounts").len()).sum();
    let volumes = list(spec, "/volumes").len();
    for (field, what, count, most) in [
        (
            "containers",
            "containers of all kinds",
            containers().count(),
            MAX_CONTAINERS,
        ),
        ("volumes", "volumes", volumes, MAX_VOLUMES),
        ("containers", "mounts of all containers", mounts, MAX_MOUNTS),
    ] {
        if count > most {
            errors.push(FieldError {
                field: format!("{path}.{field}"),
                message: format!("{count} {what}: a pod may have {most}"),
                reason: "FieldValueTooMany",
            });
        }
    }
}

fn container(container: &Value, spec: &Value, here: &str, errors: &mut Errors) {
    let name = text(container, "/name");
    if !is_dns_label(name) {
        errors.push(FieldError::invalid(
            format!("{here}.name"),
            names::label_problem(name),
        ));
    }
    if text(container, "/image").is_empty() {
        errors.push(FieldError::invalid(format!("{here}.image"), "an image is needed"));
    }
    podvolumes::mounts(container, spec, here, errors);
    resources(container, here, errors);
    request_within_limit(container, here, errors);
    podenv::check(container, here, errors);
    podports::check(container, here, errors);
    pull_policy(container, here, errors);
    termination_message(container, here, errors);
    for field in ["readinessProbe", "livenessProbe", "startupProbe"] {
        podprobes::probe(container, field, here, errors);
    }
    let grace = at(spec, "/terminationGracePeriodSeconds").as_i64();
    let grace_s = grace.map_or(DEFAULT_GRACE_S, grace_seconds);
    for field in ["postStart", "preStop"] {
        podprobes::hook(
            at(container, &format!("/lifecycle/{field}")),
            container,
            grace_s,
            &format!("{here}.lifecycle.{field}"),
            errors,
        );
    }
}

fn pull_policy(container: &Value, here: &str, errors: &mut Errors) {
    let policy = text(container, "/imagePullPolicy");
    if !["", "Always", "IfNotPresent", "Never"].contains(&policy) {
        let message = format!("{policy:?} is not one of Always, IfNotPresent, Never");
        errors.push(FieldError::invalid(format!("{here}.imagePullPolicy"), message));
    }
}

/// Where a container's last words are: a place that it can write to.
fn termination_message(container: &Value, here: &str, errors: &mut Errors) {
    let policy = text(container, "/terminationMessagePolicy");
    if !["", "File", "FallbackToLogsOnError"].contains(&policy) {
        let message = format!("{policy:?} is not one of File, FallbackToLogsOnError");
        errors.push(FieldError::invalid(
            format!("{here}.terminationMessagePolicy"),
            message,
        ));
    }
    let path = text(container, "/terminationMessagePath");
    let hidden = ["/proc", "/sys"].into_iter().any(|system| {
        let rest = path.strip_prefix(system);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let clean = path.starts_with('/')
        && path
            .split('/')
            .skip(1)
            .all(|part| !["", ".", ".."].contains(&part));
    if !path.is_empty() && (hidden || !clean) {
        let message = format!("{path:?} is no absolute path of a file outside /proc and /sys");
        errors.push(FieldError::invalid(
            format!("{here}.terminationMessagePath"),
            message,
        ));
    }
}

/// `restartPolicy: Always` makes an init container a sidecar; one that is none has no time to be probed in.
fn role(container: &Value, kind: &str, here: &str, errors: &mut Errors) {
    let policy = text(container, "/restartPolicy");
    if kind == "containers" && !policy.is_empty() {
        let message = "only an init container can have one: set the pod's";
        errors.push(FieldError::invalid(format!("{here}.restartPolicy"), message));
    } else if !["", "Always"].contains(&policy) {
        let message = format!("{policy:?} is not Always, which makes it a sidecar");
        errors.push(FieldError::invalid(format!("{here}.restartPolicy"), message));
    }
    if kind != "initContainers" || policy == "Always" {
        return;
    }
    for field in ["readinessProbe", "livenessProbe", "startupProbe", "lifecycle"] {
        if !at(container, &format!("/{field}")).is_null() {
            let message = "must not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::invalid(format!("{here}.{field}"), message));
        }
    }
}

/// When a pod starts again, and when it has to have ended.
fn policies(spec: &Value, path: &str, errors: &mut Errors) {
    let policy = text(spec, "/restartPolicy");
    if !["", "Always", "OnFailure", "Never"].contains(&policy) {
        let message = format!("{policy:?} is not one of Always, OnFailure, Never");
        errors.push(FieldError::invalid(format!("{path}.restartPolicy"), message));
    }
    let deadline = at(spec, "/activeDeadlineSeconds");
    if deadline
        .as_i64()
        .is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds))
    {
        let message = format!("{deadline} is not a number of seconds from 1 to {}", i32::MAX);
        errors.push(FieldError::invalid(
            format!("{path}.activeDeadlineSeconds"),
            message,
        ));
    }
}

fn not_a_quantity(field: String, quantity: &Value) -> FieldError {
    let message = format!("{quantity} is not a quantity that can be had: write for example 500m, 2, 128Mi");
    FieldError::invalid(field, message)
}

/// What the core reads must be readable, or a pod would run without the limit; a device that nobody gives is not asked for.
fn resources(container: &Value, here: &str, errors: &mut Errors) {
    for which in ["requests", "limits"] {
        let quantities = at(container, &format!("/resources/{which}")).as_object();
        for (resource, quantity) in quantities.into_iter().flatten() {
            let field = format!("{here}.resources.{which}.{resource}");
            let text = quantity.as_str().unwrap_or_default();
            let readable = if resource == "cpu" {
                quantity::milli(text).is_some()
            } else {
                quantity::units(text).is_some()
            };
            if !readable {
                errors.push(not_a_quantity(field, quantity));
            } else if resource.contains('/') {
                let message = "extended resources are not supported: no node has any to give";
                errors.push(FieldError::invalid(field, message));
            } else if let Some(size) = resource.strip_prefix("hugepages-")
                && quantity::units(size).is_none_or(|size| !size.is_power_of_two())
            {
                let message = format!("{size:?} is not a page size: write for example hugepages-2Mi");
                errors.push(FieldError::invalid(field, message));
            }
        }
    }
}

/// A request above its limit can never be had.
fn request_within_limit(container: &Value, here: &str, errors: &mut Errors) {
    let limits = at(container, "/resources/limits").as_object();
    for (resource, limit) in limits.into_iter().flatten() {
        let request = at(container, "/resources/requests").get(resource);
        let amount = |quantity: &Value| match resource.as_str() {
            "cpu" => quantity::milli(quantity.as_str()?).map(u64::from),
            _ => quantity::units(quantity.as_str()?),
        };
        if let (Some(asked), Some(most)) = (request.and_then(amount), amount(limit))
            && asked > most
        {
            let text = |quantity: &Value| quantity.as_str().unwrap_or_default().to_owned();
            let message = format!(
                "{:?}: must be less than or equal to {resource} limit of {}",
                request.map(text).unwrap_or_default(),
                text(limit)
            );
            errors.push(FieldError::invalid(format!("{here}.resources.requests"), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Fields that are refused in a container with these fields.
    fn refused(fields: Value) -> Vec<String> {
        let mut container =
            json!({"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": 80}]});
        let all = container.as_object_mut().unwrap();
        all.extend(fields.as_object().unwrap().clone());
        let mut errors = Errors::new();
        spec(&json!({"containers": [container]}), "spec", &mut errors);
        let prefix = "spec.containers[0].";
        errors
            .into_iter()
            .map(|e| e.field.strip_prefix(prefix).unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_pod_of_thousands_of_parts_is_refused() {
        let container = |i: usize| json!({"name": format!("c{i}"), "image": "i"});
        let volume = |i: usize| json!({"name": format!("v{i}"), "emptyDir": {}});
        let wrong = |containers: usize, init: usize, volumes: usize| {
            let all = |count: usize, of: &dyn Fn(usize) -> Value| (0..count).map(of).collect::<Vec<_>>();
            let init = (0..init).map(|i| container(1000 + i)).collect::<Vec<_>>();
            let pod = json!({"containers": all(containers, &container), "initContainers": init, "volumes": all(volumes, &volume)});
            let mut errors = Errors::new();
            spec(&pod, "spec", &mut errors);
            errors
                .into_iter()
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect::<Vec<_>>()
        };
        assert!(wrong(32, 32, 128).is_empty());
        let many = "spec.containers: 65 containers of all kinds: a pod may have 64";
        assert_eq!(wrong(33, 32, 0), [many]);
        assert_eq!(
            wrong(1, 0, 129),
            ["spec.volumes: 129 volumes: a pod may have 128"]
        );
        let mount = |i: usize| json!({"name": "v", "mountPath": format!("/{i}")});
        let mounts: Vec<Value> = (0..257).map(mount).collect();
        let pod = json!({"containers": [{"name": "c", "image": "i", "volumeMounts": mounts}],
            "volumes": [{"name": "v", "emptyDir": {}}]});
        let mut errors = Errors::new();
        spec(&pod, "spec", &mut errors);
        assert_eq!(
            errors[0].message,
            "257 mounts of all containers: a pod may have 256"
        );
    }

    #[test]
    fn a_limit_that_would_not_be_one_is_refused() {
        for good in ["1.5Gi", "1e9", "1Pi", "128974848000m", "5"] {
            let fields = json!({"resources": {"limits": {"memory": good, "cpu": "1500u"}}});
            assert!(refused(fields).is_empty(), "{good}");
        }
        for bad in ["16Ei", "-1", "1gi", "inf", ""] {
            let fields = json!({"resources": {"limits": {"memory": bad}}});
            assert_eq!(refused(fields), ["resources.limits.memory"], "{bad}");
        }
        for resource in ["nvidia.com/gpu", "hugepages-2x", "hugepages-3Mi"] {
            let fields = json!({"resources": {"requests": {resource: "1"}}});
            assert_eq!(refused(fields), [format!("resources.requests.{resource}")]);
        }
    }

    #[test]
    fn last_words_are_somewhere_that_can_be_written() {
        let with = |path: &str, policy: &str| {
            refused(json!({"terminationMessagePath": path, "terminationMessagePolicy": policy}))
        };
        assert!(with("/dev/termination-log", "FallbackToLogsOnError").is_empty());
        assert!(with("/tmp/log", "File").is_empty() && with("", "").is_empty());
        for bad in ["log", "/", "/a/../b", "/proc/1/x", "/sys"] {
            assert_eq!(with(bad, ""), ["terminationMessagePath"], "{bad}");
        }
        assert_eq!(with("", "Never"), ["terminationMessagePolicy"]);
    }

    #[test]
    fn roles_are_as_in_kubernetes() {
        let refused = |init: Value, main: Value| -> Vec<String> {
            let mut errors = Errors::new();
            spec(
                &json!({"initContainers": [init], "containers": [main]}),
                "spec",
                &mut errors,
            );
            errors.into_iter().map(|e| e.field).collect()
        };
        let main = json!({"name": "c", "image": "i"});
        let probe = json!({"exec": {"command": ["true"]}});
        let with = |more: Value| {
            let mut init = json!({"name": "s", "image": "i", "startupProbe": probe});
            init.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            init
        };
        assert!(refused(with(json!({"restartPolicy": "Always"})), main.clone()).is_empty());
        assert_eq!(
            refused(with(json!({})), main.clone()),
            ["spec.initContainers[0].startupProbe"]
        );
        let never = with(json!({"restartPolicy": "Never", "startupProbe": null}));
        assert_eq!(
            refused(never, main.clone()),
            ["spec.initContainers[0].restartPolicy"]
        );
        let same = with(json!({"restartPolicy": "Always", "name": "c"}));
        assert_eq!(refused(same, main), ["spec.containers[0].name"]);
    }
}
