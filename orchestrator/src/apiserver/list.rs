//! Lists, in pages of one revision.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::accept::Form;
use super::error::ApiError;
use super::path::Resource;
use super::query::Query;
use super::rest::Call;
use super::selector::Selector;
use super::share::{Cost, Reading, Seat};
use super::{held, table};
use crate::kinds::codec;
use crate::store::{Listing, Range, Revision, Version};

/// Size of the pieces of a streamed list.
const CHUNK_BYTES: usize = 64 << 10;

/// Objects that a request may look at and count as light: a page of kubectl's.
const PAGE: usize = 500;
/// Bytes of objects that it may.
const PAGE_BYTES: usize = 4 << 20;
/// Longest token of a page: a key, encoded.
const TOKEN_BYTES: usize = 2048;

fn token(revision: Revision, last: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{revision}:{last}"))
}

fn parse_token(token: &str) -> Result<(Revision, String), ApiError> {
    let wrong = || ApiError::bad_request("the continue parameter is not one of ours: list again without it");
    if token.len() > TOKEN_BYTES {
        return Err(wrong());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (revision, last) = text.split_once(':').ok_or_else(wrong)?;
    Ok((Revision(revision.parse().map_err(|_| wrong())?), last.to_owned()))
}

fn range(resource: &Resource<'_>, query: &Query, one: Option<&str>) -> Result<Range, ApiError> {
    let mut range = Range {
        limit: query.limit,
        ..Range::prefix(resource.kind.prefix(resource.namespace))
    };
    if let Some(name) = one
        && (resource.namespace.is_some() || !resource.kind.namespaced)
    {
        range.prefix.push_str(name);
    }
    if !query.continue_.is_empty() {
        let (at, after) = parse_token(&query.continue_)?;
        range.at = Some(at);
        range.after = Some(after);
    } else if query.resource_version_match == "Exact" {
        let at = query
            .resource_version
            .parse()
            .map_err(|_| ApiError::bad_request("resourceVersion is not a number"))?;
        range.at = Some(Revision(at));
    }
    Ok(range)
}

/// Answers a list request. Many objects need another seat.
pub async fn list(call: &Call<'_>, seat: Seat) -> Result<Response, ApiError> {
    let (resource, query) = (call.resource, &call.query);
    let selector = query.selector(&call.server.limits.objects)?;
    let mut range = range(&resource, query, selector.name())?;
    if !selector.is_everything() {
        // What the selector leaves out does not count for the page.
        range.limit = 0;
    }
    let (listing, seat) = seated(call, seat, range).await?;
    let counted = selector.is_everything();
    let wanted = query.limit;
    // Parsing many objects takes a while: not on a thread that others' answers wait for.
    let selected = tokio::task::spawn_blocking(move || (select(listing, &selector, wanted), seat));
    let (listing, seat) = selected
        .await
        .map_err(|e| ApiError::internal(format!("make the list: {e}")))?;
    let metadata = metadata(&listing, counted);
    Ok(held::keep(answer(call, listing, &metadata)?, seat.while_read()))
}

/// The answer to whoever asked, which waits to be read.
pub(super) fn answer(call: &Call<'_>, listing: Listing, metadata: &Value) -> Result<Response, ApiError> {
    let reading = reading(call, &listing.items, listing.revision)?;
    Ok(held::keep(stream(call, listing.items, metadata), reading))
}

/// What a list takes while it is read: a piece at a time. The objects are the store's own, until it forgets them.
pub(super) fn reading(call: &Call<'_>, items: &[Version], at: Revision) -> Result<Reading, ApiError> {
    let sizes = || items.iter().map(|version| version.value.len());
    let piece = CHUNK_BYTES + sizes().max().unwrap_or_default();
    let bytes = std::mem::size_of_val(items) + piece;
    let forgotten = call.server.objects.store().compacted();
    call.client.unread.forgotten(forgotten);
    call.client.reading(bytes, Some((at, sizes().sum())))
}

/// What the store has, with the seat that the request has, or one for many objects. Whoever waits for that holds nothing
/// meanwhile: hundreds may wait, each for thousands of objects.
pub(super) async fn seated(call: &Call<'_>, seat: Seat, range: Range) -> Result<(Listing, Seat), ApiError> {
    let store = call.server.objects.store();
    let listing = store.list(range.clone()).await?;
    let bytes: usize = listing.items.iter().map(|v| v.value.len()).sum();
    if listing.items.len() <= PAGE && bytes <= PAGE_BYTES {
        return Ok((listing, seat));
    }
    drop((listing, seat));
    let seat = call.server.share.enter(Cost::Heavy, &call.client).await?;
    Ok((store.list(range).await?, seat))
}

fn select(mut listing: Listing, selector: &Selector, wanted: usize) -> Listing {
    if selector.is_everything() {
        return listing;
    }
    listing.items.retain(|version| selector.selects(version));
    if wanted > 0 && listing.items.len() > wanted {
        listing.remaining = listing.items.len() - wanted;
        listing.items.truncate(wanted);
    }
    listing
}

fn metadata(listing: &Listing, counted: bool) -> Value {
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    if listing.remaining > 0
        && let Some(last) = listing.items.last()
    {
        metadata["continue"] = json!(token(listing.revision, &last.key));
        if counted {
            metadata["remainingItemCount"] = json!(listing.remaining);
        }
    }
    metadata
}

/// In pieces, each made when the one before it has been taken: a row or an object at a time.
fn stream(call: &Call<'_>, items: Vec<Version>, metadata: &Value) -> Response {
    let (kind, form, include) = (call.resource.kind, call.form, call.query.include_object.clone());
    let head = match form {
        Form::Object => format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            kind.kind,
            kind.api_version()
        ),
        Form::Metadata => format!(
            "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"items\":["
        ),
        Form::Table => format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{},\"rows\":[",
            table::columns(kind)
        ),
    };
    let now = OffsetDateTime::now_utc();
    let append = move |chunk: &mut BytesMut, version: &Version| match form {
        Form::Object => codec::splice(&version.value, version.mod_revision, chunk),
        Form::Metadata => push(chunk, &table::partial(&codec::decode(version))),
        Form::Table => push(chunk, &table::row(kind, codec::decode(version), &include, now)),
    };
    let mut items = items.into_iter();
    let mut head = Some(head);
    let mut over = false;
    let chunks = std::iter::from_fn(move || {
        if over {
            return None;
        }
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let mut separator = ",";
        if let Some(head) = head.take() {
            chunk.extend_from_slice(head.as_bytes());
            separator = "";
        }
        while chunk.len() < CHUNK_BYTES && !over {
            match items.next() {
                Some(version) => {
                    chunk.extend_from_slice(std::mem::replace(&mut separator, ",").as_bytes());
                    append(&mut chunk, &version);
                }
                None => {
                    chunk.extend_from_slice(b"]}\n");
                    over = true;
                }
            }
        }
        Some(Ok::<Bytes, std::convert::Infallible>(chunk.freeze()))
    });
    let body = Body::from_stream(futures::stream::iter(chunks));
    ([(http::header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn push(chunk: &mut BytesMut, value: &Value) {
    chunk.extend_from_slice(value.to_string().as_bytes());
}
