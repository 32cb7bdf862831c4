//! How large a claim may be: a promise that its node can keep. Without that one who asks for more and more would fill the disk, and
//! others would be evicted for it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::super::world::{Key, Work};
use super::{asked, bytes, bytes_on, granted, node};

/// What a claim that is bound has from now on, and why not what it asks for.
pub(super) fn size(work: &Work<'_>, claim: &PersistentVolumeClaim) -> (Option<Quantity>, Option<String>) {
    let (Some(node), Some(asked), Some(has)) = (node(claim), asked(claim), granted(claim)) else {
        return (None, None);
    };
    let more = bytes(asked).saturating_sub(bytes(has));
    match room(work, node) {
        Some(free) if more > free => {
            let why = format!(
                "it stays at {}: node {node} has {free} bytes left of the {more} more that {} would be",
                has.0, asked.0
            );
            (Some(has.clone()), Some(why))
        }
        _ => (Some(asked.clone()), None),
    }
}

/// Bytes of a node's disk that are promised to nobody; `None`: it says nothing of its disk.
fn room(work: &Work<'_>, node: &str) -> Option<u64> {
    let topology = work.get::<gantry_api::NodeTopology>(&Key::new("", node))?;
    let all = match topology.spec.storage_bytes {
        0 => return None,
        bytes => bytes.saturating_sub(topology.spec.reserved_storage_bytes),
    };
    let placements = work.plan.placements.values().filter(|p| p.node == node);
    let of_pods = placements.flat_map(|p| &p.containers).map(|c| c.storage_bytes);
    let promised = of_pods.fold(bytes_on(&work.objects, node), u64::saturating_add);
    Some(all.saturating_sub(promised))
}
