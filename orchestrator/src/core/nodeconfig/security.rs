//! What pods and containers may do, from Kubernetes' words to the node's.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{MAX_ID, PodSecurity, Seccomp, Security};
use k8s_openapi::api::core::v1 as k8s;

/// What root of a container has when nothing is said, as containerd and Docker give it.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const ALL: &str = "ALL";

/// A user or group. What is none is refused, for without it a container would be somebody else: root, where its image says so.
fn id(value: i64) -> Result<u32, String> {
    let id = u32::try_from(value).ok().filter(|id| *id <= MAX_ID);
    id.ok_or_else(|| format!("{value} is no user or group: ids are 0 to {MAX_ID}"))
}

/// Of the pod as a whole; in words what cannot be done.
pub(super) fn pod(spec: &k8s::PodSpec) -> Result<PodSecurity, String> {
    let own_ids = spec.host_users == Some(false);
    let Some(context) = &spec.security_context else {
        return Ok(PodSecurity {
            own_ids,
            ..PodSecurity::default()
        });
    };
    let mut sysctls = BTreeMap::new();
    for sysctl in context.sysctls.iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        if sysctls.insert(name, sysctl.value.clone()).is_some() {
            return Err(format!("sysctl {:?} is there twice", sysctl.name));
        }
    }
    let groups = context.supplemental_groups.iter().flatten();
    Ok(PodSecurity {
        supplemental_groups: groups.map(|group| id(*group)).collect::<Result<_, _>>()?,
        strict_groups: context.supplemental_groups_policy.as_deref() == Some("Strict"),
        fs_group: context.fs_group.map(id).transpose()?,
        sysctls,
        own_ids,
    })
}

/// Of one container: what it says itself, else what its pod says; in words what cannot be done.
pub(super) fn container(spec: &k8s::PodSpec, container: &k8s::Container) -> Result<Security, String> {
    let own = container.security_context.clone().unwrap_or_default();
    let shared = spec.security_context.clone().unwrap_or_default();
    let either = |own: Option<i64>, shared: Option<i64>| own.or(shared).map(id).transpose();
    let (capabilities, root_capabilities) = capabilities(own.capabilities.as_ref());
    Ok(Security {
        user: either(own.run_as_user, shared.run_as_user)?,
        group: either(own.run_as_group, shared.run_as_group)?,
        capabilities,
        root_capabilities,
        privileged: own.privileged.unwrap_or(false),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        allow_privilege_escalation: own.allow_privilege_escalation.unwrap_or(true),
        run_as_non_root: own.run_as_non_root.or(shared.run_as_non_root).unwrap_or(false),
        seccomp: seccomp(own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref())),
        apparmor_profile: apparmor(
            own.app_armor_profile
                .as_ref()
                .or(shared.app_armor_profile.as_ref()),
        ),
    })
}

/// Those of every process, and those that root has besides: of the default ones what is not dropped. What is added goes to processes
/// of every user, for a program that needs one is better not root.
fn capabilities(asked: Option<&k8s::Capabilities>) -> (Vec<String>, Vec<String>) {
    let bare = |name: &String| name.strip_prefix("CAP_").unwrap_or(name).to_owned();
    let list = |list: Option<&Vec<String>>| list.into_iter().flatten().map(bare).collect::<Vec<_>>();
    let added = list(asked.and_then(|c| c.add.as_ref()));
    let dropped = list(asked.and_then(|c| c.drop.as_ref()));
    let drops = |name: &str| dropped.iter().any(|d| d == name || d == ALL);
    let rest = DEFAULT_CAPABILITIES.iter().filter(|name| !drops(name));
    (added, rest.map(|name| (*name).to_owned()).collect())
}

/// Without a word those calls that programs usually need.
fn seccomp(profile: Option<&k8s::SeccompProfile>) -> Seccomp {
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.clone())) {
        Some(("Unconfined", _)) => Seccomp::Unconfined,
        Some(("Localhost", Some(path))) => Seccomp::Localhost(path),
        _ => Seccomp::RuntimeDefault,
    }
}

