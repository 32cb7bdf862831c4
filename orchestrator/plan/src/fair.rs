//! Whose turn it is: among pods of one priority, the namespace that has the fewest pods in place, then within it the crowd that has.
//! A flood of pods waits for itself, not before the one pod of another.

use std::collections::BTreeMap;

use crate::board::Board;
use crate::{PodRequest, PodUid};

/// Pods that are alike: of one namespace, and with one key to spread by.
type Crowd<'a> = (&'a str, Option<&'a str>);

fn crowd(request: &PodRequest) -> Crowd<'_> {
    let key = request.anti_affinity.first().map(|rule| rule.key.as_str());
    (&request.namespace, key)
}

/// The pods without a place, each after as many of its namespace, and of its crowd, as have one or come before; where that is equal, in
/// the order given.
pub(crate) fn fair<'o>(board: &Board<'_>, order: &[&'o PodUid]) -> Vec<&'o PodUid> {
    let requests = &board.snapshot.pods;
    let mut in_crowd: BTreeMap<Crowd<'_>, usize> = BTreeMap::new();
    let mut in_namespace: BTreeMap<(i32, &str), usize> = BTreeMap::new();
    let mut placed_in: BTreeMap<&str, usize> = BTreeMap::new();
    for request in board.placed().filter_map(|(uid, _)| requests.get(uid)) {
        *in_crowd.entry(crowd(request)).or_default() += 1;
        *placed_in.entry(&request.namespace).or_default() += 1;
    }
    let waiting = order.iter().copied().filter(|uid| board.placement(uid).is_none());
    let mut turns = Vec::new();
    for (index, (uid, request)) in waiting
        .filter_map(|uid| Some((uid, requests.get(uid)?)))
        .enumerate()
    {
        let alone = request.anti_affinity.is_empty();
        let turn = if alone {
            0
        } else {
            next(in_crowd.entry(crowd(request)).or_default())
        };
        turns.push((request, turn, index, uid));
    }
    turns.sort_by_key(|(request, turn, index, _)| (std::cmp::Reverse(request.priority), *turn, *index));
    let mut fair: Vec<_> = turns
        .into_iter()
        .map(|(request, turn, index, uid)| {
            let namespace = request.namespace.as_str();
            let start = placed_in.get(namespace).copied().unwrap_or(0);
            let count = in_namespace.entry((request.priority, namespace)).or_insert(start);
            (
                (std::cmp::Reverse(request.priority), next(count), turn, index),
                uid,
            )
        })
        .collect();
    fair.sort_by_key(|(key, _)| *key);
    fair.into_iter().map(|(_, uid)| uid).collect()
}

/// The count, which then goes up.
fn next(count: &mut usize) -> usize {
    *count += 1;
    *count - 1
}
