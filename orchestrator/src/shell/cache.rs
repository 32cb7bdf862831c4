//! The world in memory, kept up to date from the store's watch and from the shell's own writes.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_nodeagent_api::NodeConfig;
use serde::de::DeserializeOwned;

use super::{ShellError, keys};
use crate::core::{Object, World};
use crate::kinds;
use crate::store::{Commit, Event, Range, Revision, Store, Version, Watch};

/// The revisions behind a [`World`].
pub(super) struct Cache {
    /// Last revision seen of each key; of a deleted key until the watch has told of its deletion.
    seen: HashMap<Arc<str>, Revision>,
}

impl Cache {
    /// Reads everything, and a watch that tells what comes after.
    pub async fn open(store: &dyn Store, world: &mut World) -> Result<(Self, Box<dyn Watch>), ShellError> {
        let mut cache = Self { seen: HashMap::new() };
        let all = store.list(Range::prefix(keys::ALL)).await?;
        for version in &all.items {
            if version.key.starts_with(keys::OWN) {
                cache.load_own(version, world)?;
            } else {
                cache.put(version, world)?;
            }
        }
        let watch = store.watch(keys::ALL, all.revision)?;
        Ok((cache, watch))
    }

    /// The revision that a key which is no object must still have.
    pub fn revision(&self, key: &str) -> Option<Revision> {
        self.seen.get(key).copied()
    }

    /// Takes over what others wrote; false if all of it was known already.
    pub fn apply(&mut self, events: &[Arc<Event>], world: &mut World) -> Result<bool, ShellError> {
        let mut news = false;
        for event in events {
            if self
                .seen
                .get(&event.key)
                .is_some_and(|seen| *seen >= event.revision)
            {
                if event.after.is_none() && self.seen.get(&event.key) == Some(&event.revision) {
                    self.seen.remove(&event.key);
                }
                continue;
            }
            match &event.after {
                Some(version) => news |= self.put(version, world)?,
                None => {
                    self.seen.remove(&event.key);
                    if let Some((kind, key)) = keys::parse(&event.key) {
                        world.objects.remove(kind, &key);
                        news = true;
                    }
                }
            }
        }
        Ok(news)
    }

    /// Takes over what this shell wrote.
    pub fn committed(&mut self, written: &[String], commit: &Commit, world: &mut World) {
        for (key, after) in written.iter().zip(&commit.after) {
            match after {
                // What cannot be read here cannot be read when the watch tells of it either, and that is an error.
                Some(version) => drop(self.put(version, world)),
                None => {
                    self.seen.insert(Arc::from(key.as_str()), commit.revision);
                    if let Some((kind, key)) = keys::parse(key) {
                        world.objects.remove(kind, &key);
                    }
                }
            }
        }
    }

    /// Takes over one key; false if the core does not look at its kind. One that is there and cannot be read must not be
    /// taken for one that is not: what it owns would be stopped.
    fn put(&mut self, version: &Version, world: &mut World) -> Result<bool, ShellError> {
        if version.key.starts_with(keys::OWN) {
            self.seen.insert(version.key.clone(), version.mod_revision);
            return Ok(false);
        }
        let Some((kind, _)) = keys::parse(&version.key) else {
            return Ok(false);
        };
        let object = Object::from_value(kind, kinds::codec::decode(version)).map_err(|source| {
            ShellError::Unreadable {
                key: version.key.to_string(),
                source,
            }
        })?;
        self.seen.insert(version.key.clone(), version.mod_revision);
        let known = object.is_some();
        object.into_iter().for_each(|object| world.objects.put(object));
        Ok(known)
    }

    fn load_own(&mut self, version: &Version, world: &mut World) -> Result<(), ShellError> {
        self.seen.insert(version.key.clone(), version.mod_revision);
        if &*version.key == keys::PLAN {
            world.plan = read(version)?;
        } else if let Some(node) = version.key.strip_prefix(keys::CONFIGS) {
            world
                .configs
                .insert(node.to_owned(), Arc::new(read::<NodeConfig>(version)?));
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(version: &Version) -> Result<T, ShellError> {
    serde_json::from_slice(&version.value).map_err(|source| ShellError::Corrupt {
        key: version.key.to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::Settings;
    use crate::store::{Compare, Limits, LocalStore};

    fn world() -> World {
        World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        })
    }

    async fn write_function_of_the_future(store: &LocalStore) {
        let object = json!({"metadata": {"name": "f", "namespace": "default", "uid": "u"},
            "spec": {"package": "p", "version": "1.0.0", "fieldOfTheFuture": 1}});
        let key = kinds::named("NetworkFunction").unwrap().key("default", "f");
        let value = kinds::codec::encode(&object);
        store.put(&key, value, Compare::Any).await.unwrap();
    }

    /// Whoever goes on without it stops the pods that it owns.
    #[tokio::test]
    async fn an_object_that_cannot_be_read_is_an_error_that_names_it() {
        let store = LocalStore::in_memory(Limits::default()).unwrap();
        let mut world = world();
        let (mut cache, mut watch) = Cache::open(&store, &mut world).await.unwrap();
        write_function_of_the_future(&store).await;
        let batch = watch.next().await.unwrap();
        let while_running = cache.apply(&batch.events, &mut world).unwrap_err();
        let at_the_start = Cache::open(&store, &mut world).await.err().unwrap();
        for error in [while_running, at_the_start] {
            let text = error.to_string();
            assert!(text.contains("networkfunctions/default/f"), "{text}");
        }
    }
}
