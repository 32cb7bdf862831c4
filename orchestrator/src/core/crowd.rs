//! Who owns which pods, and how many of a group wait for a place: looked up by all controllers, built once a pass.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ObjectMeta;
use k8s_openapi::api::core::v1::Pod;

use super::world::{Key, Objects};
use super::{group, meta, pods};

/// The index over the pods of a working copy.
pub struct Crowds {
    /// By namespace, and in it by the uid of the controller.
    by_owner: BTreeMap<String, BTreeMap<String, BTreeSet<Key>>>,
    /// By group; those that this pass makes count, for none of them has a place yet.
    waiting: BTreeMap<String, usize>,
}

/// It has no place yet and wants one.
pub fn waits(pod: &Pod) -> bool {
    pods::node(pod).is_none() && !pods::is_stopping(pod) && !pods::is_over(pod)
}

impl Crowds {
    /// The index of all pods.
    pub fn of(objects: &Objects) -> Self {
        let mut crowds = Self {
            by_owner: BTreeMap::new(),
            waiting: BTreeMap::new(),
        };
        // Pods are in the order of their namespaces.
        let mut last = ("", String::new());
        for (key, pod) in &objects.pods {
            crowds.own(&pod.metadata, key);
            if waits(pod) {
                if last.0 != key.namespace {
                    last = (&key.namespace, group::of(objects, &key.namespace));
                }
                crowds.count(&last.1);
            }
        }
        crowds
    }

    /// A pod of a group is made.
    pub fn join(&mut self, pod: &ObjectMeta, group: &str) {
        self.own(pod, &Key::of(pod));
        self.count(group);
    }

    /// A pod is taken out.
    pub fn part(&mut self, pod: &ObjectMeta) {
        let owned =
            meta::controller(pod).and_then(|(namespace, uid)| self.by_owner.get_mut(namespace)?.get_mut(uid));
        owned.map(|keys| keys.remove(&Key::of(pod)));
    }

    /// The pods of an owner.
    pub fn of_owner(&self, (namespace, uid): meta::Owner<'_>) -> impl Iterator<Item = &Key> {
        let owners = self.by_owner.get(namespace);
        owners.and_then(|owners| owners.get(uid)).into_iter().flatten()
    }

    /// How many pods of a group wait for a place.
    pub fn waiting_of(&self, group: &str) -> usize {
        self.waiting.get(group).copied().unwrap_or(0)
    }

    fn own(&mut self, pod: &ObjectMeta, key: &Key) {
        let Some((namespace, uid)) = meta::controller(pod).filter(|(_, uid)| !uid.is_empty()) else {
            return;
        };
        // Names are copied for the first of each only: there are many pods.
        if !self.by_owner.contains_key(namespace) {
            self.by_owner.insert(namespace.to_owned(), BTreeMap::new());
        }
        let owners = self.by_owner.get_mut(namespace).expect("it was just made");
        match owners.get_mut(uid) {
            Some(keys) => {
                keys.insert(key.clone());
            }
            None => {
                owners.insert(uid.to_owned(), BTreeSet::from([key.clone()]));
            }
        }
    }

    fn count(&mut self, group: &str) {
        match self.waiting.get_mut(group) {
            Some(count) => *count += 1,
            None => {
                self.waiting.insert(group.to_owned(), 1);
            }
        }
    }
}
