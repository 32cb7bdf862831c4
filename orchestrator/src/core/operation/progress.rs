//! How far an operation is: the message, and whether the function is as asked.

use std::sync::Arc;

use gantry_api::{NetworkFunction, Operation, OperationKind, OperationPhase};
use gantry_nodeagent_api::{ContainerRole, PodDesired};
use k8s_openapi::api::core::v1::Pod;

use super::super::world::{Key, Work};
use super::super::{meta, nf, pods, quarantine, size};
use super::{function_of, instances, receipt};

/// One step of a running operation.
pub(super) fn advance(work: &mut Work<'_>, key: &Key, operation: &Operation) {
    let place = Key::new(meta::namespace(&operation.metadata), &operation.spec.function);
    if quarantine::has(work, NetworkFunction::KIND, &place) {
        return;
    }
    let Some(function) = function_of(work, operation) else {
        instances::settle(work, key, &[], operation);
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
    let pods = work.pods_of(&function.metadata);
    instances::settle(work, key, &pods, operation);
    let asked = Asked::of(work, &function, &pods);
    if asked.all() {
        receipt::close(work, key, OperationPhase::Succeeded, &asked.message(&function));
    } else if let Some(operation) = work.edit::<Operation>(key) {
        operation.status.message = asked.message(&function);
    }
}

/// How near the function is to what is asked.
struct Asked {
    leaves: bool,
    /// What is asked cannot be done as it is, or nobody knows yet what it is: its files are being rendered.
    hindered: bool,
    wanted: usize,
    staying: usize,
    ready: usize,
    updated: usize,
    resized: usize,
    /// Ready, of the revision and of the size that is asked, all in one.
    complete: usize,
    leaving: usize,
    leaving_sessions: u64,
}

impl Asked {
    fn of(work: &Work<'_>, function: &NetworkFunction, instances: &[Arc<Pod>]) -> Self {
        let (leaving, staying): (Vec<_>, Vec<_>) = instances.iter().partition(|p| pods::is_leaving(p));
        let updated = |p: &Pod| {
            meta::label(&p.metadata, gantry_api::labels::REVISION) == Some(function.status.revision.as_str())
        };
        let resized = |p: &Pod| nf::is_sized_as_asked(function, p) && in_force(work, p);
        let made_of = function.status.revision_generation;
        let is_made = function.metadata.generation.is_none_or(|asked| made_of >= asked);
        let count = |holds: &dyn Fn(&Pod) -> bool| staying.iter().filter(|p| holds(p)).count();
        Self {
            leaves: function.metadata.deletion_timestamp.is_some(),
            hindered: !is_made || work.problems.contains_key(&Key::of(&function.metadata)),
            wanted: function.spec.replicas as usize,
            staying: staying.len(),
            ready: count(&pods::is_ready),
            updated: count(&updated),
            resized: count(&resized),
            complete: count(&|p| pods::is_ready(p) && updated(p) && resized(p)),
            leaving: leaving.len(),
            leaving_sessions: leaving
                .iter()
                .filter_map(|p| pods::sessions(p, work.agents))
                .sum(),
        }
    }

    fn all(&self) -> bool {
        !self.leaves
            && !self.hindered
            && self.leaving == 0
            && self.staying == self.wanted
            && self.complete == self.wanted
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

/// The agent reports the pod's containers at the size that its spec asks, on the CPUs of the plan. An init container that does
/// not run has no size. A report from before it has accepted the newest configuration does not count: it may have taken other
/// sizes since.
pub(super) fn in_force(work: &Work<'_>, pod: &Pod) -> bool {
    let uid = meta::uid(&pod.metadata);
    let on_node = pods::node(pod).and_then(|node| {
        let status = work.agents.get(node)?.status.as_ref()?;
        Some((work.configs.get(node)?, status))
    });
    let Some((newest, status)) = on_node.filter(|(newest, status)| status.accepted >= newest.generation)
    else {
        return false;
    };
    let (Some(config), Some(report)) = (newest.pods.get(uid), status.pods.get(uid)) else {
        return false;
    };
    let held_back =
        work.plan.placements.get(uid).is_none_or(|p| p.resize_pending) || work.unplaced.contains_key(uid);
    !held_back
        && config.desired == PodDesired::Run
        && config.containers.iter().all(|wanted| {
            let seen = report.containers.iter().find(|c| c.name == wanted.name);
            let has_ended = |running: bool| wanted.role == ContainerRole::Init && !running;
            seen.is_some_and(|seen| {
                has_ended(seen.running) || size::is_same(&seen.resources, &wanted.resources)
            })
        })
}