/// There is no profile of Gantry's own: the default is that of the agent.
fn apparmor(profile: Option<&k8s::AppArmorProfile>) -> Option<String> {
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.clone())) {
        Some(("Localhost", profile)) => profile,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn translated(pod: serde_json::Value, own: serde_json::Value) -> Security {
        let spec = json!({"containers": [{"name": "c", "securityContext": own}], "securityContext": pod});
        let spec: k8s::PodSpec = serde_json::from_value(spec).unwrap();
        container(&spec, &spec.containers[0]).unwrap()
    }

    #[test]
    fn the_container_speaks_before_the_pod() {
        let pod = json!({"runAsUser": 5, "runAsGroup": 6, "runAsNonRoot": true, "seccompProfile": {"type": "Unconfined"}});
        let found = translated(
            pod.clone(),
            json!({"runAsUser": 7, "seccompProfile": {"type": "RuntimeDefault"}}),
        );
        assert_eq!((found.user, found.group), (Some(7), Some(6)));
        assert!(found.run_as_non_root);
        assert_eq!(found.seccomp, Seccomp::RuntimeDefault);
        assert_eq!(translated(pod, json!({})).seccomp, Seccomp::Unconfined);
    }

    #[test]
    fn capabilities_are_the_default_ones_without_the_dropped_and_the_added() {
        let of = |capabilities| translated(json!({}), json!({"capabilities": capabilities}));
        assert_eq!(of(json!({})).root_capabilities.len(), DEFAULT_CAPABILITIES.len());
        let restricted = of(json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}));
        assert_eq!(restricted.capabilities, ["NET_BIND_SERVICE"]);
        assert!(restricted.root_capabilities.is_empty());
        let less = of(json!({"drop": ["CAP_CHOWN", "NET_RAW"]}));
        assert_eq!(less.root_capabilities.len(), DEFAULT_CAPABILITIES.len() - 2);
    }

    #[test]
    fn escalation_is_allowed_unless_forbidden() {
        assert!(translated(json!({}), json!({})).allow_privilege_escalation);
        let forbidden = translated(json!({}), json!({"allowPrivilegeEscalation": false}));
        assert!(!forbidden.allow_privilege_escalation);
    }

    #[test]
    fn groups_and_parameters_of_the_pod() {
        let spec = json!({"containers": [], "securityContext": {"fsGroup": 2000, "supplementalGroups": [3000],
            "supplementalGroupsPolicy": "Strict", "sysctls": [{"name": "net/ipv4/ip_forward", "value": "1"}]}});
        let found = pod(&serde_json::from_value(spec).unwrap()).unwrap();
        assert_eq!(
            (found.fs_group, found.supplemental_groups.as_slice()),
            (Some(2000), &[3000][..])
        );
        assert!(found.strict_groups);
        assert_eq!(found.sysctls["net.ipv4.ip_forward"], "1");
    }

    #[test]
    fn an_id_that_is_none_is_not_left_out() {
        for id in [-1, 2_147_483_648, 4_294_967_295, 4_294_967_296_i64] {
            for field in ["runAsUser", "runAsGroup"] {
                let spec = json!({"containers": [{"name": "c"}], "securityContext": {field: id}});
                let spec: k8s::PodSpec = serde_json::from_value(spec).unwrap();
                let refused = container(&spec, &spec.containers[0]).unwrap_err();
                assert!(refused.contains("is no user or group"), "{refused}");
            }
            for context in [json!({"fsGroup": id}), json!({"supplementalGroups": [1, id]})] {
                let spec = json!({"containers": [], "securityContext": context});
                pod(&serde_json::from_value(spec).unwrap()).unwrap_err();
            }
        }
        let twice = json!([{"name": "net.ipv4.ip_forward", "value": "1"}, {"name": "net/ipv4/ip_forward", "value": "0"}]);
        let spec = json!({"containers": [], "securityContext": {"sysctls": twice}});
        let refused = pod(&serde_json::from_value(spec).unwrap()).unwrap_err();
        assert!(refused.contains("is there twice"), "{refused}");
    }

    #[test]
    fn ids_are_the_hosts_unless_the_pod_wants_its_own() {
        let own = |spec| pod(&serde_json::from_value(spec).unwrap()).unwrap().own_ids;
        assert!(own(json!({"containers": [], "hostUsers": false})));
        assert!(own(
            json!({"containers": [], "hostUsers": false, "securityContext": {"fsGroup": 7}})
        ));
        assert!(!own(json!({"containers": [], "hostUsers": true})));
        assert!(!own(json!({"containers": []})));
    }
}
