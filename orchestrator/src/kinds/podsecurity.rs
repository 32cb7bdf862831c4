//! Rules on `securityContext` and what shares the host's namespaces: what protects is done on the node or refused here.

use std::collections::HashSet;

use gantry_nodeagent_api::MAX_ID;
use serde_json::Value;

use super::FieldError;
use super::path::{at, list, text};

type Errors = Vec<FieldError>;

const TYPES: [&str; 3] = ["RuntimeDefault", "Unconfined", "Localhost"];
/// Parameters that belong to a namespace: Kubernetes' safe ones, and what else a network namespace has of its own.
const SYSCTLS: [&str; 3] = [
    "kernel.shm_rmid_forced",
    "net.core.somaxconn",
    "net.unix.max_dgram_qlen",
];
const SYSCTL_TREES: [&str; 3] = ["net.ipv4.", "net.ipv6.", "net.netfilter."];
/// `capabilities(7)`, and all of them.
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// All rules on the pod spec at `path`.
pub(super) fn check(spec: &Value, path: &str, errors: &mut Errors) {
    host(spec, path, errors);
    let shared = at(spec, "/securityContext");
    let here = format!("{path}.securityContext");
    context(shared, &here, errors);
    id(shared, "fsGroup", &here, errors);
    for (i, group) in list(shared, "/supplementalGroups").iter().enumerate() {
        check_id(group, format!("{here}.supplementalGroups[{i}]"), errors);
    }
    one_of(
        shared,
        "supplementalGroupsPolicy",
        &["Merge", "Strict"],
        &here,
        errors,
    );
    one_of(
        shared,
        "fsGroupChangePolicy",
        &["OnRootMismatch", "Always"],
        &here,
        errors,
    );
    sysctls(spec, &here, errors);
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in list(spec, &format!("/{kind}")).iter().enumerate() {
            let here = format!("{path}.{kind}[{i}]");
            let own = at(container, "/securityContext");
            context(own, &format!("{here}.securityContext"), errors);
            escalation(own, &format!("{here}.securityContext"), errors);
            mounts(container, &here, errors);
        }
    }
}

/// What is the host's stays the host's.
fn host(spec: &Value, path: &str, errors: &mut Errors) {
    for field in ["hostPID", "hostIPC"] {
        if at(spec, &format!("/{field}")) == &Value::Bool(true) {
            let message = "is not supported: every container has a namespace of its own";
            errors.push(forbidden(format!("{path}.{field}"), message));
        }
    }
    let own_ids = at(spec, "/hostUsers") == &Value::Bool(false);
    if own_ids && at(spec, "/hostNetwork") == &Value::Bool(true) {
        let message = "when `hostUsers` is false";
        errors.push(forbidden(format!("{path}.hostNetwork"), message));
    }
}

/// What a pod and a container can both say.
fn context(context: &Value, here: &str, errors: &mut Errors) {
    id(context, "runAsUser", here, errors);
    id(context, "runAsGroup", here, errors);
    profile(context, "seccompProfile", here, errors);
    profile(context, "appArmorProfile", here, errors);
    for field in ["seLinuxOptions", "windowsOptions"] {
        if at(context, &format!("/{field}"))
            .as_object()
            .is_some_and(|fields| !fields.is_empty())
        {
            errors.push(forbidden(
                format!("{here}.{field}"),
                "is not supported on any node",
            ));
        }
    }
}

fn id(context: &Value, field: &str, here: &str, errors: &mut Errors) {
    let value = at(context, &format!("/{field}"));
    if !value.is_null() {
        check_id(value, format!("{here}.{field}"), errors);
    }
}

fn check_id(value: &Value, field: String, errors: &mut Errors) {
    if value.as_u64().is_none_or(|id| id > MAX_ID.into()) {
        let message = format!("Invalid value: {value}: must be between 0 and {MAX_ID}, inclusive");
        errors.push(FieldError::invalid(field, message));
    }
}

fn one_of(context: &Value, field: &str, allowed: &[&str], here: &str, errors: &mut Errors) {
    let value = text(context, &format!("/{field}"));
    if !value.is_empty() && !allowed.contains(&value) {
        let message = format!("{value:?} is not one of {}", allowed.join(", "));
        errors.push(FieldError::invalid(format!("{here}.{field}"), message));
    }
}

