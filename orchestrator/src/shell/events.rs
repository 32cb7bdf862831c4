//! Events: what people are told, kept for an hour.

use serde_json::{Value, json};

use crate::core::{EventNote, Key, meta};
use crate::kinds;
use crate::store::{Compare, Range, Store};

/// How long an Event is kept (Kubernetes' default).
const KEPT_MS: u64 = 3_600_000;
/// How often old ones are looked for.
const LOOK_EVERY_MS: u64 = 60_000;

/// The Event object of a note. `number` tells apart those of one pass.
pub(super) fn object(note: &EventNote, now_ms: u64, number: usize) -> (Key, Value) {
    let namespace = if note.key.namespace.is_empty() {
        "default"
    } else {
        &note.key.namespace
    };
    let unique = &meta::hash(&[&note.uid, &note.reason, &now_ms.to_string(), &number.to_string()])[..16];
    let name = format!("{}.{unique}", note.key.name);
    let time = serde_json::to_value(meta::time(now_ms)).unwrap_or_default();
    let api_version = kinds::named(note.kind)
        .map(|k| k.api_version())
        .unwrap_or_default();
    let mut involved =
        json!({"apiVersion": api_version, "kind": note.kind, "name": note.key.name, "uid": note.uid});
    if !note.key.namespace.is_empty() {
        involved["namespace"] = note.key.namespace.clone().into();
    }
    let value = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace, "uid": meta::uuid(&meta::hash(&["Event", unique])), "creationTimestamp": time},
        "involvedObject": involved,
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "message": note.message,
        "source": {"component": "gantry-orchestrator"},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    (Key::new(namespace, &name), value)
}

/// Removes Events that are old.
#[derive(Default)]
pub(super) struct Expiry {
    last_ms: u64,
}

impl Expiry {
    /// Looks once a minute.
    pub async fn run(&mut self, store: &dyn Store, now_ms: u64) {
        if now_ms.saturating_sub(self.last_ms) < LOOK_EVERY_MS {
            return;
        }
        self.last_ms = now_ms;
        let Some(kind) = kinds::named("Event") else { return };
        let events = match store.list(Range::prefix(kind.prefix(None))).await {
            Ok(listing) => listing.items,
            Err(error) => return tracing::warn!(%error, "cannot list events"),
        };
        for version in events {
            let event: k8s_openapi::api::core::v1::Event =
                match serde_json::from_value(kinds::codec::decode(&version)) {
                    Ok(event) => event,
                    Err(_) => continue,
                };
            let at = event.last_timestamp.or(event.metadata.creation_timestamp);
            let old = at.is_some_and(|at| meta::millis(&at) + KEPT_MS < now_ms);
            if old
                && let Err(error) = store
                    .delete(&version.key, Compare::At(version.mod_revision))
                    .await
            {
                tracing::debug!(%error, "an old event was changed meanwhile");
            }
        }
    }
}
