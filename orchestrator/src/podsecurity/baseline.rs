//! The controls of `baseline`.

use serde_json::Value;

use super::spec::{Subject, at, named, plural, quoted, security, setters, unique};
use super::{Control, Violation};

const fn control(
    name: &'static str,
    since: u32,
    check: fn(&Subject<'_>, u32) -> Option<Violation>,
) -> Control {
    Control {
        name,
        since,
        instead_of: "",
        check,
    }
}

/// By name.
pub(super) const CONTROLS: &[Control] = &[
    control("appArmorProfile", 0, app_armor),
    control("capabilities_baseline", 0, capabilities),
    control("hostNamespaces", 0, host_namespaces),
    control("hostPathVolumes", 0, host_paths),
    control("hostPorts", 0, host_ports),
    control("hostProbesAndHostLifecycle", 34, probe_hosts),
    control("privileged", 0, privileged),
    control("procMount", 0, |subject, minor| {
        if subject.is_apart(minor) {
            None
        } else {
            proc_mount(subject, minor)
        }
    }),
    control("seLinuxOptions", 0, se_linux),
    control("seccompProfile_baseline", 0, seccomp),
    control("sysctls", 0, sysctls),
    control("windowsHostProcess", 0, host_process),
];

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Settings of the kernel that are the pod's own, by the 1.x that allowed them.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What the containers add that is not in the list: the containers, the capabilities.
pub(super) fn added<'a>(subject: &Subject<'a>, allowed: &[&str]) -> Option<String> {
    let more = |c: &'a Value| {
        texts(at(c, "/securityContext/capabilities/add")).filter(|capability| !allowed.contains(capability))
    };
    let bad: Vec<&str> = subject
        .containers()
        .filter(|c| more(c).next().is_some())
        .map(|c| at(c, "/name").as_str().unwrap_or_default())
        .collect();
    let capabilities = unique(subject.containers().flat_map(more));
    (!bad.is_empty()).then(|| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&bad),
            quoted(&capabilities)
        )
    })
}

fn capabilities(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    added(subject, CAPABILITIES).map(|detail| Violation {
        reason: "non-default capabilities",
        detail,
    })
}

fn app_armor(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    let wrong = |profile: &Value| {
        !profile.is_null()
            && !["RuntimeDefault", "Localhost"]
                .iter()
                .any(|t| profile["type"] == *t)
    };
    let type_ = |profile: &Value| profile["type"].as_str().unwrap_or_default().to_owned();
    let pod = at(subject.spec, "/securityContext/appArmorProfile");
    let containers = subject.which(|c| wrong(security(c, "appArmorProfile")));
    let of_containers = subject.containers().map(|c| security(c, "appArmorProfile"));
    let mut values = unique(of_containers.chain([pod]).filter(|p| wrong(p)).map(type_));
    let annotated = subject.annotations().filter(|(key, value)| {
        key.starts_with("container.apparmor.security.beta.kubernetes.io/")
            && !["", "runtime/default"].contains(value)
            && !value.starts_with("localhost/")
    });
    let annotated = unique(annotated.map(|(key, value)| format!("{key}={value:?}")));
    let mut who = setters(wrong(pod), &containers);
    if !annotated.is_empty() {
        let word = plural("annotation", "annotations", annotated.len());
        who = if who.is_empty() {
            word.to_owned()
        } else {
            format!("{who} and {word}")
        };
        values.extend(annotated);
    }
    (!who.is_empty()).then(|| Violation {
        reason: plural(
            "forbidden AppArmor profile",
            "forbidden AppArmor profiles",
            values.len(),
        ),
        detail: format!("{who} must not set AppArmor profile type to {}", quoted(&values)),
    })
}

fn host_namespaces(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let set: Vec<_> = fields.iter().filter(|f| subject.spec[**f] == true).collect();
    let detail: Vec<_> = set.iter().map(|f| format!("{f}=true")).collect();
    (!set.is_empty()).then(|| Violation {
        reason: "host namespaces",
        detail: detail.join(", "),
    })
}

fn host_paths(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    let volumes = at(subject.spec, "/volumes").as_array().into_iter().flatten();
    let bad: Vec<&str> = volumes
        .filter(|v| !v["hostPath"].is_null())
        .map(|v| v["name"].as_str().unwrap_or_default())
        .collect();
    (!bad.is_empty()).then(|| Violation {
        reason: "hostPath volumes",
        detail: format!("{} {}", plural("volume", "volumes", bad.len()), quoted(&bad)),
    })
}

fn host_ports(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    fn ports(container: &Value) -> impl Iterator<Item = i64> {
        let all = at(container, "/ports").as_array().into_iter().flatten();
        all.filter_map(|p| p["hostPort"].as_i64().filter(|n| *n != 0))
    }
    let bad = subject.which(|c| ports(c).next().is_some());
    let numbers = unique(subject.containers().flat_map(ports).map(|n| n.to_string()));
    (!bad.is_empty()).then(|| Violation {
        reason: "hostPort",
        detail: format!(
            "{} {} {} {}",
            named(&bad),
            plural("uses", "use", bad.len()),
            plural("hostPort", "hostPorts", numbers.len()),
            numbers.join(", ")
        ),
    })
}

