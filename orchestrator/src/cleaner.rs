//! Empties namespaces that are being deleted.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiError, DeleteOptions, Objects, Selector};
use crate::kinds::{KINDS, Kind, at, named};
use crate::store::{Store, StoreError};

/// Time between two looks at a namespace whose pods are still going.
const NAMESPACE_PERIOD: Duration = Duration::from_millis(250);

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
            let going = self.namespaces().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "empty namespaces");
                true
            });
            // All arms are cancel-safe: the watch is made anew, the others are a timer and a token.
            tokio::select! {
                () = tokio::time::sleep(NAMESPACE_PERIOD), if going => {}
                () = self.changed(), if !going => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Waits for a change of any namespace.
    async fn changed(&self) {
        let store: &dyn Store = self.objects.store().as_ref();
        let Ok(mut watch) = store.watch(&self.namespaces.prefix(None), store.revision()) else {
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

    /// True if some namespace is still on its way out.
    async fn namespaces(&self) -> Result<bool, ApiError> {
        let (namespaces, _) = self
            .objects
            .list(self.namespaces, None, &Selector::default())
            .await?;
        let mut going = false;
        for namespace in namespaces
            .iter()
            .filter(|n| !at(n, "/metadata/deletionTimestamp").is_null())
        {
            let name = at(namespace, "/metadata/name").as_str().unwrap_or_default();
            going |=
                !(self.empty(name).await? && self.objects.finish_namespace(self.namespaces, name).await?);
        }
        Ok(going)
    }

    /// Deletes what is in a namespace. True if nothing is left.
    async fn empty(&self, namespace: &str) -> Result<bool, ApiError> {
        let mut empty = true;
        for kind in KINDS.iter().filter(|k| k.namespaced) {
            let (objects, _) = self
                .objects
                .list(kind, Some(namespace), &Selector::default())
                .await?;
            empty &= objects.is_empty();
            for object in objects
                .iter()
                .filter(|o| at(o, "/metadata/deletionTimestamp").is_null())
            {
                self.delete(kind, namespace, object).await;
            }
        }
        Ok(empty)
    }

    async fn delete(&self, kind: &Kind, namespace: &str, object: &Value) {
        let name = at(object, "/metadata/name").as_str().unwrap_or_default();
        // Somebody else may have been faster; the next look tells.
        if let Err(error) = self
            .objects
            .delete(kind, namespace, name, &DeleteOptions::default())
            .await
        {
            tracing::debug!(%error, kind = kind.kind, namespace, name, "delete");
        }
    }
}
