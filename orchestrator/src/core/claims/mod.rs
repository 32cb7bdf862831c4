//! PersistentVolumeClaims: a claim is a directory on the disk of the node that the first pod with it got its place on. From then on
//! its pods go there. It is protected while a pod uses it, and goes with it when it does.

mod grow;
mod node;
mod obstacle;
mod settle;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::world::{Key, Objects};
use super::{meta, pods, schedule};
use crate::quantity;

pub(super) use node::{keep, of_pods, on_node, volume};
pub(super) use obstacle::{obstacle, requests};
pub(super) use settle::run;

/// Annotation: the node that has it. The scheduler of Kubernetes uses the same.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Holds a claim that is being deleted while a pod uses it.
pub const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// What a pod's volumes claim.
pub(super) fn of_pod(pod: &Pod) -> impl Iterator<Item = &PersistentVolumeClaimVolumeSource> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| v.persistent_volume_claim.as_ref())
}

/// The key of a claim of the pod's.
fn key(pod: &Pod, source: &PersistentVolumeClaimVolumeSource) -> Key {
    Key::new(meta::namespace(&pod.metadata), &source.claim_name)
}

/// The node that it is on, once it is bound.
pub(super) fn node(claim: &PersistentVolumeClaim) -> Option<&str> {
    let spec = claim.spec.as_ref()?;
    spec.volume_name.as_deref().filter(|name| !name.is_empty())?;
    meta::annotation(&claim.metadata, SELECTED_NODE)
}

/// What is asked for.
fn asked(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    resources.requests.as_ref()?.get("storage")
}

/// What it has: what was asked for when it was bound, or later where its node had the room.
fn granted(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    let capacity = || claim.status.as_ref()?.capacity.as_ref()?.get("storage");
    node(claim).and_then(|_| capacity()).or_else(|| asked(claim))
}

fn bytes(quantity: &Quantity) -> u64 {
    quantity::units(&quantity.0).unwrap_or(0)
}

/// Bytes that may be in it.
pub(super) fn size_bytes(claim: &PersistentVolumeClaim) -> u64 {
    granted(claim).map_or(0, bytes)
}

/// What all claims on a node may have in them, in bytes.
pub(super) fn bytes_on(objects: &Objects, node_name: &str) -> u64 {
    let here = objects.claims.values().filter(|c| node(c) == Some(node_name));
    here.fold(0, |sum, c| sum.saturating_add(size_bytes(c)))
}

fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
}

fn is_going(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
}

/// It has a place, and has not ended: what it claims is in use. In Kubernetes too a pod without a place protects nothing.
fn is_user(pod: &Pod) -> bool {
    !schedule::waits(pod) && !pods::is_over(pod)
}
