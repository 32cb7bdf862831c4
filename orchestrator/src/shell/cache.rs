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
        let objects = store.list(Range::prefix(keys::OBJECTS)).await?;
        for version in &objects.items {
            cache.put(version, world);
        }
        // Only this shell writes its own keys, so they need no watch.
        for version in store.list(Range::prefix(keys::OWN)).await?.items {
            cache.load_own(&version, world)?;
        }
        let watch = store.watch(keys::OBJECTS, objects.revision)?;
        Ok((cache, watch))
    }

    /// The revision that a key of the shell's own must still have.
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
                    if let Some((kind, key)) = keys::parse(&event.key) {
                        world.objects.remove(kind, &key);
                        news = true;
                    }
                }
            }
        }
        news
    }

    /// Takes over what this shell wrote.
    pub fn committed(&mut self, written: &[String], commit: &Commit, world: &mut World) {
        for (key, after) in written.iter().zip(&commit.after) {
            match after {
                Some(version) if key.starts_with(keys::OWN) => {
                    self.seen.insert(version.key.clone(), version.mod_revision);
                }
                Some(version) => {
                    self.put(version, world);
                }
                None => {
                    self.seen.insert(Arc::from(key.as_str()), commit.revision);
                    if let Some((kind, key)) = keys::parse(key) {
                        world.objects.remove(kind, &key);
                    }
                }
            }
        }
    }

    fn put(&mut self, version: &Version, world: &mut World) -> bool {
        let Some((kind, _)) = keys::parse(&version.key) else {
            return false;
        };
        self.seen.insert(version.key.clone(), version.mod_revision);
        match Object::from_value(kind, kinds::codec::decode(version)) {
            Ok(Some(object)) => world.objects.put(object),
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(key = &*version.key, %error, "an object in the store is not readable and is left alone")
            }
        }
        true
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
