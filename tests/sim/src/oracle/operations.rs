//! What operations claim when they end, against what the hosts and the clients know.

use std::collections::BTreeSet;

use gantry_api::{Operation, OperationPhase};
use gantry_catalog::Cpu;
use gantry_orchestrator::core::{Action, Key, Object, meta, pods};
use k8s_openapi::api::core::v1::Pod;

use super::Verdict;
use crate::Oracle;
use crate::control::Store;
use crate::node::Node;

/// What was seen of operations.
#[derive(Default)]
pub(super) struct Seen {
    /// Uids of those that have ended.
    ended: BTreeSet<String>,
    /// Operation and pod, when a session was cut on a draining pod of which the operation knew that it had some.
    lost: BTreeSet<(String, String)>,
}

impl Seen {
    /// Looks at those that end with a pass.
    pub fn pass(&mut self, actions: &[Action], store: &Store, nodes: &[Node]) -> Verdict {
        for action in actions {
            let (Action::Update(Object::Operation(operation))
            | Action::UpdateStatus(Object::Operation(operation))) = action
            else {
                continue;
            };
            let is_running = operation.status.phase == OperationPhase::Running;
            let uid = meta::uid(&operation.metadata);
            if is_running || !self.ended.insert(uid.to_owned()) {
                continue;
            }
            self.receipt(operation)?;
            if operation.status.phase == OperationPhase::Succeeded {
                as_asked(operation, store, nodes)?;
            }
        }
        Ok(())
    }

    /// A pod that does not serve any more had a session.
    pub fn lost(&mut self, store: &Store, pod: &str) {
        let mut pods = store.objects.pods.values();
        let Some(pod) = pods.find(|p| meta::uid(&p.metadata) == pod) else {
            return;
        };
        let (name, uid) = (meta::name(&pod.metadata), meta::uid(&pod.metadata));
        for operation in store.objects.operations.values() {
            let knew = operation.status.phase == OperationPhase::Running
                && operation
                    .status
                    .pods
                    .get(name)
                    .is_some_and(|p| p.uid == uid && p.action == "drained" && p.sessions > 0);
            if knew {
                let operation = meta::uid(&operation.metadata).to_owned();
                self.lost.insert((operation, uid.to_owned()));
            }
        }
    }

    fn receipt(&self, operation: &Operation) -> Verdict {
        for (pod, entry) in operation.status.pods.iter().filter(|(_, p)| p.done) {
            let was = (meta::uid(&operation.metadata).to_owned(), entry.uid.clone());
            if entry.sessions_lost == Some(0) && self.lost.contains(&was) {
                let name = meta::name(&operation.metadata);
                let what = format!("operation {name} claims that pod {pod} lost no session");
                return Err((Oracle::Receipts, what));
            }
        }
        Ok(())
    }
}

/// The pods of the function are as the operation was asked to make them.
fn as_asked(operation: &Operation, store: &Store, nodes: &[Node]) -> Verdict {
    let key = Key::new(meta::namespace(&operation.metadata), &operation.spec.function);
    let Some(function) = store.objects.functions.get(&key) else {
        return Ok(());
    };
    let name = meta::name(&operation.metadata);
    let wrong = |what: String| Err((Oracle::SucceededIsDone, format!("operation {name}: {what}")));
    let asked = &operation.spec.to;
    let uid = function.metadata.uid.as_deref();
    let all = store.objects.pods.values();
    let own: Vec<_> = all.filter(|p| meta::controller_uid(&p.metadata) == uid).collect();
    if own.len() != asked.replicas as usize {
        return wrong(format!("there are {} pods, not {}", own.len(), asked.replicas));
    }
    for pod in own {
        let name = meta::name(&pod.metadata);
        if pods::is_leaving(pod) {
            return wrong(format!("pod {name} still leaves"));
        }
        let image = pod.spec.as_ref().and_then(|s| s.containers[0].image.clone());
        if image != Some(format!("{}:{}", asked.package, asked.version)) {
            return wrong(format!("pod {name} has image {image:?}"));
        }
        let cpu = asked.resources.get("main").and_then(|r| r.cpu.as_ref());
        if let Some(cpu) = cpu.filter(|cpu| !has(nodes, pod, cpu)) {
            return wrong(format!("pod {name} does not have {cpu:?} on its host"));
        }
    }
    Ok(())
}

/// The host holds the pod to this; a host that has just booted holds it to nothing yet.
fn has(nodes: &[Node], pod: &Pod, cpu: &Cpu) -> bool {
    let uid = meta::uid(&pod.metadata);
    let limits = nodes
        .iter()
        .find_map(|n| n.host.pods.get(uid)?.containers.get("main")?.limits.as_ref());
    limits.is_none_or(|limits| match cpu {
        Cpu::Exclusive { count, .. } => limits.resources.cpus.len() == *count as usize,
        Cpu::Shared { request, .. } => {
            limits.resources.cpus.is_empty() && limits.resources.cpu_request_milli == request.0
        }
    })
}
