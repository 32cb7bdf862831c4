//! The store of a single orchestrator: everything in memory, every write in a redb file first.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{Disk, DiskError};
use super::history::{History, Limits};
use super::types::{Commit, Listing, Range, Revision, StoreError, Txn, Version};
use super::watch::Cursor;
use super::writer::{Request, Writer};
use super::{Store, Watch};

/// Writes that may wait for the disk.
const QUEUE: usize = 4096;

/// The file cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Not readable, not a store, or in use by another orchestrator.
    #[error("open the store {}: is another orchestrator running on this data directory?", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DiskError,
    },
    /// No thread for the writer.
    #[error("start the store's writer thread")]
    Thread(#[source] std::io::Error),
}

/// See the module. Cheap to clone; the writer thread ends with the last clone.
#[derive(Clone)]
pub struct LocalStore {
    history: Arc<RwLock<History>>,
    requests: mpsc::Sender<Request>,
    moved: watch::Receiver<Revision>,
}

impl LocalStore {
    /// Opens or makes the file.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, OpenError> {
        let (disk, history) = Disk::open(path).map_err(|source| OpenError::Disk {
            path: path.to_owned(),
            source,
        })?;
        Self::start(Some(disk), history, limits).map_err(OpenError::Thread)
    }

    /// Without a file: for tests and what-ifs.
    pub fn in_memory(limits: Limits) -> Result<Self, OpenError> {
        Self::start(None, History::new(Revision(1), Revision(1)), limits).map_err(OpenError::Thread)
    }

    fn start(disk: Option<Disk>, history: History, limits: Limits) -> std::io::Result<Self> {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (sender, moved) = watch::channel(history.revision);
        let history = Arc::new(RwLock::new(history));
        let writer = Writer {
            requests: receiver,
            history: history.clone(),
            disk,
            moved: sender,
            limits,
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            history,
            requests,
            moved,
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, History> {
        self.history.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(request(answer))
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

#[async_trait]
impl Store for LocalStore {
    fn revision(&self) -> Revision {
        self.read().revision
    }

    async fn get(&self, key: &str) -> Result<Option<Version>, StoreError> {
        self.read().get(key, None)
    }

    async fn get_at(&self, key: &str, at: Revision) -> Result<Option<Version>, StoreError> {
        self.read().get(key, Some(at))
    }

    async fn list(&self, range: Range) -> Result<Listing, StoreError> {
        self.read().list(&range)
    }

    async fn txn(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.ask(|answer| Request::Txn(txn, answer)).await
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let compacted = self.read().compacted;
        if after < compacted {
            return Err(StoreError::Compacted {
                asked: after,
                through: compacted,
            });
        }
        Ok(Box::new(Cursor {
            history: self.history.clone(),
            moved: self.moved.clone(),
            prefix: prefix.to_owned(),
            after,
        }))
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.ask(|answer| Request::Compact(through, answer)).await
    }
}