fn profile(context: &Value, field: &str, here: &str, errors: &mut Errors) {
    let profile = at(context, &format!("/{field}"));
    if profile.is_null() {
        return;
    }
    let here = format!("{here}.{field}");
    let (kind, path) = (text(profile, "/type"), text(profile, "/localhostProfile"));
    if !TYPES.contains(&kind) {
        let message = format!("{kind:?} is not one of {}", TYPES.join(", "));
        return errors.push(FieldError::invalid(format!("{here}.type"), message));
    }
    let here = format!("{here}.localhostProfile");
    if kind != "Localhost" {
        if !path.is_empty() {
            errors.push(FieldError::invalid(
                here,
                "can only be set when the type is Localhost",
            ));
        }
    } else if path.is_empty() {
        errors.push(FieldError {
            field: here,
            message: "must be set when the type is Localhost".to_owned(),
            reason: "FieldValueRequired",
        });
    } else if field == "seccompProfile" && (path.starts_with('/') || path.split('/').any(|part| part == ".."))
    {
        errors.push(FieldError::invalid(here, "must be a relative path without `..`"));
    }
}

fn escalation(own: &Value, here: &str, errors: &mut Errors) {
    let added = list(own, "/capabilities/add");
    for (which, names) in [("add", added), ("drop", list(own, "/capabilities/drop"))] {
        for (i, name) in names.iter().enumerate() {
            if !CAPABILITIES.contains(&bare(name)) {
                let message =
                    format!("{name} is no capability: write it as in capabilities(7), for example NET_ADMIN");
                errors.push(FieldError::invalid(
                    format!("{here}.capabilities.{which}[{i}]"),
                    message,
                ));
            }
        }
    }
    if !["", "Default"].contains(&text(own, "/procMount")) {
        let message = "only Default is supported: what /proc hides stays hidden";
        errors.push(FieldError::invalid(format!("{here}.procMount"), message));
    }
    if at(own, "/allowPrivilegeEscalation") != &Value::Bool(false) {
        return;
    }
    let here = format!("{here}.allowPrivilegeEscalation");
    if at(own, "/privileged") == &Value::Bool(true) {
        let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(&here, message));
    }
    if added.iter().any(|name| bare(name) == "SYS_ADMIN") {
        let message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(FieldError::invalid(&here, message));
    }
}

fn bare(name: &Value) -> &str {
    let name = name.as_str().unwrap_or_default();
    name.strip_prefix("CAP_").unwrap_or(name)
}

fn sysctls(spec: &Value, here: &str, errors: &mut Errors) {
    let host_network = at(spec, "/hostNetwork") == &Value::Bool(true);
    let mut names = HashSet::new();
    for (i, sysctl) in list(spec, "/securityContext/sysctls").iter().enumerate() {
        let name = text(sysctl, "/name").replace('/', ".");
        let field = format!("{here}.sysctls[{i}].name");
        let known =
            SYSCTLS.contains(&name.as_str()) || SYSCTL_TREES.iter().any(|tree| name.starts_with(tree));
        if !known || name.contains("..") {
            let message =
                format!("{name:?} belongs to no namespace of the pod: only such of `net.*` can be set");
            errors.push(forbidden(field, &message));
        } else if host_network && name.starts_with("net.") {
            errors.push(FieldError::invalid(
                field,
                "may not be specified when 'hostNetwork' is true",
            ));
        } else if names.contains(&name) {
            errors.push(FieldError::duplicate(field, at(sysctl, "/name")));
        }
        names.insert(name);
    }
}

/// What is masked there must not be covered.
fn mounts(container: &Value, here: &str, errors: &mut Errors) {
    if at(container, "/securityContext/privileged") == &Value::Bool(true) {
        return;
    }
    for (j, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let path = std::path::Path::new(text(mount, "/mountPath"));
        if gantry_nodeagent_api::is_system_path(path) {
            let message = "would cover what /proc and /sys hide: mount it elsewhere";
            errors.push(forbidden(format!("{here}.volumeMounts[{j}].mountPath"), message));
        }
    }
}

