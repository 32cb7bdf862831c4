//! A function that is deleted: its pods first, then all else that it owns, then itself.

use std::sync::Arc;

use gantry_api::{NetworkFunction, NfPackage};
use gantry_catalog::Waits;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};

use super::super::world::{Key, Work};
use super::super::{meta, pods, quarantine};
use super::template::waits_for;
use super::{FINALIZER, package_key};

/// Annotation on a function: `drain` lets its sessions end before its pods stop; anything else stops them at once.
pub const UNDEPLOY: &str = "gantry.dev/undeploy";

/// Whether one that started after this function goes with it, and has not gone yet.
fn is_needed(work: &Work<'_>, key: &Key) -> bool {
    let all = work.objects.functions.iter();
    let going: Vec<_> = all
        .filter(|(other, f)| other.namespace == key.namespace && f.metadata.deletion_timestamp.is_some())
        .filter_map(|(other, f)| {
            let package = work.get::<NfPackage>(&package_key(f))?;
            Some((&other.name, f, waits_for(&package.spec, &f.spec)))
        })
        .collect();
    let mut waits = Waits::default();
    for (name, _, peers) in &going {
        peers.iter().for_each(|peer| waits.add(name, peer));
    }
    let runs = |f: &NetworkFunction| !work.pods_of(&f.metadata).is_empty();
    // In a circle none would ever be first.
    let before = waits.before(&key.name);
    going
        .iter()
        .any(|(name, f, peers)| peers.contains(&key.name) && !before.contains(name.as_str()) && runs(f))
}

/// One step towards nothing. Who has waited for this function goes before it.
pub(super) fn run(work: &mut Work<'_>, key: &Key) {
    let Some(function) = work.get::<NetworkFunction>(key) else {
        return;
    };
    if is_needed(work, key) {
        return;
    }
    let drains = meta::annotation(&function.metadata, UNDEPLOY) == Some("drain");
    let instances = work.pods_of(&function.metadata);
    let (agents, now_ms) = (work.agents, work.now_ms);
    let waits = |p: &&Arc<Pod>| {
        if drains {
            pods::drain(p).is_none()
        } else {
            !pods::is_stopping(p)
        }
    };
    for pod in instances.iter().filter(waits).take(work.limits.pods_a_pass) {
        let key = Key::of(&pod.metadata);
        if !drains {
            work.retire::<Pod>(&key);
        } else if let Some(pod) = work.edit::<Pod>(&key) {
            pods::begin_drain(pod, agents, now_ms);
        }
    }
    if !instances.is_empty() || quarantine::owned(work, "Pod", &function.metadata) > 0 {
        return;
    }
    let ours = |m: &gantry_api::ObjectMeta| meta::controls(&function.metadata, m);
    let services: Vec<Key> = work
        .objects
        .services
        .iter()
        .filter(|(_, s)| ours(&s.metadata))
        .map(|(k, _)| k.clone())
        .collect();
    let maps: Vec<Key> = work
        .objects
        .config_maps
        .iter()
        .filter(|(_, m)| ours(&m.metadata))
        .map(|(k, _)| k.clone())
        .collect();
    services.iter().for_each(|key| work.remove::<Service>(key));
    maps.iter().for_each(|key| work.remove::<ConfigMap>(key));
    let Some(function) = work.edit::<NetworkFunction>(key) else {
        return;
    };
    let left = function.metadata.finalizers.get_or_insert_default();
    left.retain(|f| f != FINALIZER);
    if left.is_empty() {
        work.remove::<NetworkFunction>(key);
    }
}
