//! Objects whose controller is gone go too; finished operations, and pods that have ended, beyond the newest few as well.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{NetworkFunction, ObjectMeta, Operation, OperationPhase};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::world::{Key, Kinded, Work};
use super::{meta, pods, quarantine};

/// Finished operations kept for each function.
const OPERATIONS_KEPT: usize = 20;

/// Pods that have ended (evicted, mostly) kept for each owner, for their logs and reasons.
const ENDED_KEPT: usize = 10;

/// Kinds whose objects own others, with their API group. An owner of another kind is not looked for, and counts as alive.
const OWNERS: &[(&str, &str)] = &[
    ("gantry.dev", "NetworkService"),
    ("gantry.dev", "NetworkFunction"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("", "Service"),
    ("", "Pod"),
];

/// Removes what has lost its owner.
pub fn run(work: &mut Work<'_>) {
    let mut alive = owners(work);
    orphans::<NetworkFunction>(work, &mut alive);
    orphans::<ReplicaSet>(work, &mut alive);
    orphans::<Service>(work, &mut alive);
    orphans::<ConfigMap>(work, &mut alive);
    orphans::<EndpointSlice>(work, &mut alive);
    orphans::<PersistentVolumeClaim>(work, &mut alive);
    orphans::<Pod>(work, &mut alive);
    old_operations(work);
    old_ends(work);
}

fn orphans<T: Kinded>(work: &mut Work<'_>, alive: &mut Alive) {
    let table = T::table(&work.objects).iter();
    let lost = table.filter(|(_, o)| {
        let goes = o.meta().deletion_timestamp.is_some();
        let lives = |(namespace, uid)| alive.get(namespace).is_some_and(|uids| uids.contains(uid));
        let is_lost = owner(o.meta()).is_some_and(|owner| !lives(owner));
        !goes && is_lost && !quarantine::is_owner(work, o.meta())
    });
    let lost: Vec<(Key, String)> = lost
        .map(|(key, o)| (key.clone(), meta::uid(o.meta()).to_owned()))
        .take(work.limits.pods_a_pass)
        .collect();
    for (key, uid) in lost {
        work.at.object(T::KIND, &key);
        work.retire::<T>(&key);
        // What lingers still is an owner.
        if !T::table(&work.objects).contains_key(&key)
            && let Some(uids) = alive.get_mut(&key.namespace)
        {
            uids.remove(&uid);
        }
    }
}

/// The controller, if it is of a kind that is looked for.
fn owner(meta: &ObjectMeta) -> Option<meta::Owner<'_>> {
    let owners = meta.owner_references.as_ref()?;
    let controller = owners.iter().find(|o| o.controller == Some(true))?;
    let group = controller
        .api_version
        .split_once('/')
        .map_or("", |(group, _)| group);
    OWNERS
        .contains(&(group, controller.kind.as_str()))
        .then(|| (meta::namespace(meta), controller.uid.as_str()))
}

/// Uids by namespace.
type Alive = BTreeMap<String, BTreeSet<String>>;

/// All objects of the [`OWNERS`]' kinds.
fn owners(work: &Work<'_>) -> Alive {
    let o = &work.objects;
    let metas = o.network_services.values().map(|x| &x.metadata);
    let metas = metas.chain(o.functions.values().map(|x| &x.metadata));
    let metas = metas.chain(o.deployments.values().map(|x| &x.metadata));
    let metas = metas.chain(o.replica_sets.values().map(|x| &x.metadata));
    let metas = metas.chain(o.services.values().map(|x| &x.metadata));
    let metas = metas.chain(o.pods.values().map(|x| &x.metadata));
    let mut alive = Alive::new();
    for m in metas {
        let uids = alive.entry(meta::namespace(m).to_owned()).or_default();
        uids.insert(meta::uid(m).to_owned());
    }
    alive
}

fn old_operations(work: &mut Work<'_>) {
    let mut finished: BTreeMap<Key, Vec<(u64, Key)>> = BTreeMap::new();
    for (key, operation) in &work.objects.operations {
        if operation.status.phase != OperationPhase::Running {
            let function = Key::new(&key.namespace, &operation.spec.function);
            let list = finished.entry(function).or_default();
            list.push((operation.status.started_at_ms, key.clone()));
        }
    }
    for key in surplus(finished, OPERATIONS_KEPT) {
        work.retire::<Operation>(&key);
    }
}

