//! What a node is told of claims: those that it keeps, and which of them a pod's volume is.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{ClaimConfig, ClaimId, NodeConfig, PodConfig, Volume};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod};

use super::super::world::{Key, Work};
use super::super::{meta, pods, quarantine};
use super::{key, node, size_bytes};

/// Those that are bound to a node, by id.
pub fn on_node(work: &Work<'_>, node_name: &str) -> BTreeMap<ClaimId, ClaimConfig> {
    let here = work.objects.claims.iter();
    let here = here.filter(|(_, claim)| node(claim) == Some(node_name));
    here.map(|(key, claim)| (meta::uid(&claim.metadata).to_owned(), config(key, claim)))
        .collect()
}

fn config(key: &Key, claim: &PersistentVolumeClaim) -> ClaimConfig {
    ClaimConfig {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        size_bytes: size_bytes(claim),
    }
}

/// Those of pods that the node has, as it was last told: whoever takes the object away takes nothing from under a pod.
pub fn of_pods<'a>(
    last: Option<&NodeConfig>,
    pods: impl Iterator<Item = &'a PodConfig>,
) -> BTreeMap<ClaimId, ClaimConfig> {
    let Some(known) = last.and_then(|last| last.claims.as_ref()) else {
        return BTreeMap::new();
    };
    let ids = pods.flat_map(PodConfig::claims);
    ids.filter_map(|id| Some((id.clone(), known.get(id)?.clone())))
        .collect()
}

/// Claims that cannot be read stay listed.
pub fn keep(work: &Work<'_>, last: &NodeConfig, content: &mut NodeConfig) {
    let known = last.claims.iter().flatten();
    let unreadable = known.filter(|(_, claim)| {
        let key = Key::new(&claim.namespace, &claim.name);
        quarantine::has(work, "PersistentVolumeClaim", &key)
    });
    let unreadable: Vec<_> = unreadable
        .map(|(id, claim)| (id.clone(), claim.clone()))
        .collect();
    content.claims.get_or_insert_default().extend(unreadable);
}

/// A pod's volume; in words what is missing.
pub fn volume(
    work: &Work<'_>,
    pod: &Pod,
    source: &PersistentVolumeClaimVolumeSource,
) -> Result<Volume, String> {
    let (key, name) = (key(pod, source), &source.claim_name);
    let Some(claim) = work.objects.claims.get(&key) else {
        return Err(match quarantine::has(work, "PersistentVolumeClaim", &key) {
            true => format!("persistentvolumeclaim {name:?} cannot be read"),
            false => format!("persistentvolumeclaim {name:?} not found"),
        });
    };
    match node(claim) {
        Some(at) if pods::node(pod) == Some(at) => Ok(Volume::Claim {
            id: meta::uid(&claim.metadata).to_owned(),
            read_only: source.read_only == Some(true),
        }),
        Some(at) => Err(format!(
            "persistentvolumeclaim {name:?} is on the disk of node {at}, and the pod is not there"
        )),
        None => Err(format!("persistentvolumeclaim {name:?} is not bound yet")),
    }
}
