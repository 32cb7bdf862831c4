//! Deployment -> a ReplicaSet for each pod template; a rolling update that never has fewer ready pods than asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::ObjectMeta;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::world::{Key, Work};
use super::{births, deployment_condition, meta, quarantine, revision};

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
        let current = current(work, &deployment);
        if is_known && !goes && deployment.spec.paused != Some(true) {
            roll(work, &deployment, &current);
        }
        status(work, &key, &deployment, &current, is_known);
    }
}

fn owned(work: &Work<'_>, deployment: &Deployment) -> Vec<(Key, Arc<ReplicaSet>)> {
    let sets = work.objects.replica_sets.iter();
    sets.filter(|(_, s)| meta::controls(&deployment.metadata, &s.metadata))
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

/// Where the ReplicaSet of the current template is, or is to be.
fn current(work: &Work<'_>, deployment: &Deployment) -> Key {
    let metadata = &deployment.metadata;
    let text = serde_json::to_string(&deployment.spec.template).expect("plain data has a JSON form");
    let name = format!("{}-{}", meta::name(metadata), &meta::hash(&[&text])[..10]);
    let key = Key::new(meta::namespace(metadata), &name);
    if work.objects.replica_sets.contains_key(&key) {
        return key;
    }
    let mut sets = owned(work, deployment).into_iter();
    sets.find(|(_, set)| revision::is_of(set, deployment, TEMPLATE_HASH))
        .map_or(key, |(key, _)| key)
}

fn roll(work: &mut Work<'_>, deployment: &Deployment, current: &Key) {
    ensure_set(work, deployment, current);
    let want = wanted(deployment);
    let mut others = owned(work, deployment);
    others.retain(|(key, _)| key != current);
    revision::number(work, deployment, current, &others);
    // The oldest go first.
    others.sort_by_key(|(_, set)| revision::of(&set.metadata));
    let old = others.iter().map(|(_, s)| asked(s)).fold(0, i32::saturating_add);
    let Some(set) = work.get::<ReplicaSet>(current) else {
        return;
    };
    // At most one pod more than wanted; an old one goes for each new one that is ready.
    let target = want
        .saturating_add(1)
        .saturating_sub(old)
        .clamp(0, want)
        .max(asked(&set).min(want));
    set_replicas(work, current, if old == 0 { want } else { target });
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

fn ensure_set(work: &mut Work<'_>, deployment: &Deployment, key: &Key) {
    if work.objects.replica_sets.contains_key(key) {
        return;
    }
    let spec = &deployment.spec;
    let hash = key.name.rsplit('-').next().unwrap_or_default().to_owned();
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
    });
}

fn status(work: &mut Work<'_>, key: &Key, deployment: &Deployment, current: &Key, is_known: bool) {
    let sets = owned(work, deployment);
    let sum =
        |pick: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(|(_, s)| pick(s)).fold(0, i32::saturating_add);
    let replicas = sum(&|s| s.status.as_ref().map_or(0, |s| s.replicas));
    let ready_replicas = sum(&ready);
    let set = sets.iter().find(|(key, _)| key == current);
    let updated = set
        .filter(|(_, s)| asked(s) > 0)
        .and_then(|(_, s)| s.status.as_ref())
        .map_or(0, |s| s.replicas);
    let set = set.map(|(key, _)| key.name.as_str());
    let failure = sets.iter().find_map(|(_, s)| failure(s));
    let now_ms = work.now_ms;
    if let Some(deployment) = work.edit::<Deployment>(key) {
        let want = wanted(deployment);
        let mut before = deployment.status.take().unwrap_or_default();
        let mut conditions = before.conditions.take().unwrap_or_default();
        let mut after = DeploymentStatus {
            observed_generation: deployment.metadata.generation,
            replicas: Some(replicas),
            ready_replicas: Some(ready_replicas),
            available_replicas: Some(ready_replicas),
            updated_replicas: Some(updated),
            unavailable_replicas: Some((want - ready_replicas).max(0)),
            ..before.clone()
        };
        if is_known {
            let numbers = (&before, &after);
            deployment_condition::update(&mut conditions, deployment, set, numbers, now_ms);
        }
        conditions.retain(|c| c.type_.as_deref() != Some(births::CONDITION));
        // What is in the way is said first.
        conditions.splice(0..0, failure);
        after.conditions = (!conditions.is_empty()).then_some(conditions);
        deployment.status = Some(after);
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
