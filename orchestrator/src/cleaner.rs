//! Empties namespaces that are being deleted.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiError, DeleteOptions, Objects, Selector};
use crate::kinds::{KINDS, Kind, at, codec, named};
use crate::store::{Revision, Store, StoreError, Version};

/// Time between two looks at a namespace whose pods are still going.
const NAMESPACE_PERIOD: Duration = Duration::from_millis(250);
/// Namespaces that are emptied side by side: a large one holds up no other.
const NAMESPACES_AT_ONCE: usize = 8;
/// Objects of one that are deleted side by side: they share the store's waits for the disk.
const OBJECTS_AT_ONCE: usize = 32;

/// See the module.
pub struct Cleaner {
    objects: Objects,
    namespaces: &'static Kind,
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
        loop {
            let (going, seen) = self.namespaces().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "empty namespaces");
                (true, Revision::default())
            });
            // All arms are cancel-safe: the watch is made anew, the others are a timer and a token.
            tokio::select! {
                () = tokio::time::sleep(NAMESPACE_PERIOD), if going => {}
                () = self.changed(seen), if !going => {}
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

    /// True if some namespace is still on its way out, and the revision at which they were looked at.
    async fn namespaces(&self) -> Result<(bool, Revision), ApiError> {
        let everything = Selector::default();
        let namespaces = self.objects.list(self.namespaces, None, &everything).await?;
        let gone = stream::iter(names(&namespaces.items, true)).map(|name| self.namespace(name));
        let gone: Vec<bool> = gone.buffer_unordered(NAMESPACES_AT_ONCE).collect().await;
        let going = gone.contains(&false);
        Ok((going, namespaces.revision))
    }

    /// One step of emptying a namespace; true if it is gone.
    async fn namespace(&self, name: String) -> bool {
        let step = async {
            let name = name.as_str();
            Ok::<_, ApiError>(
                self.empty(name).await? && self.objects.finish_namespace(self.namespaces, name).await?,
            )
        };
        step.await.unwrap_or_else(|error| {
            tracing::warn!(%error, name, "empty a namespace");
            false
        })
    }

    /// Deletes what is in a namespace. True if nothing is left.
    async fn empty(&self, namespace: &str) -> Result<bool, ApiError> {
        let mut empty = true;
        for kind in KINDS.iter().filter(|k| k.namespaced) {
            let everything = Selector::default();
            let objects = self.objects.list(kind, Some(namespace), &everything).await?.items;
            empty &= objects.is_empty();
            let names = names(&objects, false);
            stream::iter(names)
                .for_each_concurrent(OBJECTS_AT_ONCE, |name| self.delete(kind, namespace, name))
                .await;
        }
        Ok(empty)
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

/// The names of objects that are on their way out, or are not.
fn names(objects: &[Version], going: bool) -> Vec<String> {
    let wanted = |object: &Value| at(object, "/metadata/deletionTimestamp").is_null() != going;
    let objects = objects.iter().map(codec::decode).filter(wanted);
    objects
        .filter_map(|object| at(&object, "/metadata/name").as_str().map(str::to_owned))
        .collect()
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
        let (going, seen) = cleaner.namespaces().await.unwrap();
        assert!(!going);
        objects
            .delete(kind, "", "n", &DeleteOptions::default())
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(20), cleaner.changed(seen))
            .await
            .expect("it has changed");
    }
}
