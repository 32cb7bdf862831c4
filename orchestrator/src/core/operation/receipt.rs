//! What an operation cost: counters before, counters after.

use std::collections::BTreeMap;

use gantry_api::{NetworkFunction, Operation, OperationPhase, Receipt};
use gantry_nodeagent_api::NodeStatus;
use serde::{Deserialize, Serialize};

use super::super::world::{Key, Work};
use super::super::{meta, pods};
use super::function_of;

/// Annotation on an operation: JSON of [`Baseline`].
const BASELINE: &str = "gantry.dev/baseline";

/// Counters when the operation began.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Baseline {
    /// Packets seen and dropped, by node.
    nodes: BTreeMap<String, (u64, u64)>,
    /// Packets dropped by reason, by node.
    #[serde(default)]
    drops: BTreeMap<String, BTreeMap<String, u64>>,
    /// Restarts, by the pod's uid; every pod that there was.
    pub restarts: BTreeMap<String, u32>,
}

impl Baseline {
    /// As noted in an operation.
    pub fn of(operation: &Operation) -> Self {
        let text = meta::annotation(&operation.metadata, BASELINE).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// Notes the counters at the beginning.
pub(super) fn baseline(work: &Work<'_>, operation: &mut Operation, function: &NetworkFunction) {
    let instances = work.pods_of(&function.metadata);
    operation.status.receipt.sessions_before = instances
        .iter()
        .filter_map(|p| pods::sessions(p, work.agents))
        .sum();
    let restarts = instances
        .iter()
        .map(|p| (meta::uid(&p.metadata).to_owned(), pods::restarts(p)));
    let baseline = Baseline {
        nodes: counters(work),
        drops: reports(work)
            .map(|(node, r)| (node.clone(), r.network.drops.clone()))
            .collect(),
        restarts: restarts.collect(),
    };
    let text = serde_json::to_string(&baseline).expect("plain data with string keys has a JSON form");
    meta::annotate(&mut operation.metadata, BASELINE, Some(text));
}

fn reports<'a>(work: &'a Work<'_>) -> impl Iterator<Item = (&'a String, &'a NodeStatus)> {
    work.agents
        .iter()
        .filter_map(|(node, a)| Some((node, a.status.as_ref()?)))
}

fn counters(work: &Work<'_>) -> BTreeMap<String, (u64, u64)> {
    reports(work)
        .map(|(node, r)| (node.clone(), (r.network.packets, r.network.drops.values().sum())))
        .collect()
}

/// Every dropped packet has its reason. A node that was not there, or whose counters began anew, counts from 0.
fn drops(work: &Work<'_>, before: &Baseline) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for (node, report) in reports(work) {
        let began_anew = before
            .nodes
            .get(node)
            .is_none_or(|(packets, _)| *packets > report.network.packets);
        let then = before.drops.get(node).filter(|_| !began_anew);
        for (reason, count) in &report.network.drops {
            let then = then.and_then(|d| d.get(reason)).copied().unwrap_or(0);
            let new = count.saturating_sub(then);
            if new > 0 {
                *all.entry(reason.clone()).or_default() += new;
            }
        }
    }
    all
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
    let before = Baseline::of(operation);
    let entries = operation.status.pods.values();
    // What is still there has neither drained nor lost what it has.
    let drained = entries.clone().filter(|p| p.action == "drained" && p.done);
    let mut receipt = Receipt {
        sessions_before: operation.status.receipt.sessions_before,
        sessions_drained: drained
            .map(|p| p.sessions_before.saturating_sub(p.sessions_lost.unwrap_or(0)))
            .sum(),
        sessions_lost: entries.map(|p| p.sessions_lost).sum(),
        restarts: restarts(work, operation, &before),
        drops: drops(work, &before),
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
    receipt
}

/// Of the pods that are there, and of those that have gone since the operation looked at them.
fn restarts(work: &Work<'_>, operation: &Operation, before: &Baseline) -> u32 {
    let noted = operation.status.pods.iter();
    let mut by_pod: BTreeMap<String, u32> = noted.map(|(name, p)| (name.clone(), p.restarts)).collect();
    let function = Key::new(meta::namespace(&operation.metadata), &operation.spec.function);
    let pods = work.objects.pods.iter().filter(|(key, pod)| {
        meta::label(&pod.metadata, gantry_api::labels::NF) == Some(&function.name)
            && key.namespace == function.namespace
    });
    by_pod.extend(pods.map(|(key, pod)| {
        let then = before
            .restarts
            .get(meta::uid(&pod.metadata))
            .copied()
            .unwrap_or(0);
        (key.name.clone(), pods::restarts(pod).saturating_sub(then))
    }));
    by_pod.values().sum()
}
