//! The order of decisions.

use std::cmp::Reverse;

use crate::board::Board;
use crate::place::place_all;
use crate::resize::resize_all;
use crate::{Outcome, Plan, PodUid, Snapshot};

/// The next plan: pods keep their places, resizes are granted, pods without a place get one; what does not fit is
/// explained. Pure and deterministic; the seed only breaks ties between equally good nodes.
pub fn plan(snapshot: &Snapshot, current: &Plan, seed: u64) -> Outcome {
    let mut order: Vec<(&PodUid, _)> = snapshot
        .pods
        .iter()
        .map(|(uid, pod)| (uid, (Reverse(pod.priority), &pod.namespace, &pod.name, uid)))
        .collect();
    order.sort_by(|a, b| a.1.cmp(&b.1));
    let order: Vec<&PodUid> = order.into_iter().map(|(uid, _)| uid).collect();

    let mut board = Board::set_up(snapshot, current);
    let unplaced = loop {
        let mut unplaced = resize_all(&mut board, &order);
        let (new, holder_placed) = place_all(&mut board, &order, seed);
        unplaced.extend(new);
        // What a pod holds is in everybody's way until the pod has a place: then others may fit after all.
        if unplaced.is_empty() || !holder_placed {
            break unplaced;
        }
    };

    let next = board.into_plan(current.id + 1, current.id);
    let unchanged = next.placements == current.placements && next.shared_pools == current.shared_pools;
    Outcome {
        plan: if unchanged { current.clone() } else { next },
        unplaced,
    }
}
