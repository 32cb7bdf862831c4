//! How much everybody keeps in the store: counted from the store's own changes, bounded where users write. All of it is in
//! memory, of the store and of the core.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::super::error::ApiError;
use super::super::limits::ObjectLimits;
use super::meta::{self, requester};
use crate::kinds::{Kind, codec};
use crate::store::{Event, Range, Store, StoreError, Version};

/// Keys of objects.
const OBJECTS: &str = "/registry/";
/// What an object costs besides its text, in bytes.
const OVERHEAD: usize = 512;
/// Whose the objects are that no namespace has.
const NOBODY: &str = "objects without a namespace";
/// Plural of the kind.
const NAMESPACES: &str = "namespaces";

/// What everybody keeps. A namespace that a person has made counts as that person's, with all others that he makes: their
/// number is no way to more. One that the administrator has made counts for itself. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    /// By whose it is.
    used: HashMap<String, Used>,
    /// In bytes.
    all: usize,
    /// Of namespaces: who has made them.
    requesters: HashMap<String, String>,
}

/// What somebody keeps.
#[derive(Default)]
struct Used {
    bytes: usize,
    /// Objects by kind, by its plural.
    counts: HashMap<String, usize>,
}

impl Used {
    fn count(&mut self, plural: &str) -> &mut usize {
        self.counts.entry(plural.to_owned()).or_default()
    }
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose share of what all use together the namespace takes of.
    pub(super) fn group(&self, namespace: &str) -> String {
        let books = self.lock();
        let requester = books.requesters.get(namespace).map_or("", String::as_str);
        gantry_nodeagent_api::share_group(requester, namespace)
    }

    /// 403 if there is no room for `more` bytes of an object. What is being written at the same time is not counted yet.
    pub(super) fn check(
        &self,
        kind: &Kind,
        object: &Value,
        more: usize,
        limits: &ObjectLimits,
    ) -> Result<(), ApiError> {
        let books = self.lock();
        let whose = books.whose_is(kind, object);
        let used = books.used.get(&whose);
        let own = used.map_or(0, |used| used.bytes);
        let (own_after, all_after) = (own.saturating_add(more), books.all.saturating_add(more));
        // When all is full, whoever has less than his share has room still.
        let share = limits.all_bytes / books.used.len().max(1);
        let most = match all_after > limits.all_bytes {
            true => limits.namespace_bytes.min(share),
            false => limits.namespace_bytes,
        };
        if own_after > most {
            let why = format!("exceeded quota: {whose} come to {own} bytes, limited to {most}: delete some");
            return Err(ApiError::forbidden_object(kind, meta::text(object, "name"), &why));
        }
        Ok(())
    }

    /// 403 if there are too many of this kind already. Each makes work for all.
    pub(super) fn check_count(
        &self,
        kind: &Kind,
        object: &Value,
        limits: &ObjectLimits,
    ) -> Result<(), ApiError> {
        let Some((_, most)) = limits.counts.iter().find(|(name, _)| *name == kind.kind) else {
            return Ok(());
        };
        let books = self.lock();
        let whose = books.whose_is(kind, object);
        let counts = books.used.get(&whose).map(|used| &used.counts);
        let count = counts.and_then(|counts| counts.get(kind.plural)).copied();
        if count.unwrap_or_default() < *most {
            return Ok(());
        }
        let why = format!(
            "exceeded quota: {most} {} are among the {whose}, no more are taken: delete some",
            kind.plural
        );
        Err(ApiError::forbidden_object(kind, meta::text(object, "name"), &why))
    }
}

impl Books {
    fn whose_is(&self, kind: &Kind, object: &Value) -> String {
        match kind.kind {
            "Namespace" => whose(requester(object), meta::text(object, "name")),
            _ => self.whose(meta::text(object, "namespace")),
        }
    }

    fn whose(&self, namespace: &str) -> String {
        whose(self.requesters.get(namespace).map(String::as_str), namespace)
    }

    fn count(&mut self, event: &Event) {
        let (namespace, plural) = place(&event.key);
        if plural == NAMESPACES
            && let Some(version) = &event.after
        {
            self.made(namespace, version);
        }
        if let Some(version) = &event.after {
            self.add(version);
        }
        if let Some(version) = &event.before {
            self.take(version);
        }
        if plural == NAMESPACES && event.after.is_none() {
            self.requesters.remove(namespace);
        }
    }

