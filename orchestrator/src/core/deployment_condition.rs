//! What a Deployment says about itself, for `kubectl wait` and `kubectl rollout status`: in Kubernetes' words.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
/// What Kubernetes takes where nothing is said.
const DEFAULT_SHARE: &str = "25%";
const DEFAULT_DEADLINE_S: i32 = 600;
/// A deadline that Kubernetes takes for none.
const NO_DEADLINE_S: i32 = i32::MAX;
/// Reason of a rollout that goes on.
const UPDATED: &str = "ReplicaSetUpdated";

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
    let known = find(conditions, PROGRESSING).cloned();
    let has_stepped = is_step(before, after);
    if let Some(said) = progressing(deployment, set, after, known.as_ref(), has_stepped, now_ms) {
        let is_step = said.1 == UPDATED && has_stepped;
        put(conditions, PROGRESSING, said, is_step, now_ms);
    }
}

/// More pods of the current template, fewer of others, or more that are ready: what goes back and forth is a step only forth.
/// Source: k8s.io/kubernetes/pkg/controller/deployment/util, `DeploymentProgressing`.
fn is_step(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let updated = |s: &DeploymentStatus| s.updated_replicas.unwrap_or(0);
    let ready = |s: &DeploymentStatus| s.ready_replicas.unwrap_or(0);
    let others = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - updated(s);
    updated(after) > updated(before) || others(after) < others(before) || ready(after) > ready(before)
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
    has_stepped: bool,
    now_ms: u64,
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
    let goes_on = ("True", UPDATED, format!("ReplicaSet \"{set}\" is progressing."));
    let timed_out = (
        "False",
        "ProgressDeadlineExceeded",
        format!("ReplicaSet \"{set}\" has timed out progressing."),
    );
    let is_late = known.is_some_and(|known| {
        let message = known.message.as_deref();
        message == Some(&timed_out.2)
            || message == Some(&goes_on.2) && is_over(deadline_s(deployment), known, now_ms)
    });
    Some(if is_late && !has_stepped {
        timed_out
    } else {
        goes_on
    })
}

/// Seconds that a rollout may be without a step.
fn deadline_s(deployment: &Deployment) -> Option<u64> {
    let seconds = deployment.spec.progress_deadline_seconds;
    let seconds = seconds.unwrap_or(DEFAULT_DEADLINE_S);
    u64::try_from(seconds).ok().filter(|_| seconds != NO_DEADLINE_S)
}

/// The last step, which is when the condition was written, is longer ago than that.
fn is_over(deadline_s: Option<u64>, known: &DeploymentCondition, now_ms: u64) -> bool {
    let last_ms = known.last_update_time.as_ref().map(meta::millis);
    deadline_s
        .zip(last_ms)
        .is_some_and(|(seconds, last)| now_ms.saturating_sub(last) > seconds.saturating_mul(1000))
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

    /// What is said of a rollout, second by second; a change of its numbers, of the template or of what is paused is told.
    struct Rollout {
        deployment: Deployment,
        conditions: Vec<DeploymentCondition>,
        numbers: DeploymentStatus,
    }

    impl Rollout {
        fn new(spec: Value) -> Self {
            let value = json!({"metadata": {}, "spec": {"replicas": 2, "selector": {}, "template": {}}});
            let mut deployment: Deployment = serde_json::from_value(value).unwrap();
            deployment.spec.progress_deadline_seconds = serde_json::from_value(spec).unwrap();
            Self {
                deployment,
                conditions: Vec::new(),
                numbers: DeploymentStatus::default(),
            }
        }

        /// The reason after so many pods of so many are ready, all of them of the set.
        fn said(&mut self, second: u64, set: &str, (ready, all): (i32, i32)) -> String {
            let after = DeploymentStatus {
                replicas: Some(all),
                updated_replicas: Some(all),
                ready_replicas: Some(ready),
                available_replicas: Some(ready),
                ..Default::default()
            };
            let before = std::mem::replace(&mut self.numbers, after.clone());
            let numbers = (&before, &after);
            update(
                &mut self.conditions,
                &self.deployment,
                Some(set),
                numbers,
                second * 1000,
            );
            let found = find(&self.conditions, PROGRESSING).unwrap();
            let is_late = found.reason.as_deref() == Some("ProgressDeadlineExceeded");
            assert_eq!(found.status.as_deref() == Some("False"), is_late);
            found.reason.clone().unwrap()
        }
    }

    #[test]
    fn a_rollout_without_a_step_times_out() {
        const LATE: &str = "ProgressDeadlineExceeded";
        let mut rollout = Rollout::new(json!(10));
        assert_eq!(rollout.said(1, "a", (0, 1)), UPDATED);
        assert_eq!(rollout.said(9, "a", (0, 2)), UPDATED);
        assert_eq!(rollout.said(19, "a", (0, 2)), UPDATED, "ten seconds after a step");
        assert_eq!(rollout.said(20, "a", (0, 2)), LATE);
        assert_eq!(rollout.said(21, "a", (0, 2)), LATE, "it stays so");
        assert_eq!(rollout.said(30, "a", (1, 2)), UPDATED, "until the next step");
        assert_eq!(rollout.said(39, "a", (0, 2)), UPDATED, "a step back is none");
        assert_eq!(rollout.said(41, "a", (0, 2)), LATE);
        assert_eq!(
            rollout.said(42, "b", (0, 2)),
            UPDATED,
            "another template begins anew"
        );
        assert_eq!(rollout.said(53, "b", (0, 2)), LATE);
        rollout.deployment.spec.paused = Some(true);
        assert_eq!(rollout.said(54, "b", (0, 2)), "DeploymentPaused");
        assert_eq!(rollout.said(99, "b", (0, 2)), "DeploymentPaused");
        rollout.deployment.spec.paused = None;
        assert_eq!(
            rollout.said(100, "b", (0, 2)),
            UPDATED,
            "what is paused is not late"
        );
        assert_eq!(rollout.said(111, "b", (0, 2)), LATE);
        let complete = "NewReplicaSetAvailable";
        assert_eq!(rollout.said(112, "b", (2, 2)), complete);
        assert_eq!(rollout.said(200, "b", (1, 2)), complete, "it has ended");
    }

    #[test]
    fn a_deadline_is_ten_minutes_or_none() {
        for (deadline, second, reason) in [
            (Value::Null, 601, UPDATED),
            (Value::Null, 602, "ProgressDeadlineExceeded"),
            (json!(i32::MAX), 1 << 40, UPDATED),
        ] {
            let mut rollout = Rollout::new(deadline);
            rollout.said(1, "a", (0, 2));
            assert_eq!(rollout.said(second, "a", (0, 2)), reason);
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
