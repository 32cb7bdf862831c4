//! What rules a node out before any counting.

use crate::board::Board;
use crate::reason::Reason;
use crate::{PodRequest, PodUid};

/// The last places of a node, one in so many, are for whoever has few pods there: none fills it so that nobody else gets one in.
const KEPT_ONE_IN: u32 = 25;

/// How many places are kept for others than this pod's like, if only those are left.
fn kept_for_others(board: &Board<'_>, node: &str, uid: &PodUid, request: &PodRequest) -> Option<u32> {
    let max_pods = board.books.get(node)?.state.max_pods?;
    let kept = max_pods / KEPT_ONE_IN;
    let few_left = board.pods_besides(node, uid) + kept as usize >= max_pods as usize;
    let mut rules = request.anti_affinity.iter();
    let is_crowd = rules.any(|rule| board.with_key(node, &rule.key).pods > kept as usize);
    (kept > 0 && few_left && is_crowd).then_some(kept)
}

/// Whether a pod without a place may go to the node at all.
pub(crate) fn filter(
    board: &Board<'_>,
    node: &str,
    uid: &PodUid,
    request: &PodRequest,
) -> Result<(), Reason> {
    if let Some(wanted) = request.node_name.as_ref().filter(|wanted| *wanted != node) {
        return Err(Reason::OtherNode {
            wanted: wanted.clone(),
        });
    }
    if let Some(holder) = board.holder(uid).filter(|holder| *holder != node) {
        return Err(Reason::RunsOn { node: holder.clone() });
    }
    let Some(book) = board.books.get(node) else {
        return Err(Reason::NodeGone);
    };
    if !book.state.schedulable {
        return Err(Reason::NotSchedulable);
    }
    if book.state.disk_pressure {
        return Err(Reason::DiskPressure);
    }
    if let Some(max_pods) = book.state.max_pods
        && board.pods_besides(node, uid) >= max_pods as usize
    {
        return Err(Reason::Full { max_pods });
    }
    if let Some(kept) = kept_for_others(board, node, uid, request) {
        return Err(Reason::KeptForOthers { kept });
    }
    for (key, value) in &request.node_selector {
        if book.state.labels.get(key) != Some(value) {
            return Err(Reason::Selector {
                key: key.clone(),
                value: value.clone(),
            });
        }
    }
    crate::volumes::filter(board, node, uid, request)?;
    for rule in &request.anti_affinity {
        let there = board.with_key(node, &rule.key);
        if there.required > 0 || (rule.required && there.pods > 0) {
            return Err(Reason::AntiAffinity {
                key: rule.key.clone(),
            });
        }
    }
    Ok(())
}
