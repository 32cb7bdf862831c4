//! Watches: a stream of events, each encoded once for all its watchers.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accept::Form;
use super::error::ApiError;
use super::looked::looked;
use super::rest::Call;
use super::selector::Selector;
use super::share::{Client, Cost, Reading, Seat, Share};
use super::{held, list, table};
use crate::kinds::{Kind, codec};
use crate::store::{Event, Range, Revision, StoreError, Version, Watch, WatchBatch};

/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_secs(30);
/// Length of a watch that does not say: half an hour to an hour, as Kubernetes.
const LENGTH_S: u64 = 1800;
/// Longest watch: a day.
const MAX_LENGTH_S: u64 = 86_400;

/// Bytes of objects that were there already and are made ready at once.
const CHUNK_BYTES: usize = 64 << 10;

/// An object larger than this is much work to make ready.
const LARGE_BYTES: usize = 16 << 10;

/// What was there already and is not made ready yet.
struct First {
    items: std::vec::IntoIter<Version>,
    /// A marked bookmark comes after it.
    bookmark: bool,
    _kept: Box<dyn Send + Sync>,
}

/// One client's watch.
struct Watcher {
    kind: &'static Kind,
    selector: Selector,
    form: Form,
    include: String,
    bookmarks: bool,
    source: Box<dyn Watch>,
    seen: Revision,
    first: Option<First>,
    /// Ready to be sent.
    queue: VecDeque<Bytes>,
    client: Client,
    share: Share,
    /// What was sent last and is perhaps not read yet.
    unread: Option<Reading>,
    next_bookmark: Instant,
    end: Instant,
    shutdown: CancellationToken,
    over: bool,
}

/// Answers a watch request. The seat is kept while the objects that are there already are sent.
pub async fn watch(call: &Call<'_>, mut seat: Seat) -> Result<Response, ApiError> {
    let (store, resource, query) = (call.server.objects.store(), &call.resource, &call.query);
    let counted = call.server.share.stream(&call.client)?;
    let selector = query.selector(&call.server.limits.objects)?;
    let prefix = resource.kind.prefix(resource.namespace);
    let from_start = matches!(query.resource_version.as_str(), "" | "0");
    let mut initial = Vec::new();
    let after = if from_start || query.initial_events() {
        let (listing, fitting) = list::seated(call, seat, Range::prefix(prefix.clone())).await?;
        (initial, seat) = (listing.items, fitting);
        listing.revision
    } else {
        let given = query.resource_version.parse();
        let after = Revision(given.map_err(|_| ApiError::bad_request("resourceVersion is not a number"))?);
        let newest = store.revision();
        if after > newest {
            return Err(StoreError::Future { asked: after, newest }.into());
        }
        after
    };
    let reading = list::reading(call, &initial, after)?;
    let now = Instant::now();
    let watcher = Watcher {
        kind: resource.kind,
        selector,
        form: call.form,
        include: query.include_object.clone(),
        bookmarks: query.bookmarks(),
        source: store.watch(&prefix, after)?,
        seen: after,
        first: Some(First {
            items: initial.into_iter(),
            bookmark: query.initial_events(),
            _kept: Box::new((seat.while_read(), reading)),
        }),
        queue: VecDeque::new(),
        client: call.client.clone(),
        share: call.server.share.clone(),
        unread: None,
        next_bookmark: now + BOOKMARK,
        end: now + Duration::from_secs(query.timeout_seconds.unwrap_or(LENGTH_S).min(MAX_LENGTH_S)),
        shutdown: call.server.shutdown.clone(),
        over: false,
    };
    let body = Body::from_stream(futures::stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watcher))
    }));
    let response = ([(http::header::CONTENT_TYPE, "application/json")], body).into_response();
    Ok(held::keep(response, counted))
}

impl Watcher {
    /// Some more of what was there already, made when it is wanted; false when all of it is made.
    async fn push_first(&mut self) -> Result<bool, ApiError> {
        let Some(mut first) = self.first.take() else {
            return Ok(false);
        };
        let mut room = CHUNK_BYTES;
        while let Some(version) = first.items.next() {
            room = room.saturating_sub(version.value.len().max(1));
            self.push_initial(version).await?;
            if room == 0 {
                self.first = Some(first);
                return Ok(true);
            }
        }
        if first.bookmark {
            self.push_bookmark(true);
        }
        Ok(true)
    }

    async fn push_initial(&mut self, version: Version) -> Result<(), ApiError> {
        if self.selector.selects(&version) {
            let revision = version.mod_revision;
            self.push_version("ADDED", version, revision).await?;
        }
        Ok(())
    }

    /// An object that only this watcher needs in this form. Much work is done in turns, as that of lists.
    async fn push_version(
        &mut self,
        type_: &'static str,
        version: Version,
        revision: Revision,
    ) -> Result<(), ApiError> {
        let (kind, form, include) = (self.kind, self.form, self.include.clone());
        let large = version.value.len() > LARGE_BYTES;
        let make = move || match form {
            Form::Object => line(type_, &version.value, revision),
            Form::Table | Form::Metadata => {
                let object = codec::decode_at(&version.value, revision);
                text(&json!({"type": type_, "object": table::shape(kind, object, form, &include)}))
            }
        };
        let made = if large {
            let _seat = self.share.enter(Cost::Heavy, &self.client).await?;
            let made = tokio::task::spawn_blocking(make).await;
            made.map_err(|e| ApiError::internal(format!("make an event: {e}")))?
        } else {
            make()
        };
        self.queue.push_back(made);
        Ok(())
    }

