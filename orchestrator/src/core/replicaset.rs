//! ReplicaSet -> Pods; a pod that is deleted or has ended is replaced.

use std::sync::Arc;

use gantry_api::ObjectMeta;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::world::{Key, Work};
use super::{meta, pods};

/// One step of every ReplicaSet.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<ReplicaSet>() {
        let Some(set) = work.get::<ReplicaSet>(&key) else {
            continue;
        };
        if set.metadata.deletion_timestamp.is_none() {
            fill(work, &set);
        }
        status(work, &key, &set);
    }
}

fn alive(work: &Work<'_>, set: &ReplicaSet) -> Vec<Arc<Pod>> {
    let uid = set.metadata.uid.as_deref();
    let pods = work
        .objects
        .pods
        .values()
        .filter(|p| meta::controller_uid(&p.metadata) == uid);
    pods.filter(|p| !pods::is_stopping(p) && !pods::is_over(p))
        .cloned()
        .collect()
}

fn fill(work: &mut Work<'_>, set: &ReplicaSet) {
    let mut have = alive(work, set);
    let want = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut attempt = 0u64;
    for _ in have.len()..want {
        let key = loop {
            let parts = [
                meta::uid(&set.metadata),
                &work.now_ms.to_string(),
                &attempt.to_string(),
            ];
            attempt += 1;
            let name = format!("{}-{}", meta::name(&set.metadata), &meta::hash(&parts)[..5]);
            let key = Key::new(meta::namespace(&set.metadata), &name);
            if !work.objects.pods.contains_key(&key) {
                break key;
            }
        };
        if let Some(pod) = pod(set, &key) {
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
    for pod in have.iter().take(have.len().saturating_sub(want)) {
        work.retire::<Pod>(&Key::of(&pod.metadata));
    }
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

fn status(work: &mut Work<'_>, key: &Key, set: &ReplicaSet) {
    let have = alive(work, set);
    let ready = i32::try_from(have.iter().filter(|p| pods::is_ready(p)).count()).unwrap_or(i32::MAX);
    let replicas = i32::try_from(have.len()).unwrap_or(i32::MAX);
    if let Some(set) = work.edit::<ReplicaSet>(key) {
        let before = set.status.take().unwrap_or_default();
        set.status = Some(ReplicaSetStatus {
            observed_generation: set.metadata.generation,
            replicas,
            ready_replicas: Some(ready),
            available_replicas: Some(ready),
            fully_labeled_replicas: Some(replicas),
            ..before
        });
    }
}
