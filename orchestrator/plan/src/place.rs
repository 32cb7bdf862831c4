//! Pods without a place: one by one, groups all or none, those of whoever has least first.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::board::Board;
use crate::explain;
use crate::fair::fair;
use crate::filter::filter;
use crate::fit::Ask;
use crate::reason::Reason;
use crate::score::rank;
use crate::tried::Tried;
use crate::{Explanation, NodeName, Placement, PodRequest, PodUid};

/// Places what can be placed, in the given order. Returns the others with the reason, and whether a pod that holds
/// something on its node is among those that got a place.
pub(crate) fn place_all(
    board: &mut Board<'_>,
    order: &[&PodUid],
    seed: u64,
) -> (BTreeMap<PodUid, Explanation>, bool) {
    let mut tried = Tried::default();
    let mut unplaced = BTreeMap::new();
    let mut holder_placed = false;
    for unit in units(board, &fair(board, order)) {
        match place_unit(board, &mut tried, &unit, seed) {
            Ok(()) => holder_placed |= unit.iter().any(|uid| board.holder(uid).is_some()),
            Err(explanations) => unplaced.extend(explanations),
        }
    }
    (unplaced, holder_placed)
}

/// Pods without a place; those of one group together, where the first of them stands.
fn units<'o>(board: &Board<'_>, order: &[&'o PodUid]) -> Vec<Vec<&'o PodUid>> {
    let mut units: Vec<Vec<&PodUid>> = Vec::new();
    let mut by_group: BTreeMap<&str, usize> = BTreeMap::new();
    for uid in order.iter().copied() {
        let group = board
            .snapshot
            .pods
            .get(uid)
            .and_then(|request| request.group.as_deref());
        match group.and_then(|group| by_group.get(group)) {
            Some(index) => units[*index].push(uid),
            None => {
                by_group.extend(group.map(|group| (group, units.len())));
                units.push(vec![uid]);
            }
        }
    }
    units
}

/// All pods of the unit get a place, or none.
fn place_unit<'a>(
    board: &mut Board<'a>,
    tried: &mut Tried<'a>,
    unit: &[&PodUid],
    seed: u64,
) -> Result<(), BTreeMap<PodUid, Explanation>> {
    let snapshot = board.snapshot;
    for (index, uid) in unit.iter().enumerate() {
        let Some(request) = snapshot.pods.get(*uid) else {
            continue;
        };
        let alone = unit.len() == 1 && board.holder(uid).is_none();
        if let Some(why) = tried.refused(request, board.changes()).filter(|_| alone) {
            return Err(BTreeMap::from([((*uid).clone(), why)]));
        }
        // Nobody is asked for what cannot be had anywhere.
        let found = match request.obstacle {
            Some(_) => Err(BTreeMap::new()),
            None => place(board, tried, uid, request, seed),
        };
        match found {
            Ok(placement) => board.put(uid, placement),
            Err(reasons) => {
                unit[..index].iter().for_each(|placed| board.take_back(placed));
                let blocker = explain::unplaced(request, &reasons, &snapshot.silent);
                if alone {
                    tried.refuse(request, board.changes(), blocker.clone());
                }
                let explain_one = |other: &&PodUid| {
                    let request = snapshot.pods.get(*other)?;
                    let explanation = explain::in_group(request, &blocker, other == uid);
                    Some(((*other).clone(), explanation))
                };
                return Err(unit.iter().filter_map(explain_one).collect());
            }
        }
    }
    Ok(())
}

/// The best place for one pod, or each node's reason.
fn place<'a>(
    board: &Board<'_>,
    tried: &mut Tried<'a>,
    uid: &PodUid,
    request: &'a PodRequest,
    seed: u64,
) -> Result<Placement, BTreeMap<NodeName, Reason>> {
    let mut reasons = BTreeMap::new();
    let mut best = None;
    for (node, book) in &board.books {
        let found = match filter(board, node, uid, request) {
            Ok(()) => {
                let ask = Ask {
                    uid,
                    request,
                    node,
                    current: None,
                };
                tried.fit(board.version(node), book, &ask, request)
            }
            Err(reason) => Err(reason),
        };
        match found {
            Ok(found) => {
                let rank = rank(board, node, request, &found, seed);
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, Rc::clone(&found)));
                }
            }
            Err(reason) => {
                reasons.insert(node.clone(), reason);
            }
        }
    }
    let (_, found) = best.ok_or(reasons)?;
    let (namespace, name) = (request.namespace.clone(), request.name.clone());
    Ok(Placement {
        namespace,
        name,
        ..found.placement.clone()
    })
}
