//! Pods that cannot get to their node, or get what is new: something that they refer to is missing, or too large.

use gantry_api::NetworkFunction;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting, ContainerStatus, Pod};

use super::super::world::{Key, Work};
use super::super::{meta, pods};

/// Of a pod whose files are not, or were once not, what the API says.
const FILES_CONDITION: &str = "gantry.dev/FilesCurrent";
const FILES_REASON: &str = "FailedMount";
const REASON: &str = "CreateContainerConfigError";
/// Of a pod whose turn has not come.
const TURN_REASON: &str = "WaitsForFunction";

/// Why a pod is not at its node yet.
pub(super) struct Held {
    reason: &'static str,
    message: String,
}

impl From<String> for Held {
    /// Something that it refers to is not as it should be.
    fn from(message: String) -> Self {
        let reason = REASON;
        Self { reason, message }
    }
}

/// What a pod waits for before it is started for the first time: functions of which no instance is ready.
pub(super) fn turn(work: &Work<'_>, pod: &Pod) -> Result<(), Held> {
    let namespace = meta::namespace(&pod.metadata);
    let is_up = |function: &String| {
        let key = Key::new(namespace, function);
        let function = work.get::<NetworkFunction>(&key);
        // Nobody waits for what is not there, or going.
        let function = function.filter(|f| f.metadata.deletion_timestamp.is_none());
        function.is_none_or(|f| work.pods_of(&f.metadata).iter().any(|pod| pods::is_ready(pod)))
    };
    let waits_for = pods::extras(pod).waits_for;
    match waits_for.iter().find(|function| !is_up(function)) {
        None => Ok(()),
        Some(function) => Err(Held {
            reason: TURN_REASON,
            message: format!("it starts once an instance of {function} is ready"),
        }),
    }
}

/// Says in the pod's status, and in an event when that is new, why it does not get to its node, or that it does.
pub(super) fn explain(work: &mut Work<'_>, key: &Key, held: Option<&Held>) {
    let now_ms = work.now_ms;
    let Some(pod) = work.get::<Pod>(key) else { return };
    let waited = pods::find(&pod, pods::READY_TO_START).is_some();
    if held.is_none() && !waited {
        return;
    }
    let Some(edited) = work.edit::<Pod>(key) else {
        return;
    };
    let (reason, text) = held.map_or(("", ""), |held| (held.reason, held.message.as_str()));
    let news = pods::set_condition(edited, pods::READY_TO_START, held.is_none(), reason, text, now_ms);
    if let Some(held) = held {
        let statuses = waiting(&pod, held);
        let status = pods::status_mut(edited);
        if status.container_statuses.as_ref() != Some(&statuses) {
            status.container_statuses = Some(statuses);
        }
        if news {
            tracing::info!(pod = %key, reason, problem = text, "the pod cannot start yet");
            work.tell(&*pod, reason == REASON, reason, text);
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
fn waiting(pod: &Pod, held: &Held) -> Vec<ContainerStatus> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let status = |name: &String, image: &Option<String>| ContainerStatus {
        name: name.clone(),
        image: image.clone().unwrap_or_default(),
        started: Some(false),
        state: Some(ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(held.reason.to_owned()),
                message: Some(held.message.clone()),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    containers.map(|c| status(&c.name, &c.image)).collect()
}
