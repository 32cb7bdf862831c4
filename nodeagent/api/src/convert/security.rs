//! Configuration: what pods and containers may do.

use crate::{PodSecurity, Seccomp, Security, proto};

impl From<&Security> for proto::Security {
    fn from(m: &Security) -> Self {
        Self {
            user: m.user,
            group: m.group,
            capabilities: m.capabilities.clone(),
            root_capabilities: m.root_capabilities.clone(),
            privileged: m.privileged,
            read_only_root: m.read_only_root,
            allow_privilege_escalation: m.allow_privilege_escalation,
            run_as_non_root: m.run_as_non_root,
            seccomp_unconfined: m.seccomp == Seccomp::Unconfined,
            seccomp_profile: match &m.seccomp {
                Seccomp::Localhost(path) => Some(path.clone()),
                Seccomp::RuntimeDefault | Seccomp::Unconfined => None,
            },
            apparmor_profile: m.apparmor_profile.clone(),
        }
    }
}

impl From<proto::Security> for Security {
    fn from(w: proto::Security) -> Self {
        Self {
            user: w.user,
            group: w.group,
            capabilities: w.capabilities,
            root_capabilities: w.root_capabilities,
            privileged: w.privileged,
            read_only_root: w.read_only_root,
            allow_privilege_escalation: w.allow_privilege_escalation,
            run_as_non_root: w.run_as_non_root,
            seccomp: match (w.seccomp_profile, w.seccomp_unconfined) {
                (Some(path), _) => Seccomp::Localhost(path),
                (None, true) => Seccomp::Unconfined,
                (None, false) => Seccomp::RuntimeDefault,
            },
            apparmor_profile: w.apparmor_profile,
        }
    }
}

impl From<&PodSecurity> for proto::PodSecurity {
    fn from(m: &PodSecurity) -> Self {
        Self {
            supplemental_groups: m.supplemental_groups.clone(),
            strict_groups: m.strict_groups,
            fs_group: m.fs_group,
            sysctls: m.sysctls.clone(),
            own_ids: m.own_ids,
        }
    }
}

impl From<proto::PodSecurity> for PodSecurity {
    fn from(w: proto::PodSecurity) -> Self {
        Self {
            supplemental_groups: w.supplemental_groups,
            strict_groups: w.strict_groups,
            fs_group: w.fs_group,
            sysctls: w.sysctls,
            own_ids: w.own_ids,
        }
    }
}
