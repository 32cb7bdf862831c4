//! Deployment -> a ReplicaSet for each pod template; a rolling update that never has fewer ready pods than asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::ObjectMeta;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::world::{Key, Work};
use super::{births, meta, quarantine};

/// Label that tells the templates of one Deployment apart.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// One step of every Deployment.
pub fn run(work: &mut Work<'_>) {
    for key in work.keys::<Deployment>() {
        let Some(deployment) = work.get::<Deployment>(&key) else {
            continue;
        };
        // With a set that cannot be read nobody knows how many pods there are.
        let is_known = quarantine::owned(work, "ReplicaSet", &deployment.metadata) == 0;
        let goes = deployment.metadata.deletion_timestamp.is_some();
        if is_known && !goes && deployment.spec.paused != Some(true) {
            roll(work, &deployment);
        }
        status(work, &key, &deployment);
    }
}

fn owned(work: &Work<'_>, deployment: &Deployment) -> Vec<(Key, Arc<ReplicaSet>)> {
    let uid = deployment.metadata.uid.as_deref();
    let sets = work.objects.replica_sets.iter();
    sets.filter(|(_, s)| meta::controller_uid(&s.metadata) == uid)
        .map(|(k, s)| (k.clone(), s.clone()))
        .collect()
}

fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

fn asked(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(0)
}

fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
}

fn roll(work: &mut Work<'_>, deployment: &Deployment) {
    let current = ensure_set(work, deployment);
    let want = wanted(deployment);
    let others: Vec<_> = owned(work, deployment)
        .into_iter()
        .filter(|(key, _)| *key != current)
        .collect();
    let old = others.iter().map(|(_, s)| asked(s)).fold(0, i32::saturating_add);
    let Some(set) = work.get::<ReplicaSet>(&current) else {
        return;
    };
    // At most one pod more than wanted; an old one goes for each new one that is ready.
    let target = want
        .saturating_add(1)
        .saturating_sub(old)
        .clamp(0, want)
        .max(asked(&set).min(want));
    set_replicas(work, &current, if old == 0 { want } else { target });
    let mut surplus = old.saturating_sub(want - ready(&set).min(want));
    for (key, other) in others {
        let drop = surplus.clamp(0, asked(&other));
        surplus -= drop;
        set_replicas(work, &key, asked(&other) - drop);
        if asked(&other) == 0
            && other.status.as_ref().is_some_and(|s| s.replicas == 0)
            && keep_limit_reached(work, deployment)
        {
            work.remove::<ReplicaSet>(&key);
        }
    }
}

fn keep_limit_reached(work: &Work<'_>, deployment: &Deployment) -> bool {
    let limit = deployment.spec.revision_history_limit.unwrap_or(10);
    owned(work, deployment).len() > usize::try_from(limit).unwrap_or(0) + 1
}

fn set_replicas(work: &mut Work<'_>, key: &Key, count: i32) {
    if let Some(set) = work.edit::<ReplicaSet>(key) {
        set.spec.replicas = Some(count);
    }
}

fn ensure_set(work: &mut Work<'_>, deployment: &Deployment) -> Key {
    let spec = &deployment.spec;
    let text = serde_json::to_string(&spec.template).expect("plain data has a JSON form");
    let hash = meta::hash(&[&text])[..10].to_owned();
    let key = Key::new(
        meta::namespace(&deployment.metadata),
        &format!("{}-{hash}", meta::name(&deployment.metadata)),
    );
    if work.objects.replica_sets.contains_key(&key) {
        return key;
    }
    let mut template = spec.template.clone();
    let with_hash = |labels: &mut Option<BTreeMap<String, String>>| {
        labels
            .get_or_insert_default()
            .insert(TEMPLATE_HASH.to_owned(), hash.clone());
    };
    let mut selector = spec.selector.clone();
    with_hash(&mut selector.match_labels);
    let template_meta = template.metadata.get_or_insert_default();
    with_hash(&mut template_meta.labels);
    let metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        labels: template_meta.labels.clone(),
        owner_references: Some(vec![meta::owner("apps/v1", "Deployment", &deployment.metadata)]),
        ..Default::default()
    };
    let spec = ReplicaSetSpec {
        replicas: Some(0),
        selector: LabelSelector {
            match_labels: selector.match_labels,
            match_expressions: None,
        },
        template: Some(template),
        ..Default::default()
    };
    work.create(ReplicaSet {
        metadata,
        spec,
        status: None,
    })
}

fn status(work: &mut Work<'_>, key: &Key, deployment: &Deployment) {
    let sets = owned(work, deployment);
    let sum =
        |pick: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(|(_, s)| pick(s)).fold(0, i32::saturating_add);
    let replicas = sum(&|s| s.status.as_ref().map_or(0, |s| s.replicas));
    let ready_replicas = sum(&ready);
    let current = sets
        .iter()
        .find(|(_, s)| asked(s) > 0 && is_current(s, deployment));
    let updated = current
        .and_then(|(_, s)| s.status.as_ref())
        .map_or(0, |s| s.replicas);
    let failure = sets.iter().find_map(|(_, s)| failure(s));
    if let Some(deployment) = work.edit::<Deployment>(key) {
        let want = wanted(deployment);
        let before = deployment.status.take().unwrap_or_default();
        let mut conditions = before.conditions.unwrap_or_default();
        conditions.retain(|c| c.type_.as_deref() != Some(births::CONDITION));
        conditions.extend(failure);
        deployment.status = Some(DeploymentStatus {
            conditions: (!conditions.is_empty()).then_some(conditions),
            observed_generation: deployment.metadata.generation,
            replicas: Some(replicas),
            ready_replicas: Some(ready_replicas),
            available_replicas: Some(ready_replicas),
            updated_replicas: Some(updated),
            unavailable_replicas: Some((want - ready_replicas).max(0)),
            ..before
        });
    }
}

/// The condition of a set whose pods are not all made, as the Deployment's own.
fn failure(set: &ReplicaSet) -> Option<DeploymentCondition> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|c| c.type_.as_deref() == Some(births::CONDITION))?;
    Some(DeploymentCondition {
        type_: found.type_.clone(),
        status: found.status.clone(),
        reason: found.reason.clone(),
        message: found.message.clone(),
        last_transition_time: found.last_transition_time.clone(),
        last_update_time: found.last_transition_time.clone(),
    })
}

fn is_current(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let text = serde_json::to_string(&deployment.spec.template).expect("plain data has a JSON form");
    meta::label(&set.metadata, TEMPLATE_HASH) == Some(&meta::hash(&[&text])[..10])
}