    fn add(&mut self, version: &Version) {
        let (namespace, plural) = place(&version.key);
        let used = self.used.entry(self.whose(namespace)).or_default();
        used.bytes += cost(version);
        *used.count(plural) += 1;
        self.all += cost(version);
    }

    fn take(&mut self, version: &Version) {
        let (namespace, plural) = place(&version.key);
        let whose = self.whose(namespace);
        let Some(used) = self.used.get_mut(&whose) else {
            return;
        };
        used.bytes = used.bytes.saturating_sub(cost(version));
        let count = used.count(plural);
        *count = count.saturating_sub(1);
        if *count == 0 {
            used.counts.remove(plural);
        }
        if used.counts.is_empty() {
            self.used.remove(&whose);
        }
        self.all = self.all.saturating_sub(cost(version));
    }

    fn made(&mut self, namespace: &str, version: &Version) {
        if let Some(requester) = requester(&codec::decode(version)) {
            self.requesters.insert(namespace.to_owned(), requester.to_owned());
        }
    }

    fn recount(all: &[Version]) -> Self {
        let mut books = Self::default();
        for version in all {
            let (namespace, plural) = place(&version.key);
            if plural == NAMESPACES {
                books.made(namespace, version);
            }
        }
        all.iter().for_each(|version| books.add(version));
        books
    }
}

/// In words, for the message too.
fn whose(requester: Option<&str>, namespace: &str) -> String {
    match (requester, namespace) {
        (Some(user), _) => format!("objects of the namespaces that {user} has made"),
        (None, "") => NOBODY.to_owned(),
        (None, namespace) => format!("objects of namespace {namespace}"),
    }
}

fn cost(version: &Version) -> usize {
    version.key.len() + version.value.len() + OVERHEAD
}

/// Namespace and plural of a key `/registry/<group>/<plural>/[<namespace>/]<name>`; a namespace is in itself.
fn place(key: &str) -> (&str, &str) {
    let parts: Vec<&str> = key.split('/').collect();
    match parts[..] {
        ["", _, _, plural, namespace, _] => (namespace, plural),
        ["", _, "core", NAMESPACES, name] => (name, NAMESPACES),
        ["", _, _, plural, _] => ("", plural),
        _ => ("", ""),
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
        *self.room.lock() = Books::recount(&listing.items);
        let mut watch = match self.store.watch(OBJECTS, listing.revision) {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        drop(listing);
        loop {
            match watch.next().await {
                Ok(batch) => {
                    let mut books = self.room.lock();
                    batch.events.iter().for_each(|event| books.count(event));
                }
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
        assert_eq!(place("/registry/core/configmaps/a/b"), ("a", "configmaps"));
        assert_eq!(place("/registry/core/namespaces/a"), ("a", "namespaces"));
        assert_eq!(place("/registry/core/nodes/a"), ("", "nodes"));
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

    /// What was written to the books of these limits: `(namespace, bytes)`, by the users that made the namespaces.
    fn books(made: &[(&str, &str)], written: &[(&str, usize)]) -> Room {
        let mut books = Books::default();
        for (namespace, user) in made {
            books
                .requesters
                .insert((*namespace).to_owned(), (*user).to_owned());
        }
        for (namespace, bytes) in written {
            books.used.entry(books.whose(namespace)).or_default().bytes += bytes;
            books.all += bytes;
        }
        Room(Arc::new(Mutex::new(books)))
    }

    fn takes(room: &Room, namespace: &str) -> bool {
        let limits = ObjectLimits {
            namespace_bytes: 600,
            all_bytes: 1000,
            ..ObjectLimits::default()
        };
        let object = json!({"metadata": {"name": "m", "namespace": namespace}});
        room.check(named("ConfigMap").unwrap(), &object, 200, &limits)
            .is_ok()
    }

    #[test]
    fn many_namespaces_of_one_person_have_room_once() {
        let made = [("a", "eve"), ("b", "eve"), ("c", "bob")];
        let room = books(&made, &[("a", 300), ("b", 200), ("d", 100)]);
        assert!(!takes(&room, "a") && !takes(&room, "b"));
        assert!(takes(&room, "c") && takes(&room, "d"));
    }

    #[test]
    fn when_all_is_full_who_has_less_than_his_share_has_room() {
        let room = books(&[], &[("a", 500), ("b", 400), ("c", 100)]);
        assert!(!takes(&room, "a") && !takes(&room, "b") && takes(&room, "c"));
    }
}
