//! Binds claims to the nodes of their first pods, protects those that are in use and lets go of those that go, and says how each is.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimCondition, PersistentVolumeClaimStatus,
};

use super::super::world::{Key, Work};
use super::super::{meta, pods};
use super::obstacle::{full, size_text};
use super::{FINALIZER, SELECTED_NODE, is_going, is_user, key, node, of_pod};

/// Condition of a claim that has more in it than it may have.
const FULL: &str = "gantry.dev/Full";

/// One step for each claim.
pub fn run(work: &mut Work<'_>) {
    let users = users(work);
    for key in work.keys::<PersistentVolumeClaim>() {
        let Some(claim) = work.get::<PersistentVolumeClaim>(&key) else {
            continue;
        };
        let node = users.get(&key);
        if is_going(&claim) {
            if node.is_none() {
                let_go(work, &key);
            }
            continue;
        }
        protect(work, &key, &claim);
        if let (Some(node), None) = (node, super::node(&claim)) {
            bind(work, &key, node);
        }
        show(work, &key);
    }
}

/// Claims that pods use, each with the node of a pod that does: the one that has been there longest.
fn users(work: &Work<'_>) -> BTreeMap<Key, String> {
    let mut users: BTreeMap<Key, (u64, &str)> = BTreeMap::new();
    for pod in work.objects.pods.values().filter(|pod| is_user(pod)) {
        let since = (pods::created_at_ms(pod), pods::node(pod).unwrap_or_default());
        for source in of_pod(pod) {
            let first = users.entry(key(pod, source)).or_insert(since);
            *first = since.min(*first);
        }
    }
    let users = users.into_iter();
    users.map(|(key, (_, node))| (key, node.to_owned())).collect()
}

/// Nobody uses it any more.
fn let_go(work: &mut Work<'_>, key: &Key) {
    let Some(claim) = work.edit::<PersistentVolumeClaim>(key) else {
        return;
    };
    let left = claim.metadata.finalizers.get_or_insert_default();
    left.retain(|f| f != FINALIZER);
    if left.is_empty() {
        work.remove::<PersistentVolumeClaim>(key);
    }
}

/// One that came past the API's defaults, or whose protection somebody took away.
fn protect(work: &mut Work<'_>, key: &Key, claim: &PersistentVolumeClaim) {
    let mut finalizers = claim.metadata.finalizers.iter().flatten();
    if !finalizers.any(|f| f == FINALIZER)
        && let Some(claim) = work.edit::<PersistentVolumeClaim>(key)
    {
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        finalizers.push(FINALIZER.to_owned());
    }
}

/// The volume is named as the provisioners of Kubernetes name theirs.
fn bind(work: &mut Work<'_>, key: &Key, node: &str) {
    let Some(claim) = work.edit::<PersistentVolumeClaim>(key) else {
        return;
    };
    let volume = format!("pvc-{}", meta::uid(&claim.metadata));
    meta::annotate(&mut claim.metadata, SELECTED_NODE, Some(node.to_owned()));
    claim.spec.get_or_insert_default().volume_name = Some(volume.clone());
    let claim = claim.clone();
    let text = format!("Successfully provisioned volume {volume} on node {node}");
    work.tell(&claim, false, "ProvisioningSucceeded", &text);
}

/// Phase, size and condition, wherever they come from.
fn show(work: &mut Work<'_>, key: &Key) {
    let Some(claim) = work.get::<PersistentVolumeClaim>(key) else {
        return;
    };
    let before = claim.status.clone().unwrap_or_default();
    let why = full(work.agents, &claim);
    let mut status = PersistentVolumeClaimStatus {
        conditions: conditions(work, &before, why.as_deref()),
        ..before.clone()
    };
    let bound = node(&claim).is_some();
    status.phase = Some(if bound { "Bound" } else { "Pending" }.to_owned());
    let spec = claim.spec.as_ref();
    let size = spec.and_then(|s| s.resources.as_ref()?.requests.clone());
    status.capacity = size.filter(|_| bound);
    status.access_modes = spec.and_then(|s| s.access_modes.clone()).filter(|_| bound);
    if status == before {
        return;
    }
    let was_full = is_full(&before);
    if let (Some(why), false) = (&why, was_full) {
        let size = size_text(&claim);
        tracing::warn!(claim = %key, size, "more is in the claim than may be");
        work.tell(&*claim, true, "VolumeFull", why);
    }
    if let Some(edited) = work.edit::<PersistentVolumeClaim>(key) {
        edited.status = Some(status);
    }
}

fn is_full(status: &PersistentVolumeClaimStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == FULL && c.status == "True")
}

/// No such condition on a claim that never was full.
fn conditions(
    work: &Work<'_>,
    before: &PersistentVolumeClaimStatus,
    why: Option<&str>,
) -> Option<Vec<PersistentVolumeClaimCondition>> {
    let known = before.conditions.iter().flatten().find(|c| c.type_ == FULL);
    if known.is_none() && why.is_none() {
        return before.conditions.clone();
    }
    let status = if why.is_some() { "True" } else { "False" };
    let same = known.filter(|c| c.status == status);
    let own = PersistentVolumeClaimCondition {
        type_: FULL.to_owned(),
        status: status.to_owned(),
        reason: why.map(|_| "MoreThanItsSize".to_owned()),
        message: why.map(str::to_owned),
        last_transition_time: match same {
            Some(same) => same.last_transition_time.clone(),
            None => Some(meta::time(work.now_ms)),
        },
        ..Default::default()
    };
    let others = before.conditions.iter().flatten().filter(|c| c.type_ != FULL);
    Some(others.cloned().chain([own]).collect())
}
