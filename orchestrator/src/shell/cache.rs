//! The world in memory, kept up to date from the store's watch and from the shell's own writes.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_nodeagent_api::{Generation, NodeConfig};
use serde::de::DeserializeOwned;

use super::{ShellError, keys};
use crate::core::{Key, Object, Unreadable, World, pods};
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
                cache.put(version, world);
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
    pub fn apply(&mut self, events: &[Arc<Event>], world: &mut World) -> bool {
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
                Some(version) => news |= self.put(version, world),
                None => {
                    self.seen.remove(&event.key);
                    news |= forget(&event.key, world);
                }
            }
        }
        news
    }

    /// Takes over what this shell wrote.
    pub fn committed(&mut self, written: &[String], commit: &Commit, world: &mut World) {
        for (key, after) in written.iter().zip(&commit.after) {
            match after {
                Some(version) => {
                    self.put(version, world);
                }
                None => {
                    self.seen.insert(Arc::from(key.as_str()), commit.revision);
                    forget(key, world);
                }
            }
        }
    }

    /// Takes over one key; false if the core does not look at its kind. One that is there and cannot be read must not be
    /// taken for one that is not: what it owns would be stopped.
    fn put(&mut self, version: &Version, world: &mut World) -> bool {
        if version.key.starts_with(keys::OWN) {
            self.seen.insert(version.key.clone(), version.mod_revision);
            return false;
        }
        let Some((kind, key)) = keys::parse(&version.key) else {
            return false;
        };
        self.seen.insert(version.key.clone(), version.mod_revision);
        let value = kinds::codec::decode(version);
        match object(kind, &key, &value) {
            Ok(object) => {
                if world.quarantine.remove(&(kind, key)).is_some() {
                    tracing::info!(key = &*version.key, "it can be read again");
                }
                world.objects.put(object);
            }
            Err(why) => {
                tracing::error!(
                    key = &*version.key,
                    why,
                    "an object cannot be read: it and what it owns are left as they are"
                );
                world.objects.remove(kind, &key);
                world.quarantine.insert((kind, key), Unreadable::of(&value, why));
            }
        }
        true
    }

    fn load_own(&mut self, version: &Version, world: &mut World) -> Result<(), ShellError> {
        self.seen.insert(version.key.clone(), version.mod_revision);
        if &*version.key == keys::PLAN {
            world.plan = read(version)?;
        } else if let Some(node) = version.key.strip_prefix(keys::CONFIGS) {
            let config = read(version).unwrap_or_else(|error| lost_config(node, &error));
            world.configs.insert(node.to_owned(), Arc::new(config));
        }
        Ok(())
    }
}

/// Stands for what a node was told and nobody can read any more: only a number, above any that was given out (they count
/// changes, this counts seconds), so that what is made anew is newer than all that the agent has. It is never sent.
fn lost_config(node: &str, error: &ShellError) -> NodeConfig {
    let error = error as &dyn std::error::Error;
    tracing::error!(
        node,
        error,
        "a node's configuration cannot be read: it is made anew"
    );
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    NodeConfig {
        generation: Generation(seconds.unwrap_or_default().as_secs()),
        ..NodeConfig::default()
    }
}

/// A key is gone; false if the core does not look at its kind.
fn forget(store_key: &str, world: &mut World) -> bool {
    let Some((kind, key)) = keys::parse(store_key) else {
        return false;
    };
    world.objects.remove(kind, &key);
    world.quarantine.remove(&(kind, key));
    true
}

/// The object under a key, or why it cannot be read.
fn object(kind: &str, key: &Key, value: &serde_json::Value) -> Result<Object, String> {
    if value.is_null() {
        return Err("its bytes are damaged".to_owned());
    }
    let object = Object::from_value(kind, value.clone()).map_err(|e| e.to_string())?;
    let object = object.ok_or("its kind is unknown")?;
    if Key::of(object.meta()) != *key {
        return Err(format!("its metadata says that it is {}", Key::of(object.meta())));
    }
    match &object {
        Object::Pod(pod) => pods::unreadable_annotation(pod).map_or(Ok(()), Err),
        _ => Ok(()),
    }?;
    Ok(object)
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

    async fn write(store: &LocalStore, kind: &str, name: &str, value: bytes::Bytes) {
        let key = kinds::named(kind).unwrap().key("default", name);
        store.put(&key, value, Compare::Any).await.unwrap();
    }

    /// Whoever takes it for missing stops the pods that it owns; whoever stops for it stops everybody.
    #[tokio::test]
    async fn an_object_that_cannot_be_read_is_set_apart_until_it_is_written_anew_or_deleted() {
        let store = LocalStore::in_memory(Limits::default()).unwrap();
        let mut world = world();
        let (mut cache, mut watch) = Cache::open(&store, &mut world).await.unwrap();
        let metadata = json!({"name": "f", "namespace": "default", "uid": "u"});
        let spec = json!({"package": "p", "version": "1.0.0", "fieldOfTheFuture": 1});
        let future = json!({"metadata": metadata, "spec": spec});
        let other = json!({"metadata": {"name": "other", "namespace": "default"}, "spec": {"package": "p", "version": "1.0.0"}});
        let extras = json!({"gantry.dev/extras": "{"});
        let pod = json!({"metadata": {"name": "p", "namespace": "default", "annotations": extras}, "spec": {"containers": []}});
        write(&store, "NetworkFunction", "f", kinds::codec::encode(&future)).await;
        write(&store, "NetworkFunction", "g", kinds::codec::encode(&other)).await;
        write(&store, "NetworkFunction", "other", kinds::codec::encode(&other)).await;
        write(
            &store,
            "Service",
            "s",
            bytes::Bytes::from_static(b"\xff\x00garbage"),
        )
        .await;
        write(&store, "Pod", "p", kinds::codec::encode(&pod)).await;
        let bad = ["NetworkFunction f", "NetworkFunction g", "Pod p", "Service s"];
        let names = |world: &World| -> Vec<String> {
            world
                .quarantine
                .keys()
                .map(|(kind, key)| format!("{kind} {}", key.name))
                .collect()
        };
        while names(&world).len() < bad.len() {
            assert!(cache.apply(&watch.next().await.unwrap().events, &mut world));
        }
        let mut at_the_start = self::world();
        Cache::open(&store, &mut at_the_start).await.unwrap();
        for world in [&world, &at_the_start] {
            assert_eq!(names(world), bad);
            assert_eq!(world.objects.functions.len(), 1);
            assert_eq!(
                world.quarantine[&("NetworkFunction", Key::new("default", "f"))].uid,
                "u"
            );
        }
        let mended = json!({"metadata": metadata, "spec": {"package": "p", "version": "1.0.0"}});
        write(&store, "NetworkFunction", "f", kinds::codec::encode(&mended)).await;
        let key = kinds::named("Service").unwrap().key("default", "s");
        store.delete(&key, Compare::Any).await.unwrap();
        while names(&world).len() > 2 {
            cache.apply(&watch.next().await.unwrap().events, &mut world);
        }
        assert_eq!(world.objects.functions.len(), 2);
    }
}
