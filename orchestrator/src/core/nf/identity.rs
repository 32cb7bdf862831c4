//! Who an instance is: its number, which its name, its names in DNS and what it owns follow.

use std::collections::BTreeSet;

use gantry_api::{ObjectMeta, labels};
use k8s_openapi::api::core::v1::Pod;

use super::super::world::{Key, Objects, Work};
use super::super::{meta, quarantine};

/// The number of an instance; those of a version that gave none have none.
pub fn index(pod: &Pod) -> Option<u32> {
    meta::label(&pod.metadata, labels::INDEX)?.parse().ok()
}

/// Its name, and that of its pod.
pub(super) fn name(function: &ObjectMeta, index: u32) -> String {
    format!("{}-{index}", meta::name(function))
}

/// The lowest number that nobody has: whoever leaves keeps its own until it is gone, and until the pass after that, for what takes a pod
/// out and what makes one of the same name are two writes.
pub(super) fn free(work: &Work<'_>, function: &ObjectMeta) -> u32 {
    let pods = work.pods_of(function);
    let taken: BTreeSet<u32> = pods.iter().filter_map(|pod| index(pod)).collect();
    let is_free = |index: &u32| {
        let key = Key::new(meta::namespace(function), &name(function, *index));
        let there = |objects: &Objects| objects.pods.contains_key(&key);
        !taken.contains(index)
            && !there(work.before)
            && !there(&work.objects)
            && !quarantine::has(work, "Pod", &key)
    };
    (0..).find(is_free).unwrap_or(u32::MAX)
}

/// The name of a function in DNS.
pub fn host(work: &Work<'_>, function: &Key) -> String {
    let domain = work.settings.cluster_domain.trim_end_matches('.');
    format!("{}.{}.svc.{domain}", function.name, function.namespace)
}
