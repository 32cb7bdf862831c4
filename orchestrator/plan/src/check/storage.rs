//! Ephemeral storage of one node.

use super::{Change, Violation};
use crate::Placement;

/// What is granted, if it is too much and a pod's share has grown.
pub(super) fn check(change: &Change<'_>, node: &str) -> Option<Violation> {
    let capacity_bytes = change.snapshot.nodes.get(node)?.storage_bytes?;
    let granted = change.on(node).map(|(_, placement)| total(placement));
    let granted_bytes = granted.fold(0, u64::saturating_add);
    let grown = change
        .on(node)
        .any(|(uid, placement)| total(placement) > change.before(uid, node).map_or(0, total));
    (grown && granted_bytes > capacity_bytes).then(|| Violation::Storage {
        node: node.to_owned(),
        granted_bytes,
        capacity_bytes,
    })
}

fn total(placement: &Placement) -> u64 {
    let containers = placement.containers.iter();
    containers.fold(0, |sum, c| sum.saturating_add(c.storage_bytes))
}
