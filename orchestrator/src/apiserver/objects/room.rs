//! How much each namespace keeps in the store: counted from the store's own changes, bounded where users write. All of it is
//! in memory, of the store and of the core.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::super::error::ApiError;
use crate::kinds::Kind;
use crate::store::{Event, Range, Store, StoreError, Version};

/// Keys of objects.
const OBJECTS: &str = "/registry/";
/// What an object costs besides its text, in bytes.
const OVERHEAD: usize = 512;

/// What the objects of each namespace come to, in bytes; those of no namespace together. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<HashMap<String, usize>>>);

impl Room {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// 403 if the object's namespace would keep more than `most` bytes with `more` of it. What is being written at the same
    /// time is not counted yet.
    pub(super) fn check(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        more: usize,
        most: usize,
    ) -> Result<(), ApiError> {
        let namespace = if kind.namespaced { namespace } else { "" };
        let used = self.lock().get(namespace).copied().unwrap_or_default();
        if used.saturating_add(more) <= most {
            return Ok(());
        }
        let whose = match namespace {
            "" => "objects without a namespace".to_owned(),
            namespace => format!("objects of namespace {namespace}"),
        };
        let why = format!("exceeded quota: {whose} come to {used} bytes, limited to {most}: delete some");
        Err(ApiError::forbidden_object(kind, name, &why))
    }

    fn count(&self, events: &[Arc<Event>]) {
        let mut used = self.lock();
        for event in events {
            let sum = used.entry(namespace(&event.key).to_owned()).or_default();
            *sum = sum.saturating_add(event.after.as_ref().map_or(0, cost));
            *sum = sum.saturating_sub(event.before.as_ref().map_or(0, cost));
            if *sum == 0 {
                used.remove(namespace(&event.key));
            }
        }
    }

    fn recount(&self, all: &[Version]) {
        let mut used = self.lock();
        used.clear();
        for version in all {
            *used.entry(namespace(&version.key).to_owned()).or_default() += cost(version);
        }
    }
}

fn cost(version: &Version) -> usize {
    version.key.len() + version.value.len() + OVERHEAD
}

/// Of a key `/registry/<group>/<plural>/[<namespace>/]<name>`.
fn namespace(key: &str) -> &str {
    let parts: Vec<&str> = key.split('/').collect();
    match parts[..] {
        ["", _, _, _, namespace, _] => namespace,
        _ => "",
    }
}

/// Keeps a [`Room`] up to date.
pub struct Counter {
    pub(super) store: Arc<dyn Store>,
    pub(super) room: Room,
}

impl Counter {
    /// Until the token is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        // Cancel-safe: what is counted is counted anew when it begins again.
        tokio::select! {
            () = self.follow() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn follow(&self) {
        loop {
            match self.follow_on().await {
                StoreError::Closed => return std::future::pending().await,
                // Slower than the history is long.
                error => tracing::debug!(%error, "counting anew what namespaces keep"),
            }
        }
    }

    async fn follow_on(&self) -> StoreError {
        let listing = match self.store.list(Range::prefix(OBJECTS)).await {
            Ok(listing) => listing,
            Err(error) => return error,
        };
        self.room.recount(&listing.items);
        let mut watch = match self.store.watch(OBJECTS, listing.revision) {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        drop(listing);
        loop {
            match watch.next().await {
                Ok(batch) => self.room.count(&batch.events),
                Err(error) => return error,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Objects;
    use super::*;
    use crate::apiserver::ObjectLimits;
    use crate::kinds::named;
    use crate::store::{Limits, LocalStore};

    #[test]
    fn keys_name_their_namespaces() {
        assert_eq!(namespace("/registry/core/configmaps/a/b"), "a");
        assert_eq!(namespace("/registry/core/namespaces/a"), "");
    }

    #[tokio::test]
    async fn a_full_namespace_takes_no_more_until_something_goes() {
        let store: Arc<dyn Store> = Arc::new(LocalStore::in_memory(Limits::default()).unwrap());
        let limits = ObjectLimits {
            namespace_bytes: 10_000,
            ..ObjectLimits::default()
        };
        let objects = Objects::new(store, "10.86.0.0/16".parse().unwrap()).with_limits(limits);
        let stop = CancellationToken::new();
        let counting = tokio::spawn(objects.counter().run(stop.clone()));
        let (spaces, maps) = (named("Namespace").unwrap(), named("ConfigMap").unwrap());
        for namespace in ["full", "other"] {
            let object = json!({"metadata": {"name": namespace}});
            objects
                .create(spaces, "", object, Default::default())
                .await
                .unwrap();
        }
        let make = async |namespace: &str, name: &str| {
            let object = json!({"metadata": {"name": name}, "data": {"a": "x".repeat(3000)}});
            let made = objects.create(maps, namespace, object, Default::default()).await;
            // Counted a moment later.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            made.map(|_| ()).map_err(|e| (e.code.as_u16(), e.to_string()))
        };
        make("full", "a").await.unwrap();
        make("full", "b").await.unwrap();
        let (code, message) = make("full", "c").await.unwrap_err();
        assert_eq!(code, 403);
        assert!(
            message.contains("exceeded quota: objects of namespace full"),
            "{message}"
        );
        make("other", "a").await.unwrap();
        objects
            .delete(maps, "full", "a", &Default::default())
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        make("full", "c").await.unwrap();
        stop.cancel();
        counting.await.unwrap();
    }
}
