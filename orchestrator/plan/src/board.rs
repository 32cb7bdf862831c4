//! The planner's working state: every node's books and who sits where so far.

use std::collections::BTreeMap;

use crate::book::Book;
use crate::volumes::Volumes;
use crate::{NodeName, Placement, Plan, PodUid, Snapshot};

/// All nodes and placements while a plan is being made.
pub(crate) struct Board<'a> {
    /// What the plan is made for.
    pub(crate) snapshot: &'a Snapshot,
    /// Books by node.
    pub(crate) books: BTreeMap<NodeName, Book<'a>>,
    placements: BTreeMap<PodUid, Placement>,
    /// Pods that a node reports to hold something.
    holders: BTreeMap<&'a PodUid, &'a NodeName>,
    /// How many pods have their place on a node.
    pods: BTreeMap<NodeName, usize>,
    /// How many pods hold something on a node where they have no place.
    guests: BTreeMap<NodeName, usize>,
    keys: BTreeMap<NodeName, BTreeMap<&'a str, KeyCount>>,
    /// Who has which volume where.
    pub(crate) volumes: Volumes<'a>,
    /// Rises whenever a node's books change.
    versions: BTreeMap<NodeName, u64>,
    /// Rises whenever anything changes.
    changes: u64,
}

/// How many pods on a node have an anti-affinity key.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyCount {
    /// All of them.
    pub(crate) pods: usize,
    /// Those that insist on it.
    pub(crate) required: usize,
}

impl<'a> Board<'a> {
    /// The current plan without the pods that have been deleted.
    pub(crate) fn set_up(snapshot: &'a Snapshot, current: &Plan) -> Self {
        let holders = snapshot
            .nodes
            .iter()
            .flat_map(|(name, state)| state.held.keys().map(move |uid| (uid, name)));
        let mut board = Self {
            snapshot,
            books: snapshot
                .nodes
                .iter()
                .map(|(name, state)| (name.clone(), Book::open(state)))
                .collect(),
            placements: BTreeMap::new(),
            holders: holders.collect(),
            pods: BTreeMap::new(),
            guests: snapshot
                .nodes
                .iter()
                .map(|(name, state)| (name.clone(), state.held.len()))
                .collect(),
            keys: BTreeMap::new(),
            volumes: Volumes::default(),
            versions: BTreeMap::new(),
            changes: 0,
        };
        for (uid, placement) in &current.placements {
            if snapshot.pods.contains_key(uid) {
                board.put(uid, placement.clone());
            }
        }
        board
    }

    /// Where a pod sits.
    pub(crate) fn placement(&self, uid: &str) -> Option<&Placement> {
        self.placements.get(uid)
    }

    /// The node that reports that the pod holds something there.
    pub(crate) fn holder(&self, uid: &PodUid) -> Option<&'a NodeName> {
        self.holders.get(uid).copied()
    }

    /// Gives a pod a place, or another size on its node.
    pub(crate) fn put(&mut self, uid: &str, placement: Placement) {
        self.take_back(uid);
        self.count_keys(uid, &placement.node, true);
        let request = self.snapshot.pods.get(uid);
        self.volumes.take(uid, &placement.node, request);
        if let Some(book) = self.books.get_mut(&placement.node) {
            book.set(uid, Some(&placement));
        }
        self.changed(&placement.node);
        *self.pods.entry(placement.node.clone()).or_default() += 1;
        if self.holds(&placement.node, uid)
            && let Some(guests) = self.guests.get_mut(&placement.node)
        {
            *guests -= 1;
        }
        self.placements.insert(uid.to_owned(), placement);
    }

    /// Takes a pod's place away.
    pub(crate) fn take_back(&mut self, uid: &str) {
        let Some(old) = self.placements.remove(uid) else {
            return;
        };
        self.count_keys(uid, &old.node, false);
        self.volumes.let_go(uid, self.snapshot.pods.get(uid));
        if let Some(book) = self.books.get_mut(&old.node) {
            book.set(uid, None);
        }
        if let Some(pods) = self.pods.get_mut(&old.node) {
            *pods -= 1;
        }
        if self.holds(&old.node, uid)
            && let Some(guests) = self.guests.get_mut(&old.node)
        {
            *guests += 1;
        }
        self.changed(&old.node);
    }

    /// Whether the node reports that the pod holds something there.
    fn holds(&self, node: &str, uid: &str) -> bool {
        let book = self.books.get(node);
        book.is_some_and(|b| b.state.held.contains_key(uid))
    }

    fn changed(&mut self, node: &str) {
        self.changes += 1;
        match self.versions.get_mut(node) {
            Some(version) => *version += 1,
            None => {
                self.versions.insert(node.to_owned(), 1);
            }
        }
    }

    /// How many pods a node has besides this one without a place: by plan, or because it still holds something of theirs.
    pub(crate) fn pods_besides(&self, node: &str, uid: &str) -> usize {
        let count = |pods: &BTreeMap<NodeName, usize>| pods.get(node).copied().unwrap_or(0);
        count(&self.pods) + count(&self.guests) - usize::from(self.holds(node, uid))
    }

    /// Pods with an anti-affinity key on a node.
    pub(crate) fn with_key(&self, node: &str, key: &str) -> KeyCount {
        self.keys
            .get(node)
            .and_then(|keys| keys.get(key))
            .copied()
            .unwrap_or_default()
    }

    /// A number that changes whenever the node's books do.
    pub(crate) fn version(&self, node: &str) -> u64 {
        self.versions.get(node).copied().unwrap_or(0)
    }

    /// A number that changes whenever anything does.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The pods that have a place.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&PodUid, &Placement)> {
        self.placements.iter()
    }

    /// The placements, and each node's shared pool.
    pub(crate) fn into_plan(self, id: u64, parent: u64) -> Plan {
        let shared_pools = self
            .books
            .iter()
            .map(|(name, book)| (name.clone(), book.shared_pool()))
            .collect();
        Plan {
            id,
            parent,
            placements: self.placements,
            shared_pools,
        }
    }

    fn count_keys(&mut self, uid: &str, node: &str, add: bool) {
        let Some(request) = self.snapshot.pods.get(uid) else {
            return;
        };
        for rule in &request.anti_affinity {
            let count = self
                .keys
                .entry(node.to_owned())
                .or_default()
                .entry(rule.key.as_str())
                .or_default();
            let required = usize::from(rule.required);
            if add {
                count.pods += 1;
                count.required += required;
            } else {
                count.pods -= 1;
                count.required -= required;
            }
        }
    }
}
