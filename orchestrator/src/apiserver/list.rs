//! Lists, in pages of one revision.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::accept::Form;
use super::error::ApiError;
use super::path::Resource;
use super::query::Query;
use super::table;
use crate::kinds::codec;
use crate::store::{Listing, Range, Revision, Store, Version};

/// Size of the pieces of a streamed list.
const CHUNK_BYTES: usize = 64 << 10;

fn token(revision: Revision, last: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{revision}:{last}"))
}

fn parse_token(token: &str) -> Result<(Revision, String), ApiError> {
    let wrong = || ApiError::bad_request("the continue parameter is not one of ours: list again without it");
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

/// Answers a list request.
pub async fn list(
    store: &dyn Store,
    resource: &Resource<'_>,
    query: &Query,
    form: Form,
) -> Result<Response, ApiError> {
    let selector = query.selector()?;
    let mut range = range(resource, query, selector.name())?;
    let wanted = query.limit;
    if !selector.is_everything() {
        // What the selector leaves out does not count for the page.
        range.limit = 0;
    }
    let mut listing = store.list(range).await?;
    if !selector.is_everything() {
        listing
            .items
            .retain(|version| selector.matches(&codec::decode(version)));
        if wanted > 0 && listing.items.len() > wanted {
            listing.remaining = listing.items.len() - wanted;
            listing.items.truncate(wanted);
        }
    }
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    if listing.remaining > 0
        && let Some(last) = listing.items.last()
    {
        metadata["continue"] = json!(token(listing.revision, &last.key));
        if selector.is_everything() {
            metadata["remainingItemCount"] = json!(listing.remaining);
        }
    }
    Ok(match form {
        Form::Object => stream(resource, metadata, listing),
        Form::Table => {
            let objects: Vec<Value> = listing.items.iter().map(codec::decode).collect();
            axum::Json(table::table(
                resource.kind,
                &objects,
                metadata,
                &query.include_object,
            ))
            .into_response()
        }
        Form::Metadata => {
            let items: Vec<Value> = listing
                .items
                .iter()
                .map(|v| table::partial(&codec::decode(v)))
                .collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
            });
            axum::Json(list).into_response()
        }
    })
}

/// The objects as stored, without parsing them, in pieces.
fn stream(resource: &Resource<'_>, metadata: Value, listing: Listing) -> Response {
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        resource.kind.kind,
        resource.kind.api_version()
    );
    let mut items = listing.items.into_iter().enumerate().peekable();
    let mut head = Some(head);
    let chunks = std::iter::from_fn(move || {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        if let Some(head) = head.take() {
            chunk.extend_from_slice(head.as_bytes());
            if items.peek().is_none() {
                chunk.extend_from_slice(b"]}\n");
                return Some(Ok::<Bytes, std::convert::Infallible>(chunk.freeze()));
            }
        }
        while chunk.len() < CHUNK_BYTES
            && let Some((i, version)) = items.next()
        {
            append(&mut chunk, i, &version);
            if items.peek().is_none() {
                chunk.extend_from_slice(b"]}\n");
            }
        }
        (!chunk.is_empty()).then(|| Ok(chunk.freeze()))
    });
    let body = Body::from_stream(futures::stream::iter(chunks));
    ([(http::header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn append(chunk: &mut BytesMut, i: usize, version: &Version) {
    if i > 0 {
        chunk.extend_from_slice(b",");
    }
    codec::splice(&version.value, version.mod_revision, chunk);
}
