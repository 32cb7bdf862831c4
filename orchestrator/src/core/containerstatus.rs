//! A container as its agent sees it -> Kubernetes' container status.

use gantry_nodeagent_api::{ContainerStatus, EndReason, RunEnd, WaitingReason};
use gantry_plan::ContainerPlacement;
use k8s_openapi::api::core::v1 as k8s;

use super::{meta, size};

/// The status of one container of the pod `uid`; `image` is the name that its spec has for it, `granted` its part of the plan.
pub fn container(
    uid: &str,
    seen: &ContainerStatus,
    image: &str,
    granted: Option<&ContainerPlacement>,
) -> k8s::ContainerStatus {
    let last_state = seen.last_ended.as_ref().map(|end| k8s::ContainerState {
        terminated: Some(terminated(uid, &seen.name, end)),
        ..Default::default()
    });
    let allocated = granted.map(size::allocated).unwrap_or_default();
    k8s::ContainerStatus {
        name: seen.name.clone(),
        image: image.to_owned(),
        image_id: seen.image_id.clone(),
        container_id: id_of_last(uid, seen),
        ready: seen.ready,
        started: Some(seen.started),
        restart_count: i32::try_from(seen.restarts).unwrap_or(i32::MAX),
        state: Some(state(uid, seen)),
        last_state,
        resources: Some(size::in_force(&seen.resources, &allocated)),
        allocated_resources: Some(allocated),
        ..Default::default()
    }
}

fn state(uid: &str, seen: &ContainerStatus) -> k8s::ContainerState {
    if seen.running {
        let started_at = (seen.started_at_ms > 0).then(|| meta::time(seen.started_at_ms));
        return k8s::ContainerState {
            running: Some(k8s::ContainerStateRunning { started_at }),
            ..Default::default()
        };
    }
    if let (None, Some(end)) = (seen.waiting, &seen.ended) {
        return k8s::ContainerState {
            terminated: Some(terminated(uid, &seen.name, end)),
            ..Default::default()
        };
    }
    let waiting = k8s::ContainerStateWaiting {
        reason: Some(waiting_reason(seen.waiting.unwrap_or_default()).to_owned()),
        message: (!seen.message.is_empty()).then(|| seen.message.clone()),
    };
    k8s::ContainerState {
        waiting: Some(waiting),
        ..Default::default()
    }
}

fn terminated(uid: &str, name: &str, end: &RunEnd) -> k8s::ContainerStateTerminated {
    k8s::ContainerStateTerminated {
        container_id: Some(id(uid, name, end.attempt)),
        exit_code: end.exit_code,
        signal: end.signal,
        reason: Some(end_reason(end.reason).to_owned()),
        message: (!end.message.is_empty()).then(|| end.message.clone()),
        started_at: Some(meta::time(end.started_at_ms)),
        finished_at: Some(meta::time(end.finished_at_ms)),
    }
}

fn waiting_reason(reason: WaitingReason) -> &'static str {
    match reason {
        WaitingReason::ContainerCreating => "ContainerCreating",
        WaitingReason::PodInitializing => "PodInitializing",
        WaitingReason::CrashLoopBackOff => "CrashLoopBackOff",
        WaitingReason::ErrImagePull => "ErrImagePull",
        WaitingReason::ImagePullBackOff => "ImagePullBackOff",
        WaitingReason::CreateContainerConfigError => "CreateContainerConfigError",
        WaitingReason::CreateContainerError => "CreateContainerError",
    }
}

fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Completed => "Completed",
        EndReason::Error => "Error",
        EndReason::OomKilled => "OOMKilled",
        EndReason::StartError => "StartError",
    }
}

/// One for each run, as each is a container of its own to Kubernetes.
fn id(uid: &str, name: &str, attempt: u32) -> String {
    format!("gantry://{uid}-{name}-{attempt}")
}

fn id_of_last(uid: &str, seen: &ContainerStatus) -> Option<String> {
    let ended = seen.ended.as_ref().or(seen.last_ended.as_ref());
    let attempt = seen.running.then_some(seen.restarts);
    let attempt = attempt.or(ended.map(|end| end.attempt))?;
    Some(id(uid, &seen.name, attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(attempt: u32, exit_code: i32, reason: EndReason) -> Option<RunEnd> {
        Some(RunEnd {
            attempt,
            exit_code,
            reason,
            started_at_ms: 1_000,
            finished_at_ms: 2_000,
            ..RunEnd::default()
        })
    }

    #[test]
    fn one_that_has_ended_says_how() {
        let seen = ContainerStatus {
            name: "c".to_owned(),
            restarts: 1,
            ended: ended(1, 0, EndReason::Completed),
            last_ended: ended(0, 137, EndReason::OomKilled),
            ..ContainerStatus::default()
        };
        let shown = container("u", &seen, "tool:1", None);
        assert_eq!(
            (shown.restart_count, shown.ready, shown.started),
            (1, false, Some(false))
        );
        assert_eq!(shown.container_id.as_deref(), Some("gantry://u-c-1"));
        let now = shown.state.unwrap().terminated.unwrap();
        assert_eq!((now.exit_code, now.reason.as_deref()), (0, Some("Completed")));
        assert_eq!(now.finished_at, Some(meta::time(2_000)));
        let last = shown.last_state.unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
        assert_eq!(last.container_id.as_deref(), Some("gantry://u-c-0"));
    }

    #[test]
    fn one_that_waits_says_what_for() {
        let seen = ContainerStatus {
            name: "c".to_owned(),
            restarts: 4,
            waiting: Some(WaitingReason::CrashLoopBackOff),
            last_ended: ended(4, 1, EndReason::Error),
            message: "back-off 8s".to_owned(),
            ..ContainerStatus::default()
        };
        let shown = container("u", &seen, "tool:1", None);
        let waiting = shown.state.unwrap().waiting.unwrap();
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(waiting.message.as_deref(), Some("back-off 8s"));
        assert!(shown.last_state.unwrap().terminated.is_some());
    }
}
