//! Events: what people are told, kept for an hour. The same word about the same object is one Event with a count, as in
//! Kubernetes; whoever wants to tell something makes an [`EventNote`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::core::{EventNote, Key, meta};
use crate::kinds;
use crate::store::{Compare, Range, Revision, Store, StoreError, Txn, Version};

/// How long an Event is kept (Kubernetes' default).
const KEPT_MS: u64 = 3_600_000;
/// How often old ones are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Old Events that are removed in one transaction: others' writes wait no longer than for these.
const AT_ONCE: usize = 256;
/// An object's different messages of one reason, after which they are combined in one Event.
const SIMILAR: usize = 10;
/// What the message of a combined Event begins with.
const COMBINED: &str = "(combined from similar events): ";

/// What was told within the last hour.
#[derive(Default)]
pub(super) struct Recorder {
    told: BTreeMap<Key, Told>,
    /// How many of them are about the same object and reason.
    groups: HashMap<String, usize>,
    /// When each was told last: the oldest first.
    ages: BTreeSet<(u64, Key)>,
}

/// One Event.
#[derive(Clone, Debug)]
pub(super) struct Told {
    group: String,
    count: i32,
    first_ms: u64,
    last_ms: u64,
}

impl Recorder {
    /// Remembers what the store has.
    pub(super) async fn open(store: &dyn Store) -> Result<Self, StoreError> {
        let mut recorder = Self::default();
        for event in all(store).await? {
            let key = Key::of(&event.metadata);
            let uid = event.involved_object.uid.clone().unwrap_or_default();
            let time = |at: &Option<_>| at.as_ref().map_or(0, meta::millis);
            let told = Told {
                group: group(&uid, event.reason.as_deref().unwrap_or_default()),
                count: event.count.unwrap_or(1),
                first_ms: time(&event.first_timestamp),
                last_ms: time(&event.last_timestamp),
            };
            recorder.insert(key, told);
        }
        Ok(recorder)
    }

    /// The Event object of a note.
    pub(super) fn event(&mut self, note: &EventNote, now_ms: u64) -> (Key, Value, Told) {
        let namespace = if note.key.namespace.is_empty() {
            "default"
        } else {
            &note.key.namespace
        };
        self.forget_old(now_ms);
        let group = group(&note.uid, &note.reason);
        let name = |message: &str| {
            let unique = meta::hash(&[&note.uid, &note.reason, message, &note.warning.to_string()]);
            Key::new(namespace, &format!("{}.{}", note.key.name, &unique[..16]))
        };
        let mut key = name(&note.message);
        let mut message = note.message.clone();
        let similar = self.groups.get(&group).copied().unwrap_or(0);
        if !self.told.contains_key(&key) && similar >= SIMILAR {
            key = name(COMBINED);
            message = format!("{COMBINED}{message}");
        }
        let before = self.told.get(&key);
        let told = Told {
            group,
            count: before.map_or(1, |told| told.count.saturating_add(1)),
            first_ms: before.map_or(now_ms, |told| told.first_ms),
            last_ms: now_ms,
        };
        let value = object(note, &key, &message, &told);
        (key, value, told)
    }

    /// These were written.
    pub(super) fn told(&mut self, written: BTreeMap<Key, Told>) {
        for (key, told) in written {
            self.insert(key, told);
        }
    }

    fn insert(&mut self, key: Key, told: Told) {
        self.remove(&key);
        *self.groups.entry(told.group.clone()).or_default() += 1;
        self.ages.insert((told.last_ms, key.clone()));
        self.told.insert(key, told);
    }

    fn remove(&mut self, key: &Key) {
        let Some(told) = self.told.remove(key) else {
            return;
        };
        self.ages.remove(&(told.last_ms, key.clone()));
        if let Some(count) = self.groups.get_mut(&told.group) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&told.group);
            }
        }
    }

    fn forget_old(&mut self, now_ms: u64) {
        while let Some((told_ms, key)) = self.ages.first()
            && now_ms.saturating_sub(*told_ms) >= KEPT_MS
        {
            let key = key.clone();
            self.remove(&key);
        }
    }
}

