//! How many pods may be made for an owner now, and their names. One owner never fills the store, however many it asks for.

use std::sync::Arc;

use gantry_api::ObjectMeta;
use k8s_openapi::api::core::v1::Pod;

use super::world::{Key, Work};
use super::{crowd, group, meta, quarantine};
use crate::podsecurity::{self, Level, Mode, Policy};

/// Condition of an owner whose pods are not all made (Kubernetes' ReplicaSets and Deployments have it too).
pub const CONDITION: &str = "ReplicaFailure";
/// Its reason while there is no room for more.
pub const TOO_MANY: &str = "TooManyWaiting";
/// Its reason where the namespace does not take such pods.
pub const REFUSED: &str = "FailedCreate";

/// Characters of the owner's name in a pod's (Kubernetes' generated names keep as many).
const BASE_CHARS: usize = 58;
/// Digits of the suffix; one more while the name is taken.
const SUFFIX_DIGITS: usize = 5;

/// Why pods are not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// One CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What an owner may have now.
pub struct Allowance {
    /// So many pods are to be made.
    pub now: usize,
    /// Why others are not, if some are held back until there is room.
    pub held_back: Option<HeldBack>,
}

/// How many of `missing` pods like `pod` are made for an owner that has `owned` ones.
pub fn allowance(
    work: &Work<'_>,
    owner: &ObjectMeta,
    owned: &[Arc<Pod>],
    missing: usize,
    pod: &Pod,
) -> Allowance {
    let (limits, namespace) = (work.limits, meta::namespace(owner));
    if missing > 0
        && let Some(message) = refusal(work, namespace, pod)
    {
        let reason = REFUSED;
        return Allowance {
            now: 0,
            held_back: Some(HeldBack { reason, message }),
        };
    }
    // One that cannot be read may wait too.
    let unreadable = quarantine::owned(work, "Pod", owner);
    let waiting = unreadable + owned.iter().filter(|p| crowd::waits(p)).count();
    let group = group::of(&work.objects, namespace);
    let of_owner = limits.waiting_of_owner.saturating_sub(waiting);
    let of_group = limits
        .waiting_of_group
        .saturating_sub(work.crowds.waiting_of(&group));
    let room = of_owner.min(of_group);
    // The rest of what fits into the bound is made in the next passes.
    let held_back = (missing > room).then(|| {
        let left = missing - room;
        let message = if of_owner <= of_group {
            let most = limits.waiting_of_owner;
            format!(
                "{left} more pods are not made while {most} of its own wait for a place: make room, or ask for fewer"
            )
        } else {
            let most = limits.waiting_of_group;
            format!(
                "{left} more pods are not made while {most} of {group} wait for a place: make room, or ask for fewer"
            )
        };
        let reason = TOO_MANY;
        HeldBack { reason, message }
    });
    Allowance {
        now: missing.min(room).min(limits.pods_a_pass),
        held_back,
    }
}

/// Why the owner's namespace does not take such a pod, in Kubernetes' words: the API asks the same of pods that users make.
fn refusal(work: &Work<'_>, namespace: &str, pod: &Pod) -> Option<String> {
    let key = Key::new("", namespace);
    if quarantine::has(work, "Namespace", &key) {
        return Some(format!(
            "namespace {namespace} cannot be read, and with it what its pods may do"
        ));
    }
    let metadata = &work.objects.namespaces.get(&key)?.metadata;
    let forbidden = |why: &str| Some(format!("pods \"{}-\" is forbidden: {why}", owner_name(pod)));
    if metadata.deletion_timestamp.is_some() {
        return forbidden(&format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        ));
    }
    let labels = serde_json::to_value(metadata.labels.as_ref()?).ok()?;
    if !work.limits.pod_security || Policy::of(&labels, Mode::Enforce).level == Level::Privileged {
        return None;
    }
    forbidden(&podsecurity::judge("Pod", &serde_json::to_value(pod).ok()?, &labels).refusal?)
}

fn owner_name(pod: &Pod) -> &str {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners.first().map_or("", |owner| owner.name.as_str())
}

/// A free name for an owner's pod. `number` tells apart those of one pass.
pub fn name(work: &Work<'_>, owner: &ObjectMeta, number: usize) -> Option<Key> {
    let parts = [meta::uid(owner), &work.now_ms.to_string(), &number.to_string()];
    let digits = meta::hash(&parts);
    let base: String = meta::name(owner).chars().take(BASE_CHARS).collect();
    let longer = (SUFFIX_DIGITS..=digits.len()).map(|count| {
        let name = format!("{base}-{}", &digits[..count]);
        Key::new(meta::namespace(owner), &name)
    });
    longer
        .into_iter()
        .find(|key| !work.objects.pods.contains_key(key) && !quarantine::has(work, "Pod", key))
}

#[cfg(test)]
mod tests {
    use super::super::lab::Lab;
    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_longer() {
        let lab = Lab::new(&[]);
        let mut work = Work::new(&lab.world, 1);
        let owner = ObjectMeta {
            name: Some("x".repeat(100)),
            namespace: Some("default".to_owned()),
            uid: Some("u".to_owned()),
            ..Default::default()
        };
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let key = name(&work, &owner, 0).unwrap();
            lengths.push(key.name.len());
            let metadata = ObjectMeta {
                name: Some(key.name),
                namespace: Some(key.namespace),
                ..Default::default()
            };
            work.create(Pod {
                metadata,
                ..Default::default()
            });
        }
        assert_eq!(lengths, [64, 65, 66]);
    }
}
