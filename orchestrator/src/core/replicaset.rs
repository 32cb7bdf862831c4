//! ReplicaSet -> Pods; a pod that is deleted or has ended is replaced.

use std::sync::Arc;

use gantry_api::ObjectMeta;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::births::{self, HeldBack};
use super::world::{Key, Work};
use super::{meta, pods, quarantine};

/// One step of every ReplicaSet.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<ReplicaSet>() {
        let Some(set) = work.get::<ReplicaSet>(&key) else {
            continue;
        };
        let held_back = if set.metadata.deletion_timestamp.is_none() {
            fill(work, &set)
        } else {
            None
        };
        status(work, &key, &set, held_back);
    }
}

fn alive(work: &Work<'_>, set: &ReplicaSet) -> Vec<Arc<Pod>> {
    let mut pods = work.pods_of(&set.metadata);
    pods.retain(|p| !pods::is_stopping(p) && !pods::is_over(p));
    pods
}

/// Makes what is missing and takes down what is too much; why some of it is not made.
fn fill(work: &mut Work<'_>, set: &ReplicaSet) -> Option<HeldBack> {
    let mut have = alive(work, set);
    let want = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    // One that cannot be read may run: nothing is made in its place.
    let unreadable = quarantine::owned(work, "Pod", &set.metadata);
    let missing = want.saturating_sub(have.len() + unreadable);
    let sample = pod(set, &Key::new(meta::namespace(&set.metadata), ""));
    let allowance = births::allowance(work, &set.metadata, &have, missing, &sample.unwrap_or_default());
    for number in 0..allowance.now {
        let pod = births::name(work, &set.metadata, number).and_then(|key| pod(set, &key));
        if let Some(pod) = pod {
            work.create(pod);
        }
    }
    // Not ready first, then the youngest.
    have.sort_by_key(|p| {
        (
            pods::is_ready(p),
            std::cmp::Reverse(p.metadata.creation_timestamp.clone()),
        )
    });
    let surplus = have.len().saturating_sub(want).min(work.limits.pods_a_pass);
    for pod in have.iter().take(surplus) {
        work.retire::<Pod>(&Key::of(&pod.metadata));
    }
    allowance.held_back
}

fn pod(set: &ReplicaSet, key: &Key) -> Option<Pod> {
    let template = set.spec.template.as_ref()?;
    let from = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        labels: from.labels,
        annotations: from.annotations,
        owner_references: Some(vec![meta::owner("apps/v1", "ReplicaSet", &set.metadata)]),
        ..Default::default()
    };
    Some(Pod {
        metadata,
        spec: template.spec.clone(),
        status: None,
    })
}

fn status(work: &mut Work<'_>, key: &Key, set: &ReplicaSet, held_back: Option<HeldBack>) {
    let have = alive(work, set);
    let ready = i32::try_from(have.iter().filter(|p| pods::is_ready(p)).count()).unwrap_or(i32::MAX);
    let replicas = i32::try_from(have.len()).unwrap_or(i32::MAX);
    let now_ms = work.now_ms;
    if let Some(set) = work.edit::<ReplicaSet>(key) {
        let before = set.status.take().unwrap_or_default();
        set.status = Some(ReplicaSetStatus {
            conditions: failure(before.conditions, held_back, now_ms),
            observed_generation: set.metadata.generation,
            replicas,
            ready_replicas: Some(ready),
            available_replicas: Some(ready),
            fully_labeled_replicas: Some(replicas),
            ..before
        });
    }
}

/// The conditions with the one that says why pods are not made; its time moves only when it appears.
fn failure(
    before: Option<Vec<ReplicaSetCondition>>,
    held_back: Option<HeldBack>,
    now_ms: u64,
) -> Option<Vec<ReplicaSetCondition>> {
    let (known, mut conditions): (Vec<_>, Vec<_>) = before
        .unwrap_or_default()
        .into_iter()
        .partition(|c| c.type_.as_deref() == Some(births::CONDITION));
    let since = known.into_iter().find_map(|c| c.last_transition_time);
    conditions.extend(held_back.map(|why| ReplicaSetCondition {
        type_: Some(births::CONDITION.to_owned()),
        status: Some("True".to_owned()),
        reason: Some(why.reason.to_owned()),
        message: Some(why.message),
        last_transition_time: since.or_else(|| Some(meta::time(now_ms))),
    }));
    (!conditions.is_empty()).then_some(conditions)
}