fn old_ends(work: &mut Work<'_>) {
    let mut ended: BTreeMap<meta::Owner<'_>, Vec<(u64, Key)>> = BTreeMap::new();
    for (key, pod) in &work.objects.pods {
        if let Some(owner) = owner(&pod.metadata)
            && pods::is_over(pod)
            && !pods::is_stopping(pod)
        {
            let list = ended.entry(owner).or_default();
            list.push((pods::created_at_ms(pod), key.clone()));
        }
    }
    for key in surplus(ended, ENDED_KEPT) {
        work.retire::<Pod>(&key);
    }
}

/// All but the newest `kept` of each list.
fn surplus<T>(lists: BTreeMap<T, Vec<(u64, Key)>>, kept: usize) -> Vec<Key> {
    let mut old = Vec::new();
    for mut list in lists.into_values() {
        list.sort();
        list.truncate(list.len().saturating_sub(kept));
        old.extend(list.into_iter().map(|(_, key)| key));
    }
    old
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::lab::Lab;
    use super::super::world::{Object, Settings, World};
    use super::*;

    #[test]
    fn only_what_an_owner_that_can_be_looked_for_has_left_goes() {
        let mut world = World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        });
        for (name, api_version, kind) in [
            ("gone", "apps/v1", "ReplicaSet"),
            ("foreign", "serving.knative.dev/v1", "Service"),
            ("unknown", "batch/v1", "Job"),
        ] {
            let owner =
                json!({"apiVersion": api_version, "kind": kind, "name": "o", "uid": "o", "controller": true});
            let map = json!({"metadata": {"name": name, "namespace": "default", "ownerReferences": [owner]}});
            let map = serde_json::from_value(map).unwrap();
            world.objects.put(Object::ConfigMap(Arc::new(map)));
        }
        let mut work = Work::new(&world, 0);
        run(&mut work);
        let left: Vec<&str> = work.objects.config_maps.keys().map(|k| k.name.as_str()).collect();
        assert_eq!(left, ["foreign", "unknown"]);
    }

    #[test]
    fn what_names_an_owner_in_another_namespace_is_nobodys_and_counts_for_nobody() {
        let mut lab = Lab::new(&["n"]);
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "o", "controller": true});
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let set = json!({"metadata": {"name": "o", "namespace": "mine", "uid": "o"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
        let set = serde_json::from_value(set).unwrap();
        lab.world.objects.put(Object::ReplicaSet(Arc::new(set)));
        lab.settle();
        lab.run_for(1_000);
        let pods = |lab: &Lab| -> Vec<Key> { lab.world.objects.pods.keys().cloned().collect() };
        let mine = pods(&lab);
        assert_eq!(mine.len(), 1);
        // Older, and as good as the one that is there.
        let metadata = json!({"name": "x", "namespace": "other", "uid": "0000000x", "labels": {"a": "b"},
            "ownerReferences": [owner], "creationTimestamp": "1970-01-01T00:00:01Z"});
        let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        lab.world.objects.put(Object::Pod(Arc::new(pod)));
        lab.settle();
        lab.run_for(1_000);
        assert_eq!(pods(&lab), mine);
    }

    #[test]
    fn an_owner_keeps_the_newest_of_its_pods_that_have_ended() {
        let mut lab = Lab::new(&[]);
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "o", "controller": true});
        let set = json!({"metadata": {"name": "o", "namespace": "default", "uid": "o"}, "spec": {"replicas": 0, "selector": {}}});
        let set = serde_json::from_value(set).unwrap();
        lab.world.objects.put(Object::ReplicaSet(Arc::new(set)));
        let seconds = 10..10 + ENDED_KEPT + 5;
        for second in seconds.clone() {
            let metadata = json!({"name": format!("p{second}"), "namespace": "default", "ownerReferences": [owner],
                "creationTimestamp": format!("2026-01-01T00:00:{second}Z")});
            let pod =
                json!({"metadata": metadata, "spec": {"containers": []}, "status": {"phase": "Failed"}});
            let pod = serde_json::from_value(pod).unwrap();
            lab.world.objects.put(Object::Pod(Arc::new(pod)));
        }
        lab.settle();
        let left: Vec<&str> = lab.world.objects.pods.keys().map(|k| k.name.as_str()).collect();
        let newest: Vec<String> = seconds.skip(5).map(|second| format!("p{second}")).collect();
        assert_eq!(left, newest);
    }
}