fn forbidden(field: String, message: &str) -> FieldError {
    FieldError {
        field,
        message: message.to_owned(),
        reason: "FieldValueForbidden",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(spec: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(&spec, "spec", &mut errors);
        errors
            .into_iter()
            .map(|e| e.field.strip_prefix("spec.").unwrap().to_owned())
            .collect()
    }

    fn container(own: Value) -> Value {
        json!({"containers": [{"name": "c", "securityContext": own}]})
    }

    #[test]
    fn what_restricted_asks_for_is_taken() {
        let own = json!({"runAsUser": 1000, "runAsGroup": 0, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CAP_CHOWN"]}, "procMount": "Default",
            "seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "RuntimeDefault"}});
        assert!(refused(container(own)).is_empty());
        let pod = json!({"containers": [], "hostPID": false, "hostUsers": true, "securityContext": {"fsGroup": 1,
            "supplementalGroups": [0, MAX_ID], "fsGroupChangePolicy": "Always", "supplementalGroupsPolicy": "Merge",
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"},
            "sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}, {"name": "net/core/somaxconn", "value": "1"}]}});
        assert!(refused(pod).is_empty());
        assert!(refused(json!({"containers": [], "hostUsers": false, "hostNetwork": false})).is_empty());
    }

    #[test]
    fn ids_that_would_become_root_are_refused() {
        for id in [
            json!(-1),
            json!(4_294_967_296_i64),
            json!(2_147_483_648_i64),
            json!("root"),
        ] {
            assert_eq!(
                refused(container(json!({"runAsUser": id}))),
                ["containers[0].securityContext.runAsUser"]
            );
            let pod =
                json!({"securityContext": {"runAsGroup": id, "fsGroup": id, "supplementalGroups": [id]}});
            assert_eq!(refused(pod).len(), 3, "{id}");
        }
    }

    #[test]
    fn what_would_not_protect_is_refused() {
        for (own, field) in [
            (json!({"seccompProfile": {}}), "seccompProfile.type"),
            (
                json!({"seccompProfile": {"type": "Localhost"}}),
                "seccompProfile.localhostProfile",
            ),
            (
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
                "seccompProfile.localhostProfile",
            ),
            (
                json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}}),
                "seccompProfile.localhostProfile",
            ),
            (
                json!({"appArmorProfile": {"type": "none"}}),
                "appArmorProfile.type",
            ),
            (json!({"seLinuxOptions": {"level": "s0"}}), "seLinuxOptions"),
            (json!({"procMount": "Unmasked"}), "procMount"),
            (json!({"capabilities": {"add": ["FLY"]}}), "capabilities.add[0]"),
            (
                json!({"allowPrivilegeEscalation": false, "privileged": true}),
                "allowPrivilegeEscalation",
            ),
            (
                json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["CAP_SYS_ADMIN"]}}),
                "allowPrivilegeEscalation",
            ),
        ] {
            assert_eq!(
                refused(container(own)),
                [format!("containers[0].securityContext.{field}")]
            );
        }
        for (pod, field) in [
            (json!({"hostPID": true}), "hostPID"),
            (json!({"hostIPC": true}), "hostIPC"),
            (json!({"hostUsers": false, "hostPID": true}), "hostPID"),
            (json!({"hostUsers": false, "hostIPC": true}), "hostIPC"),
            (json!({"hostUsers": false, "hostNetwork": true}), "hostNetwork"),
        ] {
            assert_eq!(refused(pod), [field]);
        }
    }

    #[test]
    fn only_parameters_of_the_pods_own_namespaces_are_taken() {
        let one = |name: &str, host: bool| {
            refused(
                json!({"hostNetwork": host, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}),
            )
        };
        for name in [
            "kernel.panic",
            "vm.swappiness",
            "net.core.rmem_max",
            "fs.file-max",
            "net.ipv4...",
            "net",
        ] {
            assert_eq!(one(name, false), ["securityContext.sysctls[0].name"], "{name}");
        }
        assert_eq!(
            one("net.ipv4.ip_forward", true),
            ["securityContext.sysctls[0].name"]
        );
    }

    #[test]
    fn a_parameter_has_one_value() {
        let sysctl = |name: &str, value: &str| json!({"name": name, "value": value});
        let twice = [
            sysctl("net.ipv4.tcp_rmem", "1"),
            sysctl("net.ipv4.tcp_wmem", "1"),
            sysctl("net/ipv4/tcp_rmem", "2"),
        ];
        let spec = json!({"securityContext": {"sysctls": twice}});
        let mut errors = Errors::new();
        check(&spec, "spec", &mut errors);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "spec.securityContext.sysctls[2].name");
        assert_eq!(errors[0].message, "Duplicate value: \"net/ipv4/tcp_rmem\"");
    }

    #[test]
    fn mounts_do_not_cover_proc_and_sys() {
        let mount = |path: &str, privileged: bool| {
            refused(
                json!({"containers": [{"name": "c", "securityContext": {"privileged": privileged},
                "volumeMounts": [{"name": "v", "mountPath": path}]}]}),
            )
        };
        for path in ["/proc", "/proc/sys", "/sys/firmware", "//proc//sysrq-trigger"] {
            assert_eq!(
                mount(path, false),
                ["containers[0].volumeMounts[0].mountPath"],
                "{path}"
            );
            assert!(mount(path, true).is_empty());
        }
        assert!(mount("/process", false).is_empty());
    }
}
