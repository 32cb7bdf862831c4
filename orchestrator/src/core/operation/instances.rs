//! What an operation did to each pod, and what became of the pod's sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_api::{DrainPhase, Operation, OperationKind, PodReceipt};
use gantry_nodeagent_api::{ContainerRole, PodStatus};
use gantry_topology::CpuSet;
use k8s_openapi::api::core::v1::Pod;

use super::super::world::{Key, Work};
use super::super::{meta, pods};
use super::progress::in_force;
use super::receipt::Baseline;

/// Brings what the operation did to each pod up to date.
pub(super) fn settle(work: &mut Work<'_>, key: &Key, instances: &[Arc<Pod>], operation: &Operation) {
    let mut entries = operation.status.pods.clone();
    let before = Baseline::of(operation);
    let resizes = operation.spec.kinds.contains(&OperationKind::Resize);
    for pod in instances {
        let (name, uid) = (meta::name(&pod.metadata), meta::uid(&pod.metadata));
        let restarts_before = before.restarts.get(uid).copied();
        make_way(&mut entries, name, uid);
        let action = if pods::is_leaving(pod) {
            "drained"
        } else if restarts_before.is_none() {
            "created"
        } else if resizes {
            "resized"
        } else if entries.contains_key(name) {
            "recalled"
        } else {
            continue;
        };
        let restarts = pods::restarts(pod).saturating_sub(restarts_before.unwrap_or(0));
        let entry = entries
            .entry(name.to_owned())
            .or_insert_with(|| first_look(work, pod, restarts, restarts_before.is_none()));
        action.clone_into(&mut entry.action);
        note(work, pod, restarts, entry);
    }
    let there: BTreeSet<&str> = instances.iter().map(|p| meta::name(&p.metadata)).collect();
    for (name, entry) in &mut entries {
        if !there.contains(name.as_str()) {
            gone(entry);
        }
    }
    if let Some(operation) = work.edit::<Operation>(key) {
        operation.status.pods = entries;
    }
}

/// Who had the name of a pod before it, and has gone, keeps its entry under another: `pgw-0#1`.
fn make_way(entries: &mut BTreeMap<String, PodReceipt>, name: &str, uid: &str) {
    let is_other = |entry: &PodReceipt| !entry.uid.is_empty() && entry.uid != uid;
    if !entries.get(name).is_some_and(is_other) {
        return;
    }
    let numbered = format!("{name}#");
    let taken = entries.keys().filter(|key| key.starts_with(&numbered)).count();
    if let Some(mut former) = entries.remove(name) {
        gone(&mut former);
        entries.insert(format!("{numbered}{}", taken + 1), former);
    }
}

fn gone(entry: &mut PodReceipt) {
    lose(entry, true);
    entry.done = true;
    entry.cpus_after = CpuSet::new();
}

fn first_look(work: &Work<'_>, pod: &Pod, restarts: u32, is_new: bool) -> PodReceipt {
    // A count from before the drain stands until there is a newer one; a drain that is further had none left.
    let sessions = pods::drain(pod)
        .filter(|d| d.phase == DrainPhase::Draining)
        .map_or(0, |d| d.sessions_before);
    PodReceipt {
        uid: meta::uid(&pod.metadata).to_owned(),
        cpus_before: if is_new { CpuSet::new() } else { held(work, pod) },
        sessions,
        sessions_lost: Some(0),
        restarts,
        started_at_ms: pods::started_at_ms(pod),
        ..Default::default()
    }
}

fn held(work: &Work<'_>, pod: &Pod) -> CpuSet {
    report(work, pod).map(|r| r.cpus.clone()).unwrap_or_default()
}

fn report<'a>(work: &Work<'a>, pod: &Pod) -> Option<&'a PodStatus> {
    work.agents.pod(pods::node(pod)?, meta::uid(&pod.metadata))
}

fn note(work: &Work<'_>, pod: &Pod, restarts: u32, entry: &mut PodReceipt) {
    let counted = pods::counts_sessions(pod);
    let report = report(work, pod);
    let started_at_ms = pods::started_at_ms(pod);
    let began_anew = entry.started_at_ms > 0 && started_at_ms > entry.started_at_ms;
    if restarts > entry.restarts || began_anew {
        lose(entry, counted);
    }
    entry.restarts = entry.restarts.max(restarts);
    entry.started_at_ms = entry.started_at_ms.max(started_at_ms);
    // With a container that has ended a count means nothing: what that one had is not in it any more.
    // An init container has to have ended.
    let lasts =
        |name: &str| !pods::containers(pod).any(|(c, role)| c.name == name && role == ContainerRole::Init);
    let whole = report.filter(|r| r.containers.iter().all(|c| c.running || !lasts(&c.name)));
    let sessions = whole.and_then(|r| r.sessions);
    if pods::is_leaving(pod) {
        let at_start = pods::drain(pod).map_or(0, |d| d.sessions_before);
        // The count when the drain began may have been old: none have come since.
        let most = at_start.max(sessions.unwrap_or(0));
        entry.sessions_before = entry.sessions_before.max(most);
        if !counted && pods::node(pod).is_some() {
            entry.sessions_lost = None;
        }
        entry.done = false;
    } else {
        entry.cpus_after = held(work, pod);
        entry.done = pods::is_ready(pod) && in_force(work, pod);
    }
    // What it still has when it is stopped is lost, whether it ends before the processes do or not.
    if let Some(sessions) = sessions.filter(|n| !pods::is_stopping(pod) || *n > entry.sessions) {
        entry.sessions = sessions;
    }
}

/// What it had is lost.
fn lose(entry: &mut PodReceipt, counted: bool) {
    let sessions = std::mem::take(&mut entry.sessions);
    entry.sessions_lost = entry
        .sessions_lost
        .filter(|_| counted)
        .map(|lost| lost + sessions);
}
