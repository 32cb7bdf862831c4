//! The store: keys under one global revision, as in etcd. Reads at a revision, compare-and-swap, watch with history.
//!
//! [`Store`] is the contract; [`LocalStore`] keeps it in memory over a redb log (fsync before every acknowledgement).

mod disk;
#[cfg(test)]
mod durability;
mod history;
mod local;
mod seal;
mod space;
mod types;
mod watch;
mod writer;

use async_trait::async_trait;

pub use disk::DiskError;
pub use history::Limits;
pub use local::{LocalStore, OpenError, StoreFile};
pub use seal::{KEY_BYTES, Seal};
pub use types::{Commit, Compare, Event, Listing, Op, Range, Revision, StoreError, Txn, Version, WatchBatch};

/// A key-value store with one revision over all keys.
#[async_trait]
pub trait Store: Send + Sync {
    /// The revision of the newest acknowledged write.
    fn revision(&self) -> Revision;

    /// The key as it is now, `None` if absent.
    async fn get(&self, key: &str) -> Result<Option<Version>, StoreError>;

    /// The key as it was at a revision. `Compacted` if that is forgotten, `Future` if it has not happened.
    async fn get_at(&self, key: &str, at: Revision) -> Result<Option<Version>, StoreError>;

    /// Keys in order; see [`Range`].
    async fn list(&self, range: Range) -> Result<Listing, StoreError>;

    /// All of the operations under one new revision if every comparison holds, else `Conflict` and nothing.
    /// Returns when the write is on disk.
    async fn txn(&self, txn: Txn) -> Result<Commit, StoreError>;

    /// Changes of keys that start with `prefix`, with revisions above `after`. `Compacted` if some are forgotten.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Writes all keys as they are now into a file that can be opened as a store; replaces what is there.
    async fn snapshot(&self, to: &std::path::Path) -> Result<(), StoreError>;

    /// Up to where superseded versions are forgotten: what is older is in memory only for those that still hold it.
    fn compacted(&self) -> Revision;

    /// Forgets superseded versions up to and including a revision.
    async fn compact(&self, through: Revision) -> Result<(), StoreError>;

    /// Writes one key; shorthand for a transaction.
    async fn put(&self, key: &str, value: bytes::Bytes, compare: Compare) -> Result<Commit, StoreError> {
        self.txn(Txn::one(key, compare, Op::Put(value))).await
    }

    /// Deletes one key; shorthand for a transaction.
    async fn delete(&self, key: &str, compare: Compare) -> Result<Commit, StoreError> {
        self.txn(Txn::one(key, compare, Op::Delete)).await
    }
}

/// A position in the history of the keys with one prefix. Each watcher has its own; none waits for another.
#[async_trait]
pub trait Watch: Send {
    /// The next changes, at least one unless the store's revision moved on without any under the prefix.
    /// `Compacted` when the watcher was slower than the history is long: list again. Cancel-safe.
    async fn next(&mut self) -> Result<WatchBatch, StoreError>;
}

#[cfg(test)]
mod tests;