fn probe_hosts(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    const HANDLERS: [&str; 5] = [
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    fn hosts(container: &Value) -> impl Iterator<Item = &str> {
        HANDLERS.iter().flat_map(move |handler| {
            let handler = at(container, handler);
            ["/httpGet/host", "/tcpSocket/host"]
                .into_iter()
                .filter_map(|host| at(handler, host).as_str().filter(|h| !h.is_empty()))
        })
    }
    let bad = unique(subject.which(|c| hosts(c).next().is_some()));
    let all = unique(subject.containers().flat_map(hosts));
    (!bad.is_empty()).then(|| Violation {
        reason: "probe or lifecycle host",
        detail: format!(
            "{} {} {} {}",
            named(&bad),
            plural("uses", "use", bad.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", all.len()),
            quoted(&all)
        ),
    })
}

fn privileged(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    let bad = subject.which(|c| security(c, "privileged") == true);
    (!bad.is_empty()).then(|| Violation {
        reason: "privileged",
        detail: format!("{} must not set securityContext.privileged=true", named(&bad)),
    })
}

pub(super) fn proc_mount(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    let wrong = |c: &Value| {
        let mount = security(c, "procMount");
        !mount.is_null() && mount != "Default"
    };
    let bad = subject.which(wrong);
    let all = subject.containers().filter(|c| wrong(c));
    let types = unique(all.filter_map(|c| security(c, "procMount").as_str()));
    (!bad.is_empty()).then(|| Violation {
        reason: "procMount",
        detail: format!(
            "{} must not set securityContext.procMount to {}",
            named(&bad),
            quoted(&types)
        ),
    })
}

fn se_linux(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    let text = |options: &Value, field: &str| options[field].as_str().unwrap_or_default().to_owned();
    let known = |type_: &str| match type_ {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => minor >= 31,
        _ => false,
    };
    let wrong = |options: &Value| {
        !known(&text(options, "type"))
            || !text(options, "user").is_empty()
            || !text(options, "role").is_empty()
    };
    let pod = at(subject.spec, "/securityContext/seLinuxOptions");
    let bad = subject.which(|c| wrong(security(c, "seLinuxOptions")));
    let all: Vec<&Value> = subject
        .containers()
        .map(|c| security(c, "seLinuxOptions"))
        .chain([pod])
        .collect();
    let types = unique(all.iter().map(|o| text(o, "type")).filter(|t| !known(t)));
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!(
            "{} {}",
            plural("type", "types", types.len()),
            quoted(&types)
        ));
    }
    for field in ["user", "role"] {
        if all.iter().any(|o| !text(o, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    (!data.is_empty()).then(|| Violation {
        reason: "seLinuxOptions",
        detail: format!(
            "{} set forbidden securityContext.seLinuxOptions: {}",
            setters(wrong(pod), &bad),
            data.join("; ")
        ),
    })
}

/// Who sets a seccomp profile that is none, if somebody does.
pub(super) fn unconfined(subject: &Subject<'_>) -> Option<Violation> {
    let wrong = |profile: &Value| {
        !profile.is_null()
            && !["RuntimeDefault", "Localhost"]
                .iter()
                .any(|t| profile["type"] == *t)
    };
    let pod = at(subject.spec, "/securityContext/seccompProfile");
    let bad = subject.which(|c| wrong(security(c, "seccompProfile")));
    let all = subject
        .containers()
        .map(|c| security(c, "seccompProfile"))
        .chain([pod]);
    let types = unique(
        all.filter(|p| wrong(p))
            .map(|p| p["type"].as_str().unwrap_or_default()),
    );
    (wrong(pod) || !bad.is_empty()).then(|| Violation {
        reason: "seccompProfile",
        detail: format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            setters(wrong(pod), &bad),
            quoted(&types)
        ),
    })
}

fn seccomp(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    unconfined(subject)
}

fn sysctls(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    let all = at(subject.spec, "/securityContext/sysctls").as_array();
    let names = all.into_iter().flatten().filter_map(|s| s["name"].as_str());
    let allowed = |name: &str| {
        SYSCTLS
            .iter()
            .any(|(known, since)| *known == name && *since <= minor)
    };
    let bad: Vec<&str> = names.filter(|name| !allowed(name)).collect();
    (!bad.is_empty()).then(|| Violation {
        reason: "forbidden sysctls",
        detail: bad.join(", "),
    })
}

fn host_process(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    let pod = at(subject.spec, "/securityContext/windowsOptions/hostProcess") == true;
    let bad = subject.which(|c| at(c, "/securityContext/windowsOptions/hostProcess") == true);
    (pod || !bad.is_empty()).then(|| Violation {
        reason: "hostProcess",
        detail: format!(
            "{} must not set securityContext.windowsOptions.hostProcess=true",
            setters(pod, &bad)
        ),
    })
}
