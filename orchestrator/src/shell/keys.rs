//! Where the core's things are in the store.

use crate::core::{KINDS, Key};
use crate::kinds;

/// The plan in force.
pub(super) const PLAN: &str = "/gantry/plan";
/// Configurations of the nodes, by name.
pub(crate) const CONFIGS: &str = "/gantry/nodeconfig/";
/// Every key starts with this.
pub(super) const ALL: &str = "/";
/// What is no object: the core's own, and the service address that was taken last.
pub(super) const OWN: &str = "/gantry/";

/// Key of an object; `None` for a kind without a row in the table of kinds.
pub(super) fn object(kind: &str, key: &Key) -> Option<String> {
    Some(kinds::named(kind)?.key(&key.namespace, &key.name))
}

/// Kind and key of an object in the store; `None` for kinds that the core does not look at.
pub(super) fn parse(store_key: &str) -> Option<(&'static str, Key)> {
    KINDS.iter().find_map(|(name, _, _)| {
        let kind = kinds::named(name)?;
        let rest = store_key.strip_prefix(&kind.prefix(None))?;
        let key = match rest.split_once('/') {
            Some((namespace, name)) if kind.namespaced => Key::new(namespace, name),
            None if !kind.namespaced => Key::new("", rest),
            _ => return None,
        };
        Some((*name, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_core_has_a_place_in_the_store() {
        for (kind, group, plural) in KINDS {
            let row = kinds::named(kind).unwrap_or_else(|| panic!("{kind} has no row"));
            assert_eq!((row.group, row.plural), (*group, *plural));
            let key = Key::new(if row.namespaced { "ns" } else { "" }, "x");
            assert_eq!(parse(&object(kind, &key).unwrap()), Some((*kind, key)));
        }
        assert_eq!(parse("/registry/core/events/ns/x"), None);
    }
}
