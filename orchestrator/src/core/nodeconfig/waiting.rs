//! Pods that cannot get to their node, or get what is new: something that they refer to is missing, or too large.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting, ContainerStatus, Pod};

use super::super::pods;
use super::super::world::{Key, Work};

const CONDITION: &str = "PodReadyToStartContainers";
/// Of a pod whose files are not, or were once not, what the API says.
const FILES_CONDITION: &str = "gantry.dev/FilesCurrent";
const FILES_REASON: &str = "FailedMount";
const REASON: &str = "CreateContainerConfigError";

/// Says in the pod's status, and in an event when that is new, why it does not get to its node, or that it does.
pub(super) fn explain(work: &mut Work<'_>, key: &Key, problem: Option<&str>) {
    let now_ms = work.now_ms;
    let Some(pod) = work.get::<Pod>(key) else { return };
    let waited = pods::find(&pod, CONDITION).is_some();
    if problem.is_none() && !waited {
        return;
    }
    let Some(edited) = work.edit::<Pod>(key) else {
        return;
    };
    let reason = if problem.is_some() { REASON } else { "" };
    let text = problem.unwrap_or_default();
    let news = pods::set_condition(edited, CONDITION, problem.is_none(), reason, text, now_ms);
    if let Some(problem) = problem {
        let statuses = waiting(&pod, problem);
        let status = pods::status_mut(edited);
        if status.container_statuses.as_ref() != Some(&statuses) {
            status.container_statuses = Some(statuses);
        }
        if news {
            tracing::warn!(pod = %key, problem, "the pod cannot start yet");
            work.tell(&*pod, true, REASON, problem);
        }
    }
}

/// Says the same of a pod that runs, whose files are not those of its ConfigMaps and Secrets any more.
pub(super) fn explain_files(work: &mut Work<'_>, key: &Key, problem: Option<&str>) {
    let now_ms = work.now_ms;
    let Some(pod) = work.get::<Pod>(key) else { return };
    if problem.is_none() && pods::find(&pod, FILES_CONDITION).is_none() {
        return;
    }
    let Some(edited) = work.edit::<Pod>(key) else {
        return;
    };
    let reason = if problem.is_some() { FILES_REASON } else { "" };
    let text = problem.map_or(String::new(), |problem| {
        format!("the files of its volumes stay as they were: {problem}")
    });
    let news = pods::set_condition(edited, FILES_CONDITION, problem.is_none(), reason, &text, now_ms);
    if problem.is_some() && news {
        work.tell(&*pod, true, FILES_REASON, &text);
    }
}

/// What `kubectl get pods` shows: every container waits.
fn waiting(pod: &Pod, problem: &str) -> Vec<ContainerStatus> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let status = |name: &String, image: &Option<String>| ContainerStatus {
        name: name.clone(),
        image: image.clone().unwrap_or_default(),
        started: Some(false),
        state: Some(ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(REASON.to_owned()),
                message: Some(problem.to_owned()),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    containers.map(|c| status(&c.name, &c.image)).collect()
}