/// An object's Events of one reason.
fn group(uid: &str, reason: &str) -> String {
    format!("{uid} {reason}")
}

fn object(note: &EventNote, key: &Key, message: &str, told: &Told) -> Value {
    let time = |ms: u64| serde_json::to_value(meta::time(ms)).unwrap_or_default();
    let api_version = kinds::named(note.kind)
        .map(|k| k.api_version())
        .unwrap_or_default();
    let mut involved =
        json!({"apiVersion": api_version, "kind": note.kind, "name": note.key.name, "uid": note.uid});
    if !note.key.namespace.is_empty() {
        involved["namespace"] = note.key.namespace.clone().into();
    }
    let uid = meta::uuid(&meta::hash(&["Event", &key.name, &told.first_ms.to_string()]));
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid, "creationTimestamp": time(told.first_ms)},
        "involvedObject": involved,
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "message": message,
        "source": {"component": "gantry-orchestrator"},
        "firstTimestamp": time(told.first_ms),
        "lastTimestamp": time(told.last_ms),
        "count": told.count,
    })
}

async fn all(store: &dyn Store) -> Result<Vec<Event>, StoreError> {
    let Some(kind) = kinds::named("Event") else {
        return Ok(Vec::new());
    };
    let listing = store.list(Range::prefix(kind.prefix(None))).await?;
    let event = |version| serde_json::from_value(kinds::codec::decode(&version)).ok();
    Ok(listing.items.into_iter().filter_map(event).collect())
}

/// Removes Events that are old, and of each namespace all but the newest `kept`, until `stop`. A task of its own: nothing waits
/// for it.
pub(super) async fn expire(store: Arc<dyn Store>, kept: usize, now_ms: fn() -> u64, stop: CancellationToken) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: a tick is only a tick.
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = expire_once(&*store, kept, now_ms()).await {
            tracing::warn!(%error, "cannot remove old events; trying again soon");
        }
    }
}

