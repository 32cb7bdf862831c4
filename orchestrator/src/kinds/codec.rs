//! Objects in the store and on the wire.
//!
//! Stored bytes begin with the metadata and lack the resourceVersion (it is the store's mod revision), so that an
//! object is served by splicing the version in, without parsing it.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use crate::store::{Revision, Version};

const HEAD: &[u8] = b"{\"metadata\":{";

/// The stored form of an object; its resourceVersion is left out.
pub fn encode(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(HEAD);
    let metadata = object.get("metadata").and_then(Value::as_object);
    let mut first = true;
    for (key, value) in metadata
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "resourceVersion")
    {
        push(&mut out, &mut first, key, value);
    }
    out.push(b'}');
    first = false;
    for (key, value) in object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "metadata")
    {
        push(&mut out, &mut first, key, value);
    }
    out.push(b'}');
    out.into()
}

fn push(out: &mut Vec<u8>, first: &mut bool, key: &str, value: &Value) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, key).expect("a string encodes into memory");
    out.push(b':');
    serde_json::to_writer(&mut *out, value).expect("a JSON value encodes into memory");
}

/// The wire form: the stored bytes with the resourceVersion in its place.
pub fn splice(value: &[u8], revision: Revision, out: &mut BytesMut) {
    let Some(rest) = value.strip_prefix(HEAD) else {
        // Nothing that `encode` wrote: it must not spoil the list that it stands in.
        let object =
            serde_json::from_slice::<Value>(value).unwrap_or_else(|_| serde_json::json!({"metadata": {}}));
        return out.extend_from_slice(object.to_string().as_bytes());
    };
    out.extend_from_slice(HEAD);
    out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
    if rest.first() != Some(&b'}') {
        out.extend_from_slice(b",");
    }
    out.extend_from_slice(rest);
}

/// The object of a stored version, with its resourceVersion. `Null` for bytes that are no JSON (never written by [`encode`]).
pub fn decode(version: &Version) -> Value {
    decode_at(&version.value, version.mod_revision)
}

/// As [`decode`], with another resourceVersion (a deletion's).
pub fn decode_at(value: &[u8], revision: Revision) -> Value {
    let mut object: Value = serde_json::from_slice(value).unwrap_or_default();
    set_version(&mut object, revision);
    object
}

/// Writes the resourceVersion into an object.
pub fn set_version(object: &mut Value, revision: Revision) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    }
}
