//! What a Deployment says about itself, for `kubectl wait` and `kubectl rollout status`: in Kubernetes' words.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
/// What Kubernetes takes where nothing is said.
const DEFAULT_SHARE: &str = "25%";

/// Status, reason and message of a condition.
type Said = (&'static str, &'static str, String);

/// The conditions with both, after the numbers became those of `after`. `set` is the ReplicaSet of the current template.
pub fn update(
    conditions: &mut Vec<DeploymentCondition>,
    deployment: &Deployment,
    set: Option<&str>,
    (before, after): (&DeploymentStatus, &DeploymentStatus),
    now_ms: u64,
) {
    put(conditions, AVAILABLE, available(deployment, after), false, now_ms);
    let done = find(conditions, PROGRESSING).cloned();
    if let Some(said) = progressing(deployment, set, after, done.as_ref()) {
        let numbers = |s: &DeploymentStatus| (s.replicas, s.updated_replicas, s.ready_replicas);
        let is_step = said.1 == "ReplicaSetUpdated" && numbers(before) != numbers(after);
        put(conditions, PROGRESSING, said, is_step, now_ms);
    }
}

fn available(deployment: &Deployment, now: &DeploymentStatus) -> Said {
    let want = deployment.spec.replicas.unwrap_or(1);
    match now.available_replicas.unwrap_or(0) >= want - max_unavailable(deployment, want) {
        true => (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".to_owned(),
        ),
        false => (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".to_owned(),
        ),
    }
}

/// How far the rollout of the current template is; once it has ended, pods that fail or are added do not begin it again.
fn progressing(
    deployment: &Deployment,
    set: Option<&str>,
    now: &DeploymentStatus,
    known: Option<&DeploymentCondition>,
) -> Option<Said> {
    if deployment.spec.paused == Some(true) {
        return Some(("Unknown", "DeploymentPaused", "Deployment is paused".to_owned()));
    }
    let set = set?;
    let want = Some(deployment.spec.replicas.unwrap_or(1));
    let numbers = [now.updated_replicas, now.replicas, now.available_replicas];
    let complete = (
        "True",
        "NewReplicaSetAvailable",
        format!("ReplicaSet \"{set}\" has successfully progressed."),
    );
    let was_complete = known.is_some_and(|c| c.message.as_deref() == Some(&complete.2));
    if was_complete || numbers.iter().all(|n| *n == want) {
        return Some(complete);
    }
    let message = format!("ReplicaSet \"{set}\" is progressing.");
    Some(("True", "ReplicaSetUpdated", message))
}

/// How many pods may be missing: the share is rounded down, and 1 where neither more nor less pods than wanted would be allowed.
fn max_unavailable(deployment: &Deployment, want: i32) -> i32 {
    let strategy = deployment.spec.strategy.as_ref();
    let update = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = share(update.and_then(|u| u.max_surge.as_ref()), want, 99);
    let unavailable = share(update.and_then(|u| u.max_unavailable.as_ref()), want, 0);
    match (surge, unavailable) {
        (0, 0) => 1.min(want),
        _ => unavailable.clamp(0, want),
    }
}

fn share(value: Option<&IntOrString>, want: i32, more: i64) -> i32 {
    let text = match value {
        Some(IntOrString::Int(count)) => return *count,
        Some(IntOrString::String(text)) => text,
        None => DEFAULT_SHARE,
    };
    let percent: i64 = text.strip_suffix('%').and_then(|t| t.parse().ok()).unwrap_or(0);
    let count = percent.saturating_mul(want.into()).saturating_add(more) / 100;
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn find<'a>(conditions: &'a [DeploymentCondition], kind: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|c| c.type_.as_deref() == Some(kind))
}

/// The time of the transition moves with the status only, that of the update with anything, and with each step.
fn put(
    conditions: &mut Vec<DeploymentCondition>,
    kind: &str,
    (status, reason, message): Said,
    is_step: bool,
    now_ms: u64,
) {
    let now = Some(meta::time(now_ms));
    let mut new = DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: now.clone(),
        last_update_time: now,
    };
    let Some(known) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        conditions.push(new);
        return;
    };
    if known.status == new.status {
        new.last_transition_time = known.last_transition_time.clone();
    }
    if !is_step && (&known.status, &known.reason, &known.message) == (&new.status, &new.reason, &new.message)
    {
        new.last_update_time = known.last_update_time.clone();
    }
    *known = new;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn available_is_what_may_be_missing_at_most() {
        // Replicas, what the update says, ready, whether that is enough.
        let rows: [(i32, Value, i32, bool); 12] = [
            (1, json!({}), 0, false),
            (1, json!({}), 1, true),
            (4, json!({}), 2, false),
            (4, json!({}), 3, true),
            (7, json!({}), 5, false),
            (7, json!({}), 6, true),
            (0, json!({}), 0, true),
            (10, json!({"maxUnavailable": "35%"}), 7, true),
            (10, json!({"maxUnavailable": "35%"}), 6, false),
            (3, json!({"maxUnavailable": 5}), 0, true),
            (2, json!({"maxUnavailable": "25%", "maxSurge": 0}), 1, true),
            (2, json!({"maxUnavailable": 0}), 1, false),
        ];
        for (replicas, update, ready, enough) in rows {
            let value = json!({"metadata": {}, "spec": {"replicas": replicas, "selector": {}, "template": {},
                "strategy": {"rollingUpdate": update}}});
            let deployment: Deployment = serde_json::from_value(value).unwrap();
            let now = DeploymentStatus {
                available_replicas: Some(ready),
                ..Default::default()
            };
            let said = available(&deployment, &now).0 == "True";
            assert_eq!(said, enough, "{replicas} {update} {ready}");
        }
    }

    #[test]
    fn each_time_moves_with_what_it_is_of() {
        let mut conditions = Vec::new();
        let said = |status, reason| (status, reason, String::new());
        // Status, reason, whether it is a step; then the seconds of transition and update.
        let rows = [
            ("True", "A", false, (1, 1)),
            ("True", "A", false, (1, 1)),
            ("True", "A", true, (1, 3)),
            ("True", "B", false, (1, 4)),
            ("Unknown", "B", false, (5, 5)),
        ];
        for (at, (status, reason, is_step, times)) in (1..).zip(rows) {
            put(
                &mut conditions,
                PROGRESSING,
                said(status, reason),
                is_step,
                at * 1000,
            );
            let found = &conditions[0];
            let second = |t: &Option<_>| meta::millis(t.as_ref().unwrap()) / 1000;
            let now = (
                second(&found.last_transition_time),
                second(&found.last_update_time),
            );
            assert_eq!((conditions.len(), now), (1, times), "{status} {reason}");
        }
    }
}
