//! Binds claims to the nodes of their first pods, protects those that are in use and lets go of those that go, and says how each is.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimCondition, PersistentVolumeClaimStatus,
};

use super::super::world::{Key, Work};
use super::super::{meta, pods};
use super::obstacle::full;
use super::{FINALIZER, SELECTED_NODE, grow, is_going, is_user, key, of_pod};

/// Condition of a claim that has more in it than it may have.
const FULL: &str = "gantry.dev/Full";
/// Of one that is to be larger than its node can promise. Kubernetes calls a failed growth so.
const TOO_LARGE: &str = "ControllerResizeError";

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

/// Phase, size and conditions, wherever they come from.
fn show(work: &mut Work<'_>, key: &Key) {
    let Some(claim) = work.get::<PersistentVolumeClaim>(key) else {
        return;
    };
    let before = claim.status.clone().unwrap_or_default();
    let (size, too_large) = grow::size(work, &claim);
    let flaws = [
        (FULL, "MoreThanItsSize", full(work.agents, &claim)),
        (TOO_LARGE, "NoRoom", too_large),
    ];
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.clone());
    let status = PersistentVolumeClaimStatus {
        phase: Some(if size.is_some() { "Bound" } else { "Pending" }.to_owned()),
        access_modes: modes.filter(|_| size.is_some()),
        capacity: size.map(|size| [("storage".to_owned(), size)].into()),
        conditions: conditions(work, &before, &flaws),
        ..before.clone()
    };
    if status == before {
        return;
    }
    for (condition, reason, why) in &flaws {
        if let (Some(why), false) = (why, is_true(&before, condition)) {
            tracing::warn!(claim = %key, reason, why);
            work.tell(&*claim, true, reason, why);
        }
    }
    if let Some(edited) = work.edit::<PersistentVolumeClaim>(key) {
        edited.status = Some(status);
    }
}

fn is_true(status: &PersistentVolumeClaimStatus, condition: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == condition && c.status == "True")
}

/// Type of a condition, its reason, and why, if it holds.
type Flaw = (&'static str, &'static str, Option<String>);

/// No such condition on a claim that never had it.
fn conditions(
    work: &Work<'_>,
    before: &PersistentVolumeClaimStatus,
    flaws: &[Flaw],
) -> Option<Vec<PersistentVolumeClaimCondition>> {
    let mut all = before.conditions.clone().unwrap_or_default();
    for (condition, reason, why) in flaws {
        let known = all.iter().position(|c| c.type_ == *condition);
        if known.is_none() && why.is_none() {
            continue;
        }
        let status = if why.is_some() { "True" } else { "False" };
        let mut now = PersistentVolumeClaimCondition {
            type_: (*condition).to_owned(),
            status: status.to_owned(),
            reason: why.as_ref().map(|_| (*reason).to_owned()),
            message: why.clone(),
            last_transition_time: Some(meta::time(work.now_ms)),
            ..Default::default()
        };
        match known {
            Some(at) => {
                if all[at].status == status {
                    now.last_transition_time.clone_from(&all[at].last_transition_time);
                }
                all[at] = now;
            }
            None => all.push(now),
        }
    }
    (!all.is_empty()).then_some(all)
}