async fn expire_once(store: &dyn Store, kept: usize, now_ms: u64) -> Result<(), StoreError> {
    let Some(kind) = kinds::named("Event") else {
        return Ok(());
    };
    let events = store.list(Range::prefix(kind.prefix(None))).await?.items;
    // There may be thousands: others are answered meanwhile.
    let Ok(old) = tokio::task::spawn_blocking(move || old(events, kept, now_ms)).await else {
        return Ok(());
    };
    for chunk in old.chunks(AT_ONCE) {
        let mut txn = Txn::default();
        for (key, revision) in chunk {
            txn = txn.when(key, Compare::At(*revision)).delete(key);
        }
        match store.txn(txn).await {
            // One was told again meanwhile: the others go the next time.
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Those of each namespace that are old, or more than are kept.
fn old(events: Vec<Version>, kept: usize, now_ms: u64) -> Vec<(String, Revision)> {
    let mut by_namespace: BTreeMap<String, Vec<(Version, Age)>> = BTreeMap::new();
    for event in events {
        let Ok(age) = serde_json::from_slice(&event.value) else {
            continue;
        };
        let namespace = event.key.rsplit_once('/').map_or("", |(namespace, _)| namespace);
        by_namespace
            .entry(namespace.to_owned())
            .or_default()
            .push((event, age));
    }
    let mut old = Vec::new();
    for mut events in by_namespace.into_values() {
        events.sort_by_key(|(event, _)| event.mod_revision);
        let surplus = events.len().saturating_sub(kept);
        let gone = events
            .into_iter()
            .enumerate()
            .filter(|(index, (_, age))| *index < surplus || age.is_old(now_ms));
        old.extend(gone.map(|(_, (event, _))| (event.key.to_string(), event.mod_revision)));
    }
    old
}

/// All that is read of an Event to see whether it is old.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Age {
    last_timestamp: Option<Time>,
    metadata: Birth,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Birth {
    creation_timestamp: Option<Time>,
}

impl Age {
    fn is_old(&self, now_ms: u64) -> bool {
        let at = self
            .last_timestamp
            .as_ref()
            .or(self.metadata.creation_timestamp.as_ref());
        at.is_some_and(|at| meta::millis(at) + KEPT_MS < now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, LocalStore};

    const KEPT: usize = 5_000;

    fn note(message: &str) -> EventNote {
        EventNote {
            kind: "Pod",
            key: Key::new("default", "p"),
            uid: "u".to_owned(),
            warning: true,
            reason: "FailedScheduling".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn the_same_word_is_one_event_with_a_count() {
        let mut recorder = Recorder::default();
        let mut tell = |message: &str, now_ms: u64| {
            let (key, value, told) = recorder.event(&note(message), now_ms);
            recorder.told([(key.clone(), told)].into());
            (key.name, value)
        };
        let (first, value) = tell("full", 1_000);
        assert_eq!(value["count"], 1);
        let (second, value) = tell("full", 5_000);
        assert_eq!((second == first, &value["count"]), (true, &json!(2)));
        assert_eq!(value["firstTimestamp"], "1970-01-01T00:00:01Z");
        assert_eq!(value["lastTimestamp"], "1970-01-01T00:00:05Z");
        assert_ne!(tell("other", 5_000).0, first);
        for i in 0..SIMILAR {
            tell(&format!("message {i}"), 6_000);
        }
        let (combined, value) = tell("one more", 7_000);
        assert_eq!(value["message"], "(combined from similar events): one more");
        assert_eq!(tell("and another", 7_000).0, combined);
        assert_eq!(tell("full", 7_000).1["count"], 3, "a known one goes on");
        assert_eq!(
            tell("full", 7_001 + KEPT_MS).1["count"],
            1,
            "after an hour it is new"
        );
        assert_eq!(
            (recorder.told.len(), recorder.groups.len(), recorder.ages.len()),
            (1, 1, 1)
        );
    }

    #[tokio::test]
    async fn old_ones_go_in_few_transactions_and_known_ones_are_remembered() {
        let store = LocalStore::in_memory(Limits::default()).unwrap();
        let mut recorder = Recorder::default();
        let mut txn = Txn::default();
        for i in 0..3 * AT_ONCE {
            let mut note = note("full");
            note.uid = i.to_string();
            note.key.name = format!("p{i}");
            let (key, value, told) = recorder.event(&note, 1_000);
            recorder.told([(key.clone(), told)].into());
            let key = kinds::named("Event").unwrap().key(&key.namespace, &key.name);
            txn = txn.put(&key, kinds::codec::encode(&value));
        }
        store.txn(txn).await.unwrap();
        let known = Recorder::open(&store).await.unwrap();
        assert_eq!(known.told.len(), 3 * AT_ONCE);
        let before = store.revision();
        expire_once(&store, KEPT, 1_000 + KEPT_MS).await.unwrap();
        assert_eq!(store.revision(), before, "not old yet");
        expire_once(&store, KEPT, 2_000 + KEPT_MS).await.unwrap();
        assert!(all(&store).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_namespace_keeps_its_newest() {
        let store = LocalStore::in_memory(Limits::default()).unwrap();
        let mut recorder = Recorder::default();
        let kind = kinds::named("Event").unwrap();
        for (namespace, count) in [("quiet", 1), ("flood", KEPT), ("flood", 700)] {
            let mut txn = Txn::default();
            for i in 0..count {
                let mut note = note("full");
                note.uid = format!("{count} {i}");
                note.key = Key::new(namespace, &format!("{count}-{i}"));
                let (key, value, _) = recorder.event(&note, 1_000);
                txn = txn.put(&kind.key(&key.namespace, &key.name), kinds::codec::encode(&value));
            }
            store.txn(txn).await.unwrap();
        }
        expire_once(&store, KEPT, 2_000).await.unwrap();
        let left = all(&store).await.unwrap();
        let names = left.iter().filter_map(|e| e.metadata.name.as_deref());
        assert_eq!(names.filter(|n| n.starts_with("700-")).count(), 700);
        assert_eq!(left.len(), KEPT + 1);
    }
}
