//! Helpers over Kubernetes metadata.

use std::collections::BTreeMap;

use gantry_api::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};

/// A point in time, whole seconds as in Kubernetes.
pub fn time(ms: u64) -> Time {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Milliseconds since the Unix epoch.
pub fn millis(time: &Time) -> u64 {
    u64::try_from(time.0.as_millisecond()).unwrap_or(0)
}

/// Hexadecimal SHA-256 over the parts, each ended by a zero byte.
pub fn hash(parts: &[&str]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part.as_bytes());
        sha.update([0]);
    }
    hex::encode(sha.finalize())
}

/// A hash in the form of a UUID version 8 (RFC 9562, section 5.8).
pub fn uuid(hash: &str) -> String {
    format!(
        "{}-{}-8{}-8{}-{}",
        &hash[..8],
        &hash[8..12],
        &hash[12..15],
        &hash[15..18],
        &hash[18..30]
    )
}

/// Sets uid, birth and generation of a new object. The uid is unique as long as no name is born twice in one millisecond.
pub fn be_born(kind: &str, meta: &mut ObjectMeta, now_ms: u64) {
    let namespace = meta.namespace.clone().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    let h = hash(&[kind, &namespace, &name, &now_ms.to_string()]);
    meta.uid = Some(uuid(&h));
    meta.creation_timestamp = Some(time(now_ms));
    meta.generation = Some(1);
}

/// The uid, empty before birth.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// The name.
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The namespace.
pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// A label's value.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// An annotation's value.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Sets an annotation, or takes it away.
pub fn annotate(meta: &mut ObjectMeta, key: &str, value: Option<String>) {
    let annotations = meta.annotations.get_or_insert_default();
    match value {
        Some(value) => annotations.insert(key.to_owned(), value),
        None => annotations.remove(key),
    };
    if annotations.is_empty() {
        meta.annotations = None;
    }
}

/// A reference to the controller `owner`.
pub fn owner(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The uid of the owner that is the controller. References are what users wrote: [`controls`] and [`controller`] say whose an object is.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    meta.owner_references
        .as_ref()?
        .iter()
        .find(|o| o.controller == Some(true))
        .map(|o| o.uid.as_str())
}

/// An object as an owner: namespace and uid. As in Kubernetes, an owner is in the namespace of what it owns: a reference to one in
/// another names nobody.
pub type Owner<'a> = (&'a str, &'a str);

/// Who controls an object, by what it says.
pub fn controller(meta: &ObjectMeta) -> Option<Owner<'_>> {
    Some((namespace(meta), controller_uid(meta)?))
}

/// Whether `owner` controls an object.
pub fn controls(owner: &ObjectMeta, object: &ObjectMeta) -> bool {
    controller(object) == Some((namespace(owner), uid(owner)))
}

/// Whether `labels` has all of `selector`. An empty selector selects nothing.
pub fn selects(selector: &BTreeMap<String, String>, labels: Option<&BTreeMap<String, String>>) -> bool {
    !selector.is_empty()
        && labels.is_some_and(|labels| selector.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

/// Labels from pairs.
pub fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}
