//! Volumes on nodes' own disks: a pod goes where its volumes are, and pods that share one go to the same node.

use std::collections::BTreeMap;

use crate::board::Board;
use crate::reason::Reason;
use crate::{NodeName, PodRequest, PodUid, VolumeRequest};

/// Who has which volume, by its key, and where.
#[derive(Default)]
pub(crate) struct Volumes<'a>(BTreeMap<&'a str, BTreeMap<PodUid, Held<'a>>>);

struct Held<'a> {
    node: NodeName,
    request: &'a VolumeRequest,
}

impl<'a> Volumes<'a> {
    /// A pod has its place.
    pub(crate) fn take(&mut self, uid: &str, node: &str, request: Option<&'a PodRequest>) {
        for volume in request.iter().flat_map(|r| &r.volumes) {
            let node = node.to_owned();
            let held = Held {
                node,
                request: volume,
            };
            self.0
                .entry(&volume.key)
                .or_default()
                .insert(uid.to_owned(), held);
        }
    }

    /// It has none any more.
    pub(crate) fn let_go(&mut self, uid: &str, request: Option<&PodRequest>) {
        for volume in request.iter().flat_map(|r| &r.volumes) {
            if let Some(users) = self.0.get_mut(volume.key.as_str()) {
                users.remove(uid);
            }
        }
    }

    /// The pods besides this one that have it.
    fn users(&self, key: &str, uid: &str) -> impl Iterator<Item = (&PodUid, &Held<'a>)> {
        let users = self.0.get(key).into_iter().flatten();
        users.filter(move |(other, _)| *other != uid)
    }

    /// What a node keeps for volumes that are new there, in bytes.
    fn new_bytes(&self, node: &str) -> u64 {
        let first = self.0.values().filter_map(|users| users.values().next());
        let new = first.filter(|held| held.node == node && held.request.node.is_none());
        new.fold(0, |sum, held| sum.saturating_add(held.request.bytes))
    }
}

/// Whether a pod without a place may go to the node because of its volumes.
pub(crate) fn filter(
    board: &Board<'_>,
    node: &str,
    uid: &PodUid,
    request: &PodRequest,
) -> Result<(), Reason> {
    let mut new_bytes = 0_u64;
    for volume in &request.volumes {
        let users = || board.volumes.users(&volume.key, uid);
        let mut places = volume
            .node
            .iter()
            .chain(users().map(|(_, held)| &held.node))
            .peekable();
        let is_new = places.peek().is_none();
        if let Some(at) = places.find(|at| *at != node) {
            return Err(Reason::VolumeElsewhere {
                volume: volume.name.clone(),
                node: at.clone(),
            });
        }
        if let Some((other, _)) = users().find(|(_, held)| volume.exclusive || held.request.exclusive) {
            return Err(Reason::VolumeInUse {
                volume: volume.name.clone(),
                pod: board
                    .snapshot
                    .pods
                    .get(other)
                    .map_or_else(String::new, |r| r.name.clone()),
            });
        }
        if is_new {
            new_bytes = new_bytes.saturating_add(volume.bytes);
        }
    }
    let book = board.books.get(node).filter(|_| new_bytes > 0);
    let Some(free_bytes) = book.and_then(|book| book.free_storage(uid)) else {
        return Ok(());
    };
    let free_bytes = free_bytes.saturating_sub(board.volumes.new_bytes(node));
    let own = request.containers.iter().map(|c| c.storage_bytes);
    let wanted_bytes = own.fold(new_bytes, u64::saturating_add);
    match wanted_bytes > free_bytes {
        true => Err(Reason::VolumeRoom {
            wanted_bytes,
            free_bytes,
        }),
        false => Ok(()),
    }
}
