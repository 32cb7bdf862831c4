//! How far an operation is: each pod of it, the message, and whether the function is as asked.

use std::sync::Arc;

use gantry_api::{NetworkFunction, Operation, OperationKind, OperationPhase, PodReceipt};
use gantry_nodeagent_api::PodDesired;
use gantry_topology::CpuSet;
use k8s_openapi::api::core::v1::Pod;

use super::super::world::{Key, Work};
use super::super::{meta, nf, pods};
use super::{function_of, receipt};

/// Memory limits in the kernel are whole pages.
const PAGE_BYTES: u64 = 4096;

/// One step of a running operation.
pub(super) fn advance(work: &mut Work<'_>, key: &Key, operation: &Operation) {
    let Some(function) = function_of(work, operation) else {
        settle_pods(work, key, &[], operation);
        if operation.spec.kinds == [OperationKind::Undeploy] {
            receipt::close(work, key, OperationPhase::Succeeded, "all is gone");
        } else {
            receipt::close(
                work,
                key,
                OperationPhase::Failed,
                "the function was deleted meanwhile",
            );
        }
        return;
    };
    let instances = nf::pods_of(work, &function.metadata);
    settle_pods(work, key, &instances, operation);
    let asked = Asked::of(work, &function, &instances);
    if asked.all() {
        receipt::close(work, key, OperationPhase::Succeeded, &asked.message(&function));
    } else if let Some(operation) = work.edit::<Operation>(key) {
        operation.status.message = asked.message(&function);
    }
}

/// How near the function is to what is asked.
struct Asked {
    leaves: bool,
    wanted: usize,
    ready: usize,
    updated: usize,
    resized: usize,
    leaving: usize,
    leaving_sessions: u64,
}

impl Asked {
    fn of(work: &Work<'_>, function: &NetworkFunction, instances: &[Arc<Pod>]) -> Self {
        let (leaving, staying): (Vec<_>, Vec<_>) = instances
            .iter()
            .partition(|p| pods::is_stopping(p) || pods::drain(p).is_some());
        let current = |p: &&&Arc<Pod>| {
            meta::label(&p.metadata, gantry_api::labels::REVISION) == Some(function.status.revision.as_str())
        };
        Self {
            leaves: function.metadata.deletion_timestamp.is_some(),
            wanted: function.spec.replicas as usize,
            ready: staying.iter().filter(|p| pods::is_ready(p)).count(),
            updated: staying.iter().filter(current).count(),
            resized: staying.iter().filter(|p| in_force(work, p)).count(),
            leaving: leaving.len(),
            leaving_sessions: leaving
                .iter()
                .filter_map(|p| pods::sessions(p, work.agents))
                .sum(),
        }
    }

    fn all(&self) -> bool {
        !self.leaves
            && self.leaving == 0
            && [self.ready, self.updated, self.resized]
                .iter()
                .all(|n| *n == self.wanted)
    }

    fn message(&self, function: &NetworkFunction) -> String {
        let mut parts = Vec::new();
        if !self.leaves {
            parts.push(format!("{}/{} ready", self.ready, self.wanted));
            if self.updated != self.wanted {
                parts.push(format!("{}/{} of the new revision", self.updated, self.wanted));
            }
            if self.resized < self.ready {
                parts.push(format!("{}/{} of the new size", self.resized, self.wanted));
            }
        }
        if self.leaving > 0 {
            parts.push(format!(
                "{} draining or stopping ({} sessions)",
                self.leaving, self.leaving_sessions
            ));
        }
        if !function.status.message.is_empty() {
            parts.push(function.status.message.clone());
        }
        parts.join(", ")
    }
}

/// The agent reports the pod's containers at the size that its spec asks, on the CPUs of the plan.
fn in_force(work: &Work<'_>, pod: &Pod) -> bool {
    let uid = meta::uid(&pod.metadata);
    let Some(node) = pods::node(pod) else { return false };
    let Some(config) = work.configs.get(node).and_then(|c| c.pods.get(uid)) else {
        return false;
    };
    let Some(report) = work.agents.pod(node, uid) else {
        return false;
    };
    let held_back =
        work.plan.placements.get(uid).is_none_or(|p| p.resize_pending) || work.unplaced.contains_key(uid);
    !held_back
        && config.desired == PodDesired::Run
        && config.containers.iter().all(|wanted| {
            let seen = report.containers.iter().find(|c| c.name == wanted.name);
            seen.is_some_and(|seen| {
                let pages = |bytes: u64| bytes / PAGE_BYTES;
                let cpus = wanted.resources.cpus.is_empty() || seen.resources.cpus == wanted.resources.cpus;
                cpus && pages(seen.resources.memory_bytes) == pages(wanted.resources.memory_bytes)
            })
        })
}

/// Brings what the operation did to each pod up to date.
fn settle_pods(work: &mut Work<'_>, key: &Key, instances: &[Arc<Pod>], operation: &Operation) {
    let mut receipts = operation.status.pods.clone();
    let generation = operation.spec.generation.to_string();
    let resizes = operation.spec.kinds.contains(&OperationKind::Resize);
    for pod in instances {
        let name = meta::name(&pod.metadata).to_owned();
        let made_here = meta::annotation(&pod.metadata, pods::MADE_BY_GENERATION) == Some(&generation);
        let action = if pods::is_stopping(pod) || pods::drain(pod).is_some() {
            "drained"
        } else if made_here {
            "created"
        } else if resizes {
            "resized"
        } else {
            // Called back from its drain.
            receipts.remove(&name);
            continue;
        };
        let entry = receipts.entry(name).or_insert_with(|| PodReceipt {
            cpus_before: if made_here { CpuSet::new() } else { held(work, pod) },
            ..Default::default()
        });
        action.clone_into(&mut entry.action);
        note(work, pod, entry);
    }
    for (name, entry) in &mut receipts {
        if !instances.iter().any(|p| meta::name(&p.metadata) == name) {
            entry.done = true;
            entry.cpus_after = CpuSet::new();
        }
    }
    if let Some(operation) = work.edit::<Operation>(key) {
        operation.status.pods = receipts;
    }
}

fn held(work: &Work<'_>, pod: &Pod) -> CpuSet {
    let report = pods::node(pod).and_then(|node| work.agents.pod(node, meta::uid(&pod.metadata)));
    report.map(|r| r.cpus.clone()).unwrap_or_default()
}

fn note(work: &Work<'_>, pod: &Pod, entry: &mut PodReceipt) {
    if entry.action != "drained" {
        entry.cpus_after = held(work, pod);
        entry.done = pods::is_ready(pod) && in_force(work, pod);
        return;
    }
    let sessions = pods::sessions(pod, work.agents);
    match pods::drain(pod) {
        Some(state) => entry.sessions_before = state.sessions_before,
        None => entry.sessions_before = entry.sessions_before.max(sessions.unwrap_or(0)),
    }
    if pods::is_stopping(pod) {
        // What it still has when it is stopped is lost.
        entry.sessions_lost = entry.sessions_lost.max(sessions.unwrap_or(0));
    }
    entry.done = false;
}
