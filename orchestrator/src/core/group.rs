//! Who has one share of what all use together. The namespaces that one person has made are one: their number is no way to more.

use gantry_api::labels::REQUESTER;

use super::world::{Key, Objects};

/// Who has made the namespace, as the API server has written it there; nobody for those that an administrator has made.
pub fn requester<'a>(objects: &'a Objects, namespace: &str) -> &'a str {
    let namespace = objects.namespaces.get(&Key::new("", namespace));
    let annotations = namespace.and_then(|namespace| namespace.metadata.annotations.as_ref());
    let requester = annotations.and_then(|annotations| annotations.get(REQUESTER));
    requester.map_or("", String::as_str)
}

/// The group that a namespace is of, as people are told.
pub fn of(objects: &Objects, namespace: &str) -> String {
    gantry_nodeagent_api::share_group(requester(objects, namespace), namespace)
}
