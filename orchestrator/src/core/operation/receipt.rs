//! What an operation cost: counters before, counters after.

use std::collections::BTreeMap;

use gantry_api::{NetworkFunction, Operation, OperationPhase, Receipt};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use super::super::world::{Key, Work};
use super::super::{meta, nf, pods};
use super::function_of;

/// Annotation on an operation: JSON of [`Baseline`].
const BASELINE: &str = "gantry.dev/baseline";

/// Counters when the operation began.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    /// Packets seen and dropped, by node.
    nodes: BTreeMap<String, (u64, u64)>,
    /// Restarts, by pod.
    restarts: BTreeMap<String, u32>,
}

/// Notes the counters at the beginning.
pub(super) fn baseline(work: &Work<'_>, operation: &mut Operation, function: &NetworkFunction) {
    let instances = nf::pods_of(work, &function.metadata);
    operation.status.receipt.sessions_before = instances
        .iter()
        .filter_map(|p| pods::sessions(p, work.agents))
        .sum();
    let restarts = instances
        .iter()
        .map(|p| (meta::name(&p.metadata).to_owned(), pods::restarts(p)));
    let baseline = Baseline {
        nodes: counters(work),
        restarts: restarts.collect(),
    };
    let text = serde_json::to_string(&baseline).expect("plain data with string keys has a JSON form");
    meta::annotate(&mut operation.metadata, BASELINE, Some(text));
}

fn counters(work: &Work<'_>) -> BTreeMap<String, (u64, u64)> {
    let reports = work
        .agents
        .iter()
        .filter_map(|(node, a)| Some((node.clone(), a.status.as_ref()?)));
    reports
        .map(|(node, r)| (node, (r.network.packets, r.network.drops.values().sum())))
        .collect()
}

/// Ends an operation with its receipt.
pub(super) fn close(work: &mut Work<'_>, key: &Key, phase: OperationPhase, message: &str) {
    let Some(operation) = work.get::<Operation>(key) else {
        return;
    };
    let receipt = sum(work, &operation);
    let now_ms = work.now_ms;
    let text = format!("{}: {message}", operation.spec.asked);
    if let Some(function) = function_of(work, &operation) {
        work.tell(
            &*function,
            phase == OperationPhase::Failed,
            &format!("Operation{phase:?}"),
            &text,
        );
    }
    if let Some(edited) = work.edit::<Operation>(key) {
        edited.status.phase = phase;
        edited.status.message = message.to_owned();
        edited.status.finished_at_ms = now_ms;
        edited.status.receipt = receipt;
    }
}

fn sum(work: &Work<'_>, operation: &Operation) -> Receipt {
    let text = meta::annotation(&operation.metadata, BASELINE).unwrap_or_default();
    let before: Baseline = serde_json::from_str(text).unwrap_or_default();
    let leaving = operation.status.pods.values().filter(|p| p.action == "drained");
    let (sessions_before, sessions_lost) =
        leaving.fold((0, 0), |(b, l), p| (b + p.sessions_before, l + p.sessions_lost));
    let mut receipt = Receipt {
        sessions_before: operation.status.receipt.sessions_before,
        sessions_drained: sessions_before.saturating_sub(sessions_lost),
        sessions_lost,
        ..Default::default()
    };
    for (node, (packets, drops)) in counters(work) {
        // A node that was not there, or whose counters began anew, counts from 0.
        let (packets_then, drops_then) = before
            .nodes
            .get(&node)
            .copied()
            .filter(|(p, _)| *p <= packets)
            .unwrap_or((0, 0));
        receipt.packets += packets - packets_then;
        receipt.packets_dropped += drops.saturating_sub(drops_then);
    }
    let function = Key::new(meta::namespace(&operation.metadata), &operation.spec.function);
    let restarts = work.keys::<Pod>().into_iter().filter_map(|key| {
        let pod = work.get::<Pod>(&key)?;
        let ours = meta::label(&pod.metadata, gantry_api::labels::NF) == Some(&function.name)
            && key.namespace == function.namespace;
        let then = before.restarts.get(&key.name).copied().unwrap_or(0);
        ours.then(|| pods::restarts(&pod).saturating_sub(then))
    });
    receipt.restarts = restarts.sum();
    receipt
}