    fn push_bookmark(&mut self, initial: bool) {
        let mut metadata = json!({"resourceVersion": self.seen.to_string(), "creationTimestamp": null});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object =
            json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata});
        let object = match self.form {
            Form::Table => table::table(self.kind, &[], &json!({"resourceVersion": self.seen.to_string()})),
            Form::Object | Form::Metadata => object,
        };
        self.queue
            .push_back(text(&json!({"type": "BOOKMARK", "object": object})));
    }

    /// The next piece of the body; `None` ends it. Who asks for it has sent the one before. A client that has too much to read
    /// finds its watch ended, and goes on from where it was.
    async fn next(&mut self) -> Option<Bytes> {
        self.unread = None;
        let chunk = self.chunk().await?;
        self.unread = self.client.reading(chunk.len(), None).ok();
        if self.unread.is_none() {
            tracing::warn!(
                user = self.client.user,
                "a client does not read its answers: its watch ends"
            );
            return None;
        }
        Some(chunk)
    }

    async fn chunk(&mut self) -> Option<Bytes> {
        while self.queue.is_empty() {
            if self.over {
                return None;
            }
            match self.push_first().await {
                Ok(false) => {}
                Ok(true) => {
                    // Others have a turn in between: what is small above waits for nothing.
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => {
                    self.push_error(&error);
                    continue;
                }
            }
            // All arms are cancel-safe: `Watch::next` promises it, the others are timers and a token.
            tokio::select! {
                batch = self.source.next() => {
                    if let Err(error) = self.push_batch(batch).await {
                        self.push_error(&error);
                    }
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    self.push_bookmark(false);
                }
                () = tokio::time::sleep_until(self.end) => return None,
                () = self.shutdown.cancelled() => return None,
            }
        }
        if self.queue.len() == 1 {
            return self.queue.pop_front();
        }
        let mut chunk = BytesMut::new();
        self.queue
            .drain(..)
            .for_each(|line| chunk.extend_from_slice(&line));
        Some(chunk.freeze())
    }

    async fn push(&mut self, event: &Event) -> Result<(), ApiError> {
        let (before, after) = (&event.before, &event.after);
        let [had, has] = self.chosen(event);
        let as_it_was = had == before.is_some() && has == after.is_some();
        let (type_, version) = match (before, after) {
            _ if as_it_was && self.form == Form::Object => {
                self.queue
                    .push_back(event.wire.get_or_init(|| encode(event)).clone());
                return Ok(());
            }
            (_, Some(after)) if has => (if had { "MODIFIED" } else { "ADDED" }, after),
            // It is gone, or no longer selected: as it was when it last matched, at the version of the change.
            (Some(before), _) if had => ("DELETED", before),
            _ => return Ok(()),
        };
        self.push_version(type_, version.clone(), event.revision).await
    }

    async fn push_batch(&mut self, batch: Result<WatchBatch, StoreError>) -> Result<(), ApiError> {
        let batch = batch?;
        for event in &batch.events {
            self.push(event).await?;
        }
        self.seen = batch.through;
        Ok(())
    }

    /// The watch ends with it.
    fn push_error(&mut self, error: &ApiError) {
        self.over = true;
        let status = error.status();
        self.queue
            .push_back(text(&json!({"type": "ERROR", "object": status})));
    }

    /// Whether what was there before and what is after it are selected.
    fn chosen(&self, event: &Event) -> [bool; 2] {
        let both = [&event.before, &event.after];
        if self.selector.is_everything() {
            return both.map(Option::is_some);
        }
        let looked = || both.map(|version| version.as_ref().map_or(Value::Null, |v| looked(&v.value)));
        let looked = event.looked.get_or_init(looked);
        [0, 1].map(|i| both[i].is_some() && self.selector.matches(&looked[i]))
    }
}

fn encode(event: &Event) -> Bytes {
    match (&event.before, &event.after) {
        (None, Some(after)) => line("ADDED", &after.value, event.revision),
        (Some(_), Some(after)) => line("MODIFIED", &after.value, event.revision),
        (Some(before), None) => line("DELETED", &before.value, event.revision),
        (None, None) => Bytes::new(),
    }
}

fn line(type_: &str, value: &[u8], revision: Revision) -> Bytes {
    let mut out = BytesMut::with_capacity(value.len() + 80);
    out.extend_from_slice(format!("{{\"type\":\"{type_}\",\"object\":").as_bytes());
    codec::splice(value, revision, &mut out);
    out.extend_from_slice(b"}\n");
    out.freeze()
}

fn text(event: &Value) -> Bytes {
    Bytes::from(event.to_string() + "\n")
}
