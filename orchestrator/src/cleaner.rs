//! Empties namespaces that are being deleted.

mod remains;

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiError, DeleteOptions, Objects, Selector, Target, WriteOptions};
use crate::kinds::{KINDS, Kind, named};
use crate::store::{Revision, Store, StoreError};
use remains::{Head, Remains};

/// Time between two looks at a namespace in which something was deleted.
const PERIOD: Duration = Duration::from_millis(250);
/// Longest time between two looks at one that waits for others: it doubles up to this.
const LONGEST: Duration = Duration::from_secs(5);
/// Namespaces that are emptied side by side: a large one holds up no other.
const NAMESPACES_AT_ONCE: usize = 8;
/// Objects of one that are deleted side by side: they share the store's waits for the disk.
const OBJECTS_AT_ONCE: usize = 32;

/// See the module.
pub struct Cleaner {
    objects: Objects,
    namespaces: &'static Kind,
}

/// How far a namespace is, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Gone,
    /// All that is in it is on its way out.
    Waits,
    /// Something was told to go just now.
    Empties,
}

impl Cleaner {
    /// Over the orchestrator's objects.
    pub fn new(objects: Objects) -> Self {
        Self {
            objects,
            namespaces: named("Namespace").expect("the table has Namespace"),
        }
    }

