//! Pod Security Standards: what a pod must not have in a namespace, by the namespace's labels. Pure.
//!
//! Kubernetes: `docs/concepts/security/pod-security-standards`, `pod-security-admission`. Words of the answers are its own.

mod baseline;
mod labels;
mod restricted;
mod spec;

pub use labels::{Mode, Policy, label_errors};
use serde_json::Value;
pub use spec::Subject;

/// How much a pod may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    #[default]
    Privileged,
    /// Nothing that is known to lead out of its container.
    Baseline,
    /// As little as today's practice asks for.
    Restricted,
}

/// Something that the level does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// A few words.
    pub reason: &'static str,
    /// Which containers, and what to change.
    pub detail: String,
}

/// One control of the standards.
struct Control {
    /// Controls of a level are told in the order of their names.
    name: &'static str,
    /// Kubernetes 1.x that brought it.
    since: u32,
    /// At `restricted`, the control of `baseline` that is not told beside it: what it finds is found here too.
    instead_of: &'static str,
    check: fn(&Subject<'_>, u32) -> Option<Violation>,
}

/// What a pod has that the policy does not allow, in Kubernetes' order.
pub fn evaluate(policy: &Policy, subject: &Subject<'_>) -> Vec<Violation> {
    let minor = policy.version.unwrap_or(labels::NEWEST);
    let found = |controls: &'static [Control]| {
        let known = controls.iter().filter(move |c| c.since <= minor);
        known.filter_map(move |c| Some((c, (c.check)(subject, minor)?)))
    };
    let restricted: Vec<_> = match policy.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => Vec::new(),
        Level::Restricted => found(restricted::CONTROLS).collect(),
    };
    // One that finds nothing takes nobody's place: `restricted` never lets through what `baseline` does not.
    let told = |name: &str| restricted.iter().any(|(r, _)| r.instead_of == name);
    let baseline: Vec<_> = found(baseline::CONTROLS).filter(|(c, _)| !told(c.name)).collect();
    let all = baseline.into_iter().chain(restricted);
    all.map(|(_, violation)| violation).collect()
}

/// `violates PodSecurity "restricted:latest": reason (detail), reason (detail)`; `None` if it does not.
pub fn violates(policy: &Policy, subject: &Subject<'_>) -> Option<String> {
    let found = evaluate(policy, subject);
    let words = list(&found)?;
    Some(format!("violates PodSecurity \"{policy}\": {words}"))
}

/// `reason (detail), reason (detail)`; `None` for none.
pub fn list(found: &[Violation]) -> Option<String> {
    let words: Vec<_> = found
        .iter()
        .map(|v| format!("{} ({})", v.reason, v.detail))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Where a kind has pods, if it has: JSON pointer to what has their metadata and spec.
pub fn template_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "PodTemplate" => Some("/template"),
        _ => None,
    }
}

/// Answers to an object that is about to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// It is refused with this.
    pub refusal: Option<String>,
    /// It is written with this warning.
    pub warning: Option<String>,
    /// It is written, and this goes into the log.
    pub audit: Option<String>,
}

/// Judges an object of a kind by its namespace's labels. Templates are never refused: their pods are.
pub fn judge(kind: &str, object: &Value, namespace_labels: &Value) -> Answers {
    let Some(pointer) = template_of(kind) else {
        return Answers::default();
    };
    let subject = Subject::at(object, pointer);
    let by = |mode| violates(&Policy::of(namespace_labels, mode), &subject);
    let refusal = by(Mode::Enforce).filter(|_| kind == "Pod");
    let would = |words: String| words.replacen("violates", "would violate", 1);
    Answers {
        // Kubernetes warns of what it does not refuse anyway.
        warning: by(Mode::Warn).filter(|_| refusal.is_none()).map(would),
        audit: by(Mode::Audit).map(would),
        refusal,
    }
}

#[cfg(test)]
mod tests;
