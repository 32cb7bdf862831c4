//! Helpers over Pods: what Gantry's annotations and conditions say.

use gantry_api::{DrainPhase, DrainState, PodExtras, labels};
use gantry_catalog::DrainMethod;
use gantry_nodeagent_api::ContainerRole;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus};

use super::agents::Agents;
use super::meta;

/// Annotation: fingerprint of the size that the NetworkFunction last gave the pod. A pod that was resized by itself since
/// then keeps its size, as in Kubernetes, until the function's size changes.
pub const SIZED_BY: &str = "gantry.dev/sized-by";

/// Reason of a pod that its node does not have: nothing of it runs.
pub const NOT_STARTED: &str = "NotStarted";

/// What a PodSpec cannot say.
pub fn extras(pod: &Pod) -> PodExtras {
    let text = meta::annotation(&pod.metadata, labels::EXTRAS);
    text.and_then(|t| serde_json::from_str(t).ok())
        .unwrap_or_default()
}

/// What is wrong with Gantry's own annotations: whoever takes an unreadable one for none gives away the pod's CPUs, or its sessions.
pub fn unreadable_annotation(pod: &Pod) -> Option<String> {
    let wrong = |key: &str, error: serde_json::Error| format!("annotation {key}: {error}");
    let text = |key| meta::annotation(&pod.metadata, key);
    let extras = text(labels::EXTRAS).and_then(|t| serde_json::from_str::<PodExtras>(t).err());
    let drain = text(labels::DRAIN).and_then(|t| serde_json::from_str::<DrainState>(t).err());
    extras
        .map(|e| wrong(labels::EXTRAS, e))
        .or(drain.map(|e| wrong(labels::DRAIN, e)))
}

/// How far its drain is, if it drains.
pub fn drain(pod: &Pod) -> Option<DrainState> {
    let text = meta::annotation(&pod.metadata, labels::DRAIN)?;
    Some(serde_json::from_str(text).unwrap_or_default())
}

/// Sets how far its drain is; `None` ends the drain.
pub fn set_drain(pod: &mut Pod, state: Option<&DrainState>) {
    let text = state.map(|s| serde_json::to_string(s).expect("plain data has a JSON form"));
    meta::annotate(&mut pod.metadata, labels::DRAIN, text);
}

/// Marks a pod to be drained.
pub fn begin_drain(pod: &mut Pod, agents: &Agents, now_ms: u64) {
    let sessions_before = sessions(pod, agents).unwrap_or(0);
    set_drain(
        pod,
        Some(&DrainState {
            phase: DrainPhase::Draining,
            sessions_before,
            since_ms: now_ms,
            in_force_since_ms: None,
        }),
    );
}

/// It is to be stopped, or being stopped.
pub fn is_stopping(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// It drains, or is to be stopped: it takes no new work.
pub fn is_leaving(pod: &Pod) -> bool {
    is_stopping(pod) || drain(pod).is_some()
}

/// It ended by itself and does not start again.
pub fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the container behind a port runs, as last reported; the one that declares the port, or any if none does.
pub fn runs(pod: &Pod, port: u16) -> bool {
    if find(pod, "Ready").is_some_and(|c| c.reason.as_deref() == Some(NOT_STARTED)) {
        return false;
    }
    let declares = |c: &&Container| {
        let mut ports = c.ports.iter().flatten();
        ports.any(|p| p.container_port == i32::from(port))
    };
    let owners: Vec<&String> = lasting(pod).filter(declares).map(|c| &c.name).collect();
    let status = pod.status.iter();
    let main = status.clone().flat_map(|s| s.container_statuses.iter().flatten());
    let init = status.flat_map(|s| s.init_container_statuses.iter().flatten());
    let main = main.filter(|s| owners.is_empty() || owners.contains(&&s.name));
    let mut candidates = main.chain(init.filter(|s| owners.contains(&&s.name)));
    candidates.any(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// Phase, `Pending` if none is set.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("Pending")
}

/// Its init containers, sidecars among them, then the others: the order in which they start.
pub fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, ContainerRole)> {
    let spec = pod.spec.iter();
    let init = spec.clone().flat_map(|s| s.init_containers.iter().flatten());
    let init = init.map(|c| match c.restart_policy.as_deref() {
        Some("Always") => (c, ContainerRole::Sidecar),
        _ => (c, ContainerRole::Init),
    });
    let main = spec.flat_map(|s| &s.containers);
    init.chain(main.map(|c| (c, ContainerRole::Main)))
}

/// Those that run as long as the pod does: its containers, then its sidecars.
pub fn lasting(pod: &Pod) -> impl Iterator<Item = &Container> {
    let of = |wanted| {
        containers(pod)
            .filter(move |(_, role)| *role == wanted)
            .map(|(c, _)| c)
    };
    of(ContainerRole::Main).chain(of(ContainerRole::Sidecar))
}

/// The node, once it has one.
pub fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// Its address, once it has one.
pub fn address(pod: &Pod) -> Option<std::net::Ipv4Addr> {
    pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()
}

/// Whether a condition holds.
pub fn is_true(pod: &Pod, condition: &str) -> bool {
    find(pod, condition).is_some_and(|c| c.status == "True")
}

/// Condition of a pod that can get to its node, or not: something that it refers to is missing, or its turn has not come.
pub const READY_TO_START: &str = "PodReadyToStartContainers";

/// A condition.
pub fn find<'a>(pod: &'a Pod, condition: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|c| c.type_ == condition)
}