    /// Until the token is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut period = PERIOD;
        loop {
            let (stage, seen) = self.namespaces().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "empty namespaces");
                (Stage::Waits, Revision::default())
            });
            period = match stage {
                Stage::Waits => LONGEST.min(period * 2),
                Stage::Empties | Stage::Gone => PERIOD,
            };
            // All arms are cancel-safe: the watch is made anew, the others are a timer and a token.
            tokio::select! {
                () = tokio::time::sleep(period), if stage != Stage::Gone => {}
                () = self.changed(seen) => period = PERIOD,
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Waits for a change of any namespace after the revision.
    async fn changed(&self, seen: Revision) {
        let store: &dyn Store = self.objects.store().as_ref();
        let Ok(mut watch) = store.watch(&self.namespaces.prefix(None), seen) else {
            return;
        };
        loop {
            match watch.next().await {
                Ok(batch) if batch.events.is_empty() => {}
                Err(StoreError::Closed) => return std::future::pending().await,
                _ => return,
            }
        }
    }

    /// How far the namespaces are that are on their way out, and the revision at which they were looked at.
    async fn namespaces(&self) -> Result<(Stage, Revision), ApiError> {
        let everything = Selector::default();
        let namespaces = self.objects.list(self.namespaces, None, &everything).await?;
        let going = namespaces.items.iter().map(Head::of).filter(|head| head.going);
        let going: Vec<String> = going.map(|head| head.name).collect();
        let stages = stream::iter(going).map(|name| self.namespace(name));
        let stages: Vec<Stage> = stages.buffer_unordered(NAMESPACES_AT_ONCE).collect().await;
        let furthest_from_gone = stages.into_iter().max().unwrap_or(Stage::Gone);
        Ok((furthest_from_gone, namespaces.revision))
    }

    /// One step of emptying a namespace.
    async fn namespace(&self, name: String) -> Stage {
        self.step(&name).await.unwrap_or_else(|error| {
            tracing::warn!(%error, name, "empty a namespace");
            Stage::Waits
        })
    }

    async fn step(&self, name: &str) -> Result<Stage, ApiError> {
        let mut remains = Remains::default();
        let mut deleted = false;
        for kind in KINDS.iter().filter(|k| k.namespaced) {
            let everything = Selector::default();
            let objects = self.objects.list(kind, Some(name), &everything).await?.items;
            let mut here = Vec::new();
            for head in objects.iter().map(Head::of) {
                remains.add(kind, &head);
                here.extend((!head.going).then_some(head.name));
            }
            deleted |= !here.is_empty();
            stream::iter(here)
                .for_each_concurrent(OBJECTS_AT_ONCE, |object| self.delete(kind, name, object))
                .await;
        }
        if deleted {
            return Ok(Stage::Empties);
        }
        if !remains.is_nothing() {
            self.tell(name, &remains).await?;
            return Ok(Stage::Waits);
        }
        Ok(
            match self.objects.finish_namespace(self.namespaces, name).await? {
                true => Stage::Gone,
                false => Stage::Waits,
            },
        )
    }

    /// What it waits for, in its status.
    async fn tell(&self, name: &str, remains: &Remains) -> Result<(), ApiError> {
        let say = |namespace: &Value| {
            let mut namespace = namespace.clone();
            if let Some(status) = namespace.get_mut("status").and_then(Value::as_object_mut) {
                let before = status.get("conditions").cloned().unwrap_or_default();
                status.insert("conditions".to_owned(), remains.conditions(&before));
            }
            Ok(namespace)
        };
        let (kind, options) = (self.namespaces, WriteOptions::default());
        let told = self.objects.modify(kind, "", name, Target::Status, options, say);
        told.await.map(drop)
    }

    async fn delete(&self, kind: &Kind, namespace: &str, name: String) {
        // Somebody else may have been faster; the next look tells.
        if let Err(error) = self
            .objects
            .delete(kind, namespace, &name, &DeleteOptions::default())
            .await
        {
            tracing::debug!(%error, kind = kind.kind, namespace, name, "delete");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::store::{Limits, LocalStore};

    #[tokio::test]
    async fn a_deletion_right_after_the_look_is_not_overlooked() {
        let store = Arc::new(LocalStore::in_memory(Limits::default()).unwrap());
        let objects = Objects::new(store, "10.86.0.0/16".parse().unwrap());
        let cleaner = Cleaner::new(objects.clone());
        let input = json!({"metadata": {"name": "n"}});
        let kind = cleaner.namespaces;
        objects.create(kind, "", input, Default::default()).await.unwrap();
        let (stage, seen) = cleaner.namespaces().await.unwrap();
        assert_eq!(stage, Stage::Gone);
        objects
            .delete(kind, "", "n", &DeleteOptions::default())
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(20), cleaner.changed(seen))
            .await
            .expect("it has changed");
    }

    #[tokio::test]
    async fn what_a_namespace_waits_for_is_told_once() {
        let store = Arc::new(LocalStore::in_memory(Limits::default()).unwrap());
        let objects = Objects::new(store.clone(), "10.86.0.0/16".parse().unwrap());
        let cleaner = Cleaner::new(objects.clone());
        let (kind, maps) = (cleaner.namespaces, named("ConfigMap").unwrap());
        let make = |kind, namespace, input| objects.create(kind, namespace, input, Default::default());
        make(kind, "", json!({"metadata": {"name": "n"}})).await.unwrap();
        for name in ["a", "b"] {
            let map = json!({"metadata": {"name": name, "finalizers": ["example.com/f"]}});
            make(maps, "n", map).await.unwrap();
        }
        let deletion = DeleteOptions::default();
        objects.delete(kind, "", "n", &deletion).await.unwrap();
        assert_eq!(cleaner.namespaces().await.unwrap().0, Stage::Empties);
        assert_eq!(cleaner.namespaces().await.unwrap().0, Stage::Waits);
        let told = objects.get(kind, "", "n").await.unwrap();
        let conditions = told["status"]["conditions"].to_string();
        assert!(
            conditions.contains("configmaps. has 2 resource instances"),
            "{conditions}"
        );
        assert!(
            conditions.contains("example.com/f in 2 resource instances"),
            "{conditions}"
        );
        let revision = store.revision();
        assert_eq!(cleaner.namespaces().await.unwrap().0, Stage::Waits);
        assert_eq!(store.revision(), revision, "nothing new is nothing to write");
        for name in ["a", "b"] {
            let free = |map: &Value| {
                let mut map = map.clone();
                map["metadata"]["finalizers"] = json!([]);
                Ok(map)
            };
            let freed = objects.modify(maps, "n", name, Target::Main, WriteOptions::default(), free);
            freed.await.unwrap();
        }
        assert_eq!(cleaner.namespaces().await.unwrap().0, Stage::Gone);
        assert!(objects.get(kind, "", "n").await.is_err());
    }
}
