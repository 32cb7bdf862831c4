//! The controls of `restricted`, beyond `baseline`.

use serde_json::Value;

use super::baseline::{added, proc_mount, unconfined};
use super::spec::{Subject, at, named, plural, quoted, security, setters, unique};
use super::{Control, Violation};

const fn control(
    name: &'static str,
    since: u32,
    instead_of: &'static str,
    check: fn(&Subject<'_>, u32) -> Option<Violation>,
) -> Control {
    Control {
        name,
        since,
        instead_of,
        check,
    }
}

/// By name.
pub(super) const CONTROLS: &[Control] = &[
    control("allowPrivilegeEscalation", 8, "", escalation),
    control(
        "capabilities_restricted",
        22,
        "capabilities_baseline",
        capabilities,
    ),
    control("procMount_restricted", 35, "procMount", proc_mount),
    control("restrictedVolumes", 0, "hostPathVolumes", volumes),
    control("runAsNonRoot", 0, "", non_root),
    control("runAsUser", 23, "", user),
    control(
        "seccompProfile_restricted",
        19,
        "seccompProfile_baseline",
        seccomp,
    ),
];

/// Sources that hold nothing of the node's.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn windows(subject: &Subject<'_>, minor: u32) -> bool {
    minor >= 25 && subject.is_windows()
}

fn escalation(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    let bad = subject.which(|c| security(c, "allowPrivilegeEscalation") != false);
    (!bad.is_empty() && !windows(subject, minor)).then(|| Violation {
        reason: "allowPrivilegeEscalation != false",
        detail: format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            named(&bad)
        ),
    })
}

fn capabilities(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if windows(subject, minor) {
        return None;
    }
    let keeps = subject.which(|c| {
        let drops = at(c, "/securityContext/capabilities/drop").as_array();
        !drops.into_iter().flatten().any(|d| d == "ALL")
    });
    let keeps = (!keeps.is_empty()).then(|| {
        format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            named(&keeps)
        )
    });
    let details: Vec<String> = keeps
        .into_iter()
        .chain(added(subject, &["NET_BIND_SERVICE"]))
        .collect();
    (!details.is_empty()).then(|| Violation {
        reason: "unrestricted capabilities",
        detail: details.join("; "),
    })
}

/// What a volume is made of and may not be; `unknown` where it is made of nothing.
fn restricted_types(volume: &Value) -> Vec<&str> {
    let sources = volume.as_object().into_iter().flatten();
    let sources = sources.filter(|(key, value)| *key != "name" && !value.is_null());
    let mut sources: Vec<&str> = sources.map(|(key, _)| key.as_str()).collect();
    if sources.is_empty() {
        return vec!["unknown"];
    }
    sources.retain(|source| !VOLUMES.contains(source));
    sources
}

fn volumes(subject: &Subject<'_>, _: u32) -> Option<Violation> {
    let all = at(subject.spec, "/volumes").as_array().into_iter().flatten();
    let bad: Vec<&Value> = all.filter(|v| !restricted_types(v).is_empty()).collect();
    let names: Vec<&str> = bad.iter().filter_map(|v| v["name"].as_str()).collect();
    let types = unique(bad.iter().flat_map(|v| restricted_types(v)));
    (!bad.is_empty()).then(|| Violation {
        reason: "restricted volume types",
        detail: format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", bad.len()),
            quoted(&names),
            plural("uses", "use", bad.len()),
            plural("restricted volume type", "restricted volume types", types.len()),
            quoted(&types)
        ),
    })
}

fn non_root(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if subject.is_apart(minor) {
        return None;
    }
    let pod = at(subject.spec, "/securityContext/runAsNonRoot");
    let explicit = subject.which(|c| security(c, "runAsNonRoot") == false);
    let detail = if pod == false || !explicit.is_empty() {
        let who = setters(pod == false, &explicit);
        format!("{who} must not set securityContext.runAsNonRoot=false")
    } else {
        let implicit = subject.which(|c| security(c, "runAsNonRoot").is_null() && pod != true);
        if implicit.is_empty() {
            return None;
        }
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            named(&implicit)
        )
    };
    Some(Violation {
        reason: "runAsNonRoot != true",
        detail,
    })
}

fn user(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    let pod = at(subject.spec, "/securityContext/runAsUser") == 0;
    let bad = subject.which(|c| security(c, "runAsUser") == 0);
    ((pod || !bad.is_empty()) && !subject.is_apart(minor)).then(|| Violation {
        reason: "runAsUser=0",
        detail: format!("{} must not set runAsUser=0", setters(pod, &bad)),
    })
}

fn seccomp(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if windows(subject, minor) {
        return None;
    }
    if let Some(explicit) = unconfined(subject) {
        return Some(explicit);
    }
    let pod = at(subject.spec, "/securityContext/seccompProfile");
    let implicit = subject.which(|c| security(c, "seccompProfile").is_null() && pod.is_null());
    (!implicit.is_empty()).then(|| Violation {
        reason: "seccompProfile",
        detail: format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&implicit)
        ),
    })
}
