//! Objects whose controller is gone go too; finished operations beyond the newest few as well.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{NetworkFunction, Operation, OperationPhase};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::meta;
use super::world::{Key, Kinded, Work};

/// Finished operations kept for each function.
const OPERATIONS_KEPT: usize = 20;

/// Removes what has lost its owner.
pub fn run(work: &mut Work<'_>) {
    orphans::<NetworkFunction>(work);
    orphans::<ReplicaSet>(work);
    orphans::<Service>(work);
    orphans::<ConfigMap>(work);
    orphans::<EndpointSlice>(work);
    orphans::<Pod>(work);
    old_operations(work);
}

fn orphans<T: Kinded>(work: &mut Work<'_>) {
    let alive = owners(work);
    let table = T::table(&work.objects).iter();
    let lost = table.filter(|(_, o)| meta::controller_uid(o.meta()).is_some_and(|uid| !alive.contains(uid)));
    let lost: Vec<Key> = lost.map(|(key, _)| key.clone()).collect();
    lost.iter().for_each(|key| work.retire::<T>(key));
}

fn owners(work: &Work<'_>) -> BTreeSet<String> {
    let o = &work.objects;
    let metas = o.network_services.values().map(|x| &x.metadata);
    let metas = metas.chain(o.functions.values().map(|x| &x.metadata));
    let metas = metas.chain(o.deployments.values().map(|x| &x.metadata));
    let metas = metas.chain(o.replica_sets.values().map(|x| &x.metadata));
    let metas = metas.chain(o.services.values().map(|x| &x.metadata));
    let metas = metas.chain(o.pods.values().map(|x| &x.metadata));
    metas.map(|m| meta::uid(m).to_owned()).collect()
}

fn old_operations(work: &mut Work<'_>) {
    let mut finished: BTreeMap<Key, Vec<(u64, Key)>> = BTreeMap::new();
    for (key, operation) in &work.objects.operations {
        if operation.status.phase != OperationPhase::Running {
            let function = Key::new(&key.namespace, &operation.spec.function);
            finished
                .entry(function)
                .or_default()
                .push((operation.status.started_at_ms, key.clone()));
        }
    }
    for list in finished.values_mut() {
        list.sort();
        let surplus = list.len().saturating_sub(OPERATIONS_KEPT);
        list.iter()
            .take(surplus)
            .for_each(|(_, key)| work.remove::<Operation>(key));
    }
}
