//! What `kubectl get pods` shows: the rules of Kubernetes' own table.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cells::count;
use super::columns::human_age;
use super::path::{at, list, text};

/// Ready ones of those that run as long as the pod does.
pub(super) fn pod_ready(pod: &Value) -> Value {
    let lasting = sidecars(pod).count() + list(pod, "/spec/containers").len();
    let own = list(pod, "/status/containerStatuses").iter();
    let ready = own
        .chain(sidecar_statuses(pod))
        .filter(|c| at(c, "/ready") == true);
    json!(format!("{}/{lasting}", ready.count()))
}

/// One word for the state of a pod: its own reason, or else that of the container which keeps it from running.
pub(super) fn pod_status(pod: &Value) -> Value {
    let phase = text(pod, "/status/phase");
    if !at(pod, "/metadata/deletionTimestamp").is_null() && !matches!(phase, "Succeeded" | "Failed") {
        return json!("Terminating");
    }
    let own = match text(pod, "/status/reason") {
        "" if phase.is_empty() => "Pending",
        "" => phase,
        reason => reason,
    };
    json!(initializing(pod).unwrap_or_else(|| running(pod, own)))
}

/// Restarts of what counts at the time, and how long ago the last one was.
pub(super) fn pod_restarts(pod: &Value) -> Value {
    let init = list(pod, "/status/initContainerStatuses");
    let all: Vec<&Value> = if initializing(pod).is_some() {
        init.iter().collect()
    } else {
        sidecar_statuses(pod)
            .chain(list(pod, "/status/containerStatuses"))
            .collect()
    };
    let restarts: i64 = all.iter().map(|c| count(c, "/restartCount")).sum();
    let ends = all.iter().map(|c| text(c, "/lastState/terminated/finishedAt"));
    let last = ends.filter_map(|t| OffsetDateTime::parse(t, &Rfc3339).ok()).max();
    match last.filter(|_| restarts > 0) {
        Some(last) => {
            let age = human_age((OffsetDateTime::now_utc() - last).whole_seconds());
            json!(format!("{restarts} ({age} ago)"))
        }
        None => json!(restarts.to_string()),
    }
}

fn sidecars(pod: &Value) -> impl Iterator<Item = &str> {
    let init = list(pod, "/spec/initContainers").iter();
    init.filter(|c| text(c, "/restartPolicy") == "Always")
        .map(|c| text(c, "/name"))
}

fn sidecar_statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let init = list(pod, "/status/initContainerStatuses").iter();
    init.filter(|c| sidecars(pod).any(|name| name == text(c, "/name")))
}

/// The first init container that holds the pod up; `None` when none does.
fn initializing(pod: &Value) -> Option<String> {
    let initialized = list(pod, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "Initialized" && text(c, "/status") == "True");
    let statuses = list(pod, "/status/initContainerStatuses");
    let passed = |c: &Value| {
        let done = at(c, "/state/terminated/exitCode") == 0;
        done || (at(c, "/started") == true && sidecars(pod).any(|name| name == text(c, "/name")))
    };
    let at_index = statuses
        .iter()
        .position(|c| !passed(c))
        .filter(|_| !initialized)?;
    let holds = &statuses[at_index];
    Some(match (ended(holds), text(holds, "/state/waiting/reason")) {
        (Some(end), _) => format!("Init:{end}"),
        (None, "" | "PodInitializing") => {
            format!("Init:{at_index}/{}", list(pod, "/spec/initContainers").len())
        }
        (None, reason) => format!("Init:{reason}"),
    })
}

/// The first of the containers that does not run gives the word.
fn running(pod: &Value, own: &str) -> String {
    let statuses = list(pod, "/status/containerStatuses");
    let word = |c: &Value| match text(c, "/state/waiting/reason") {
        "" => ended(c),
        reason => Some(reason.to_owned()),
    };
    let word = statuses.iter().find_map(word).unwrap_or_else(|| own.to_owned());
    let some_run = statuses
        .iter()
        .any(|c| at(c, "/ready") == true && !at(c, "/state/running").is_null());
    if word != "Completed" || !some_run {
        return word;
    }
    let conditions = list(pod, "/status/conditions").iter();
    let ready = conditions.filter(|c| text(c, "/type") == "Ready");
    let ready = ready.filter(|c| text(c, "/status") == "True").count() > 0;
    if ready { "Running" } else { "NotReady" }.to_owned()
}

