//! The one thread that writes: concurrent transactions share an fsync.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{Disk, DiskError};
use super::history::{History, Limits, Pending, Record};
use super::types::{Commit, Revision, StoreError, Txn};

/// Transactions that share one fsync, at most.
const GROUP: usize = 512;
/// Changes that are forgotten with a write, at least, when there are too many. Whoever writes waits for them.
const TRIMMED: usize = 64;

/// What the thread is asked.
pub(super) enum Request {
    Txn(Txn, oneshot::Sender<Result<Commit, StoreError>>),
    Compact(Revision, oneshot::Sender<Result<(), StoreError>>),
}

/// The thread's own things. It ends when every sender of requests is gone.
pub(super) struct Writer {
    pub requests: mpsc::Receiver<Request>,
    pub history: Arc<RwLock<History>>,
    pub disk: Option<Disk>,
    pub moved: watch::Sender<Revision>,
    pub limits: Limits,
    /// What memory has forgotten and the disk has not, since a write failed: it goes with the next one, or it would be back after a
    /// restart.
    pub owed: Vec<(Revision, Arc<str>)>,
}

type Answer = (
    oneshot::Sender<Result<Commit, StoreError>>,
    Result<Commit, StoreError>,
);

impl Writer {
    fn read(&self) -> RwLockReadGuard<'_, History> {
        self.history.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, History> {
        self.history.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn run(mut self) {
        let mut group = Vec::with_capacity(GROUP);
        while self.requests.blocking_recv_many(&mut group, GROUP) > 0 {
            self.serve(&mut group);
        }
    }

    fn serve(&mut self, group: &mut Vec<Request>) {
        let mut pending = Pending::default();
        let mut answers: Vec<Answer> = Vec::with_capacity(group.len());
        let mut compactions = Vec::new();
        {
            let history = self.read();
            for request in group.drain(..) {
                match request {
                    Request::Txn(txn, answer) => {
                        let decided = history.decide(&mut pending, txn);
                        answers.push((
                            answer,
                            decided.map(|(revision, after)| Commit { revision, after }),
                        ));
                    }
                    Request::Compact(through, answer) => compactions.push((through, answer)),
                }
            }
        }
        let written = self.commit(pending);
        for (answer, decided) in answers {
            // A dropped receiver gave up waiting; the write stands.
            let _ = answer.send(match &written {
                Err(error) if decided.is_ok() => Err(StoreError::Disk(error.clone())),
                _ => decided,
            });
        }
        for (through, answer) in compactions {
            let _ = answer.send(self.compact(through));
        }
    }

    /// Writes what was decided. What the history has too much goes with it, bit by bit: as much as comes, and a little more.
    fn commit(&mut self, pending: Pending) -> Result<(), Arc<DiskError>> {
        if pending.records.is_empty() {
            return Ok(());
        }
        let size = pending.size();
        let pace = Limits {
            events: size.events + TRIMMED,
            ..size
        };
        let over = self.read().over(self.limits, pace);
        if let Some(through) = over {
            let forgotten = self.write().compact(through).unwrap_or_default();
            self.owed.extend(forgotten);
        }
        self.put(&pending.records, over.is_some())?;
        let mut history = self.write();
        pending
            .records
            .into_iter()
            .for_each(|record| history.apply(record));
        let revision = history.revision;
        drop(history);
        self.moved.send_replace(revision);
        Ok(())
    }

    fn compact(&mut self, through: Revision) -> Result<(), StoreError> {
        let forgotten = self.write().compact(through)?;
        self.owed.extend(forgotten);
        self.put(&[], true).map_err(StoreError::Disk)
    }

    /// Puts records on the disk, and takes off it what is owed.
    fn put(&mut self, records: &[Record], compacted: bool) -> Result<(), Arc<DiskError>> {
        let (known, through) = {
            let history = self.read();
            (history.revision, history.compacted)
        };
        if let Some(disk) = &mut self.disk {
            let through = (compacted || !self.owed.is_empty()).then_some(through);
            disk.write(records, &self.owed, through, known).map_err(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, "write the store");
                Arc::new(error)
            })?;
        }
        self.owed.clear();
        Ok(())
    }
}
