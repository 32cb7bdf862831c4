//! Words of the store.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;

use super::disk::DiskError;

/// Number of a write; rises by one with each transaction, over all keys. 1 is the empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key as one write left it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The key.
    pub key: Arc<str>,
    /// What was written.
    pub value: Bytes,
    /// Revision of the write that made the key.
    pub create_revision: Revision,
    /// Revision of this write.
    pub mod_revision: Revision,
    /// 1 for the write that made the key, 2 for the next...
    pub version: u64,
}

/// What must hold for a transaction to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Nothing.
    Any,
    /// The key exists.
    Exists,
    /// The key does not exist.
    Absent,
    /// The key exists and this was its last write.
    At(Revision),
}

/// What to do with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write a value.
    Put(Bytes),
    /// Remove the key; nothing if it is absent.
    Delete,
}

/// Comparisons and operations, all or none. Keys of the operations are distinct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub compare: Vec<(String, Compare)>,
    /// All happen.
    pub ops: Vec<(String, Op)>,
}

impl Txn {
    /// One key.
    pub fn one(key: &str, compare: Compare, op: Op) -> Self {
        Self {
            compare: vec![(key.to_owned(), compare)],
            ops: vec![(key.to_owned(), op)],
        }
    }

    /// With one more comparison.
    pub fn when(mut self, key: &str, compare: Compare) -> Self {
        self.compare.push((key.to_owned(), compare));
        self
    }

    /// With one more write.
    pub fn put(mut self, key: &str, value: Bytes) -> Self {
        self.ops.push((key.to_owned(), Op::Put(value)));
        self
    }

    /// With one more removal.
    pub fn delete(mut self, key: &str) -> Self {
        self.ops.push((key.to_owned(), Op::Delete));
        self
    }
}

/// A transaction that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its revision; the current one if no operation changed anything.
    pub revision: Revision,
    /// The keys after it, in the order of the operations; `None` where deleted.
    pub after: Vec<Option<Version>>,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Keys that start with this.
    pub prefix: String,
    /// As they were then; `None` is now.
    pub at: Option<Revision>,
    /// Only keys after this one.
    pub after: Option<String>,
    /// At most so many; 0 is all.
    pub limit: usize,
}

impl Range {
    /// All keys with a prefix, now.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }
}

/// Keys in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision that the list shows.
    pub revision: Revision,
    /// The keys.
    pub items: Vec<Version>,
    /// How many more keys there are behind the limit.
    pub remaining: usize,
}

/// One key's change.
#[derive(Debug)]
pub struct Event {
    /// The key.
    pub key: Arc<str>,
    /// The write's revision.
    pub revision: Revision,
    /// The key after it; `None` where deleted.
    pub after: Option<Version>,
    /// The key before it; `None` where made.
    pub before: Option<Version>,
    /// The event as sent to clients: made by whoever needs it first, shared by all.
    pub wire: OnceLock<Bytes>,
    /// What selectors look at, before and after it: likewise.
    pub looked: OnceLock<[Value; 2]>,
}

/// What a watcher gets.
#[derive(Clone, Debug, Default)]
pub struct WatchBatch {
    /// Changes, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has been seen.
    pub through: Revision,
}

/// Why the store did not do something.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// A comparison did not hold.
    #[error("{key} is not as expected: {}", found.as_ref().map_or("it does not exist".to_owned(), |v| format!("it was changed at revision {}", v.mod_revision)))]
    Conflict {
        /// The key.
        key: String,
        /// What is there.
        found: Option<Version>,
    },
    /// The history does not reach back so far.
    #[error("revision {asked} is compacted, history begins after {through}")]
    Compacted {
        /// What was asked.
        asked: Revision,
        /// Everything up to here is forgotten.
        through: Revision,
    },
    /// The revision has not happened.
    #[error("revision {asked} is in the future, the newest is {newest}")]
    Future {
        /// What was asked.
        asked: Revision,
        /// The newest.
        newest: Revision,
    },
    /// A transaction names a key twice.
    #[error("transaction on {key} twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// The disk failed; nothing was written.
    #[error("write the store")]
    Disk(#[source] Arc<DiskError>),
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
}
