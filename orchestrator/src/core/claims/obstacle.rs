//! What the planner is told of a pod's claims: where they are, or why the pod can have no place at all.

use gantry_plan::VolumeRequest;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::super::agents::Agents;
use super::super::meta;
use super::super::quarantine::Quarantine;
use super::super::world::Objects;
use super::{granted, is_exclusive, is_going, key, node, of_pod, size_bytes};

/// The volumes of a pod that are on a node's disk, or will be.
pub fn requests(objects: &Objects, pod: &Pod) -> Vec<VolumeRequest> {
    let claims = of_pod(pod).filter_map(|source| objects.claims.get(&key(pod, source)));
    claims
        .map(|claim| VolumeRequest {
            key: meta::uid(&claim.metadata).to_owned(),
            name: called(meta::name(&claim.metadata)),
            node: node(claim).map(str::to_owned),
            exclusive: is_exclusive(claim),
            bytes: size_bytes(claim),
        })
        .collect()
}

/// Why a pod can have no place, in the words of Kubernetes where it has some.
pub fn obstacle(objects: &Objects, quarantine: &Quarantine, agents: &Agents, pod: &Pod) -> Option<String> {
    of_pod(pod).find_map(|source| {
        let (key, name) = (key(pod, source), called(&source.claim_name));
        if quarantine.contains_key(&("PersistentVolumeClaim", key.clone())) {
            return Some(format!("{name} cannot be read"));
        }
        match objects.claims.get(&key) {
            None => Some(format!("{name} not found")),
            Some(claim) if is_going(claim) => Some(format!("{name} is being deleted")),
            Some(claim) => full(agents, claim).map(|why| format!("{name} is full: {why}")),
        }
    })
}

/// Why no pod begins with a claim, if more is in it than may be, as its node last counted.
pub(super) fn full(agents: &Agents, claim: &PersistentVolumeClaim) -> Option<String> {
    let report = agents.get(node(claim)?)?.status.as_ref()?;
    let found = *report.full_claims.get(meta::uid(&claim.metadata))?;
    // It has grown since.
    if found <= size_bytes(claim) {
        return None;
    }
    let size = granted(claim).map_or("0", |q| q.0.as_str());
    Some(format!(
        "more is in it than its size {size}; no pod begins with it until it has grown or been emptied"
    ))
}

fn called(name: &str) -> String {
    format!("persistentvolumeclaim {name:?}")
}