fn ended(container: &Value) -> Option<String> {
    let end = at(container, "/state/terminated");
    match (text(end, "/reason"), count(end, "/signal")) {
        _ if end.is_null() => None,
        ("", 0) => Some(format!("ExitCode:{}", count(end, "/exitCode"))),
        ("", signal) => Some(format!("Signal:{signal}")),
        (reason, _) => Some(reason.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(init: Value, containers: Value, phase: &str) -> Value {
        json!({"spec": {
                "containers": [{"name": "a"}, {"name": "b"}],
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
            "status": {"phase": phase, "initContainerStatuses": init, "containerStatuses": containers}})
    }

    fn terminated(name: &str, code: i32, reason: &str) -> Value {
        json!({"name": name, "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}})
    }

    fn runs(name: &str) -> Value {
        json!({"name": name, "ready": true, "started": true, "restartCount": 0, "state": {"running": {}}})
    }

    fn waits(name: &str, reason: &str) -> Value {
        json!({"name": name, "ready": false, "restartCount": 3, "state": {"waiting": {"reason": reason}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2020-01-01T00:00:00Z"}}})
    }

    #[test]
    fn the_status_is_what_kubectl_shows() {
        let done = terminated("i", 0, "Completed");
        let cases = [
            (
                json!([waits("i", "PodInitializing"), waits("s", "PodInitializing")]),
                json!([]),
                "Pending",
                "Init:0/2",
            ),
            (
                json!([terminated("i", 1, "Error")]),
                json!([]),
                "Pending",
                "Init:Error",
            ),
            (
                json!([waits("i", "CrashLoopBackOff")]),
                json!([]),
                "Pending",
                "Init:CrashLoopBackOff",
            ),
            (
                json!([done, waits("s", "PodInitializing")]),
                json!([]),
                "Pending",
                "Init:1/2",
            ),
            (
                json!([done, runs("s")]),
                json!([waits("a", "PodInitializing")]),
                "Pending",
                "PodInitializing",
            ),
            (
                json!([done, runs("s")]),
                json!([runs("a"), waits("b", "CrashLoopBackOff")]),
                "Running",
                "CrashLoopBackOff",
            ),
            (
                json!([]),
                json!([terminated("a", 0, "Completed"), terminated("b", 137, "OOMKilled")]),
                "Failed",
                "Completed",
            ),
            (
                json!([]),
                json!([terminated("a", 137, "OOMKilled"), terminated("b", 0, "Completed")]),
                "Failed",
                "OOMKilled",
            ),
            (
                json!([]),
                json!([runs("a"), terminated("b", 0, "Completed")]),
                "Running",
                "NotReady",
            ),
            (json!([]), json!([terminated("a", 2, "")]), "Failed", "ExitCode:2"),
            (
                json!([done, runs("s")]),
                json!([runs("a"), runs("b")]),
                "Running",
                "Running",
            ),
        ];
        for (init, containers, phase, expected) in cases {
            assert_eq!(pod_status(&pod(init, containers, phase)), expected);
        }
        let mut leaving = pod(json!([]), json!([runs("a")]), "Running");
        leaving["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(pod_status(&leaving), "Terminating");
        let mut late = pod(json!([]), json!([]), "Failed");
        late["status"]["reason"] = json!("DeadlineExceeded");
        assert_eq!(pod_status(&late), "DeadlineExceeded");
        assert_eq!(pod_status(&json!({})), "Pending");
    }

    #[test]
    fn ready_and_restarts_count_sidecars() {
        let init = json!([terminated("i", 0, "Completed"), runs("s")]);
        let shown = pod(
            init,
            json!([runs("a"), waits("b", "CrashLoopBackOff")]),
            "Running",
        );
        assert_eq!(pod_ready(&shown), "2/3");
        let restarts = pod_restarts(&shown);
        let restarts = restarts.as_str().unwrap();
        assert!(
            restarts.starts_with("3 (") && restarts.ends_with("d ago)"),
            "{restarts}"
        );
        assert_eq!(pod_restarts(&json!({})), "0");
    }
}
