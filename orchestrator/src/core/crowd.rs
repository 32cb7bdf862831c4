//! Who owns which pods, and how many of a namespace wait for a place: looked up by all controllers, built once a pass.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ObjectMeta;
use k8s_openapi::api::core::v1::Pod;

use super::world::{Key, Objects};
use super::{meta, pods};

/// The index over the pods of a working copy.
pub struct Crowds {
    /// By the uid of the controller.
    by_owner: BTreeMap<String, BTreeSet<Key>>,
    /// By namespace; those that this pass makes count, for none of them has a place yet.
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
        for (key, pod) in &objects.pods {
            crowds.own(&pod.metadata, key);
            if waits(pod) {
                crowds.count(&key.namespace);
            }
        }
        crowds
    }

    /// A pod is made.
    pub fn join(&mut self, pod: &ObjectMeta) {
        self.own(pod, &Key::of(pod));
        self.count(meta::namespace(pod));
    }

    /// A pod is taken out.
    pub fn part(&mut self, pod: &ObjectMeta) {
        let owned = meta::controller_uid(pod).and_then(|uid| self.by_owner.get_mut(uid));
        owned.map(|keys| keys.remove(&Key::of(pod)));
    }

    /// The pods of an owner.
    pub fn of_owner(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.by_owner.get(uid).into_iter().flatten()
    }

    /// How many pods of a namespace wait for a place.
    pub fn waiting_in(&self, namespace: &str) -> usize {
        self.waiting.get(namespace).copied().unwrap_or(0)
    }

    fn own(&mut self, pod: &ObjectMeta, key: &Key) {
        let Some(uid) = meta::controller_uid(pod).filter(|uid| !uid.is_empty()) else {
            return;
        };
        match self.by_owner.get_mut(uid) {
            Some(keys) => {
                keys.insert(key.clone());
            }
            None => {
                let keys = BTreeSet::from([key.clone()]);
                self.by_owner.insert(uid.to_owned(), keys);
            }
        }
    }

    fn count(&mut self, namespace: &str) {
        match self.waiting.get_mut(namespace) {
            Some(count) => *count += 1,
            None => {
                self.waiting.insert(namespace.to_owned(), 1);
            }
        }
    }
}