/// All containers are ready, as last reported.
pub fn is_ready(pod: &Pod) -> bool {
    is_true(pod, "Ready")
}

/// What keeps a pod from being ready, if something is said of it: by its node, by one of these conditions that is false, or by a
/// container that waits.
pub fn hindrance<'a>(pod: &'a Pod, conditions: &[&str]) -> Option<&'a str> {
    let status = pod.status.as_ref().filter(|_| !is_ready(pod))?;
    let held = || {
        let is_held = |c: &&PodCondition| conditions.contains(&&*c.type_) && c.status == "False";
        status
            .conditions
            .iter()
            .flatten()
            .find(is_held)?
            .message
            .as_deref()
    };
    let waits = || {
        let containers = status.container_statuses.iter().flatten();
        let mut waiting = containers.filter_map(|c| c.state.as_ref()?.waiting.as_ref());
        waiting.find_map(|waiting| waiting.message.as_deref())
    };
    status.message.as_deref().or_else(held).or_else(waits)
}

/// The status, to change.
pub fn status_mut(pod: &mut Pod) -> &mut PodStatus {
    pod.status.get_or_insert_default()
}

/// Sets a condition; its time moves only when its status does. True if anything but the time changed.
pub fn set_condition(
    pod: &mut Pod,
    condition: &str,
    state: bool,
    reason: &str,
    message: &str,
    now_ms: u64,
) -> bool {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let status = if state { "True" } else { "False" };
    let conditions = status_mut(pod).conditions.get_or_insert_default();
    let mut new = PodCondition {
        type_: condition.to_owned(),
        status: status.to_owned(),
        reason: some(reason),
        message: some(message),
        last_transition_time: Some(meta::time(now_ms)),
        ..Default::default()
    };
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == condition) else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status {
        new.last_transition_time.clone_from(&old.last_transition_time);
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// Live sessions as last reported.
pub fn sessions(pod: &Pod, agents: &Agents) -> Option<u64> {
    agents.pod(node(pod)?, meta::uid(&pod.metadata))?.sessions
}

/// Its function counts its sessions, and drains by them.
pub fn counts_sessions(pod: &Pod) -> bool {
    let drain = extras(pod).drain;
    drain.method != DrainMethod::None && drain.sessions.is_some()
}

/// When it was made.
pub fn created_at_ms(pod: &Pod) -> u64 {
    pod.metadata.creation_timestamp.as_ref().map_or(0, meta::millis)
}

/// When the oldest run of its containers began, as last reported, in whole seconds; 0 if none runs.
pub fn started_at_ms(pod: &Pod) -> u64 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let runs = statuses
        .into_iter()
        .flatten()
        .filter_map(|c| c.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    runs.map(meta::millis).min().unwrap_or(0)
}

/// Restarts of all its containers, as last reported.
pub fn restarts(pod: &Pod) -> u32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses
        .into_iter()
        .flatten()
        .map(|c| u32::try_from(c.restart_count).unwrap_or(0))
        .sum()
}
