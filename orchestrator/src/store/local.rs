//! The store of a single orchestrator: everything in memory, every write in a redb file first.

use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{CURRENT_FORMAT, Disk, DiskError};
use super::history::{History, Limits, Record};
use super::seal::Seal;
use super::types::{Commit, Listing, Range, Revision, StoreError, Txn, Version};
use super::watch::Cursor;
use super::writer::{Request, Writer};
use super::{Store, Watch};

/// Writes that may wait for the disk.
const QUEUE: usize = 4096;

/// The file cannot be opened. Nothing was changed in it.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another orchestrator has it.
    #[error("the store {} is in use: another orchestrator runs on this data directory", .0.display())]
    InUse(PathBuf),
    /// Not readable, or not a store.
    #[error(
        "the store {} is damaged, or cannot be read; it is left as it is, and pods run on. Put it back from a backup: `gantry restore FILE`",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DiskError,
    },
    /// A later version wrote it.
    #[error(
        "the store {} has format {format}, and this version of Gantry reads up to {known}: start the version that wrote it (pods run on meanwhile)",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
        /// The newest that is known here.
        known: u64,
    },
    /// It cannot be made, or not given its id.
    #[error("write the store {}", path.display())]
    Write {
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

/// A store's file, opened and read, before anything is served or written.
pub struct StoreFile {
    path: PathBuf,
    disk: Disk,
    history: History,
    cluster: Option<String>,
}

impl StoreFile {
    /// Opens the file; `None` if there is none, or nothing was ever written to it.
    /// `seal` encrypts some of the values.
    pub fn open(path: &Path, seal: Option<Arc<Seal>>) -> Result<Option<Self>, OpenError> {
        if !std::fs::metadata(path).is_ok_and(|file| !file.is_file() || file.len() > 0) {
            return Ok(None);
        }
        let (disk, label) = read(path, || {
            let disk = Disk::open(path, seal)?;
            let label = disk.read_label()?;
            Ok((disk, label))
        })?;
        // Before anything else is looked at: whatever follows may have another form.
        if label.format > CURRENT_FORMAT {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                format: label.format,
                known: CURRENT_FORMAT,
            });
        }
        let history = read(path, || disk.load())?;
        let file = Self {
            path: path.to_owned(),
            disk,
            history,
            cluster: label.cluster,
        };
        Ok((file.cluster.is_some() || !file.history.is_empty()).then_some(file))
    }

    /// Makes an empty store of a cluster.
    pub fn create(path: &Path, cluster: &str, seal: Option<Arc<Seal>>) -> Result<Self, OpenError> {
        let disk = Disk::create(path, cluster, seal).map_err(|source| OpenError::Write {
            path: path.to_owned(),
            source,
        })?;
        let history = read(path, || disk.load())?;
        Ok(Self {
            path: path.to_owned(),
            disk,
            history,
            cluster: Some(cluster.to_owned()),
        })
    }

    /// The cluster that it belongs to; `None` in a store of the first version.
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// Writes all keys as they are now into a new store's file (mode 0600).
    pub fn snapshot(&self, to: &Path) -> Result<(), OpenError> {
        let cluster = self.cluster.as_deref().unwrap_or_default();
        let seal = self.disk.seal.clone();
        snapshot(to, cluster, seal, &self.history.live(), self.history.revision).map_err(|source| {
            OpenError::Write {
                path: to.to_owned(),
                source,
            }
        })
    }

    /// Encrypts from now on.
    pub fn with_seal(mut self, seal: Arc<Seal>) -> Self {
        self.disk.seal = Some(seal);
        self
    }

    /// Serves it. One that names no cluster yet is given this one's id, and plain values that are to be encrypted are.
    pub fn start(self, cluster: &str, limits: Limits) -> Result<LocalStore, OpenError> {
        let sealed = match self.cluster {
            None => self.disk.label(cluster),
            Some(_) => Ok(()),
        };
        let sealed = sealed.and_then(|()| self.disk.seal_plain());
        let count = sealed.map_err(|source| OpenError::Write {
            path: self.path,
            source,
        })?;
        if count > 0 {
            tracing::info!(count, "values of an earlier version are encrypted now");
        }
        LocalStore::start(Some(self.disk), self.history, cluster, limits).map_err(OpenError::Thread)
    }
}

/// In the place of whatever is there; whole or not at all.
fn snapshot(
    to: &Path,
    cluster: &str,
    seal: Option<Arc<Seal>>,
    live: &[Record],
    at: Revision,
) -> Result<(), DiskError> {
    let mut options = std::fs::File::options();
    let made = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to);
    let written = made
        .map_err(DiskError::file)
        .and_then(|_| Disk::snapshot(to, cluster, seal, live, at));
    if written.is_err() {
        // What is there of it is of no use, and takes space where there is none.
        let _ = std::fs::remove_file(to);
    }
    written
}

/// Reads a file that may hold anything at all: the library that reads it may end in a panic.
fn read<T>(path: &Path, act: impl FnOnce() -> Result<T, DiskError>) -> Result<T, OpenError> {
    let done = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(DiskError::senseless()));
    done.map_err(|source| match source.in_use() {
        true => OpenError::InUse(path.to_owned()),
        false => OpenError::Damaged {
            path: path.to_owned(),
            source,
        },
    })
}

/// See the module. Cheap to clone; the writer thread ends with the last clone.
#[derive(Clone)]
pub struct LocalStore {
    history: Arc<RwLock<History>>,
    requests: mpsc::Sender<Request>,
    moved: watch::Receiver<Revision>,
    cluster: Arc<str>,
    seal: Option<Arc<Seal>>,
}

impl LocalStore {
    /// Without a file: for tests and what-ifs.
    pub fn in_memory(limits: Limits) -> Result<Self, OpenError> {
        Self::start(None, History::new(Revision(1), Revision(1)), "", limits).map_err(OpenError::Thread)
    }

    fn start(disk: Option<Disk>, history: History, cluster: &str, limits: Limits) -> std::io::Result<Self> {
        let seal = disk.as_ref().and_then(|disk| disk.seal.clone());
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (sender, moved) = watch::channel(history.revision);
        let history = Arc::new(RwLock::new(history));
        let writer = Writer {
            requests: receiver,
            history: history.clone(),
            disk,
            moved: sender,
            limits,
            owed: Vec::new(),
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            history,
            requests,
            moved,
            cluster: cluster.into(),
            seal,
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

    fn compacted(&self) -> Revision {
        self.read().compacted
    }

    async fn txn(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.ask(|answer| Request::Txn(txn, answer)).await
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let compacted = self.compacted();
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

    async fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        let (live, at) = {
            let history = self.read();
            (history.live(), history.revision)
        };
        let (to, cluster, seal) = (to.to_owned(), self.cluster.clone(), self.seal.clone());
        let written = tokio::task::spawn_blocking(move || snapshot(&to, &cluster, seal, &live, at));
        let written = written.await.map_err(|_| StoreError::Closed)?;
        written.map_err(|error| StoreError::Disk(Arc::new(error)))
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.ask(|answer| Request::Compact(through, answer)).await
    }
}
