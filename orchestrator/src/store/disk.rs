//! The log on disk: one redb table, ordered by revision.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

use super::history::{History, Record};
use super::seal::{self, Seal};
use super::space::Held;
use super::types::Revision;

/// (revision, key) to (create revision, version, value); no value: removed.
type LogValue = (u64, u64, Option<&'static [u8]>);
const LOG: TableDefinition<(u64, &str), LogValue> = TableDefinition::new("log");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Since format 2.
const IDENTITY: TableDefinition<&str, &str> = TableDefinition::new("identity");
const COMPACTED: &str = "compacted";
const REVISION: &str = "revision";
const FORMAT: &str = "format";
const CLUSTER: &str = "cluster";

/// The file's form. The first version had neither this number nor a cluster's id.
pub(super) const CURRENT_FORMAT: u64 = 2;
const FIRST_FORMAT: u64 = 1;

/// The file failed.
#[derive(Debug, Error)]
#[error("{step}")]
pub struct DiskError {
    step: &'static str,
    #[source]
    source: Box<redb::Error>,
}

fn failed<E: Into<redb::Error>>(step: &'static str) -> impl FnOnce(E) -> DiskError {
    move |source| DiskError {
        step,
        source: Box::new(source.into()),
    }
}

impl DiskError {
    /// A file cannot be made.
    pub(super) fn file(source: std::io::Error) -> Self {
        Self {
            step: "open the file",
            source: Box::new(redb::Error::Io(source)),
        }
    }

    /// A value cannot be decrypted.
    fn sealed(why: String) -> Self {
        Self {
            step: "decrypt a value",
            source: Box::new(redb::Error::Corrupted(why)),
        }
    }

    /// The file's content makes no sense to the library that reads it.
    pub(super) fn senseless() -> Self {
        let source = redb::Error::Corrupted("its content makes no sense".to_owned());
        Self {
            step: "read the database file",
            source: Box::new(source),
        }
    }

    /// Another process has the file.
    pub(super) fn in_use(&self) -> bool {
        matches!(*self.source, redb::Error::DatabaseAlreadyOpen)
    }
}

/// What a file says of itself.
pub(super) struct Label {
    pub format: u64,
    pub cluster: Option<String>,
}

/// Of the file, kept in memory by redb, in bytes. Its default is 1 GiB; but reads come from the history, which has all of it.
const CACHE_BYTES: usize = 16 << 20;

/// The open file.
pub(super) struct Disk {
    /// `None` after a failure: redb goes on only when it has opened the file again.
    db: Option<Database>,
    /// `None`: it cannot be opened again.
    path: Option<PathBuf>,
    /// Encrypts some of the values.
    pub seal: Option<Arc<Seal>>,
}

impl Disk {
    /// Opens a file that is there.
    pub fn open(path: &Path, seal: Option<Arc<Seal>>) -> Result<Self, DiskError> {
        Ok(Self {
            db: Some(database(path)?),
            path: Some(path.to_owned()),
            seal,
        })
    }

    /// Makes an empty store of a cluster; one that is there and empty is taken.
    pub fn create(path: &Path, cluster: &str, seal: Option<Arc<Seal>>) -> Result<Self, DiskError> {
        let mut disk = Self::open(path, seal)?;
        disk.try_write(&[], &[], None)?;
        disk.label(cluster)?;
        sync_parent(path).map_err(DiskError::file)?;
        Ok(disk)
    }

    /// Over something that is no file; with a cluster it is made.
    #[cfg(test)]
    pub fn on(backend: impl redb::StorageBackend, cluster: Option<&str>) -> Result<Self, DiskError> {
        let db = Database::builder().create_with_backend(backend);
        let mut disk = Self {
            db: Some(db.map_err(failed("open the database file"))?),
            path: None,
            seal: None,
        };
        if let Some(cluster) = cluster {
            disk.try_write(&[], &[], None)?;
            disk.label(cluster)?;
        }
        Ok(disk)
    }

    fn db(&self) -> Result<&Database, DiskError> {
        self.db
            .as_ref()
            .ok_or_else(|| failed("open the database file again")(redb::Error::PreviousIo))
    }

    /// Makes a store of these keys as they are at a revision, without what came before.
    pub fn snapshot(
        path: &Path,
        cluster: &str,
        seal: Option<Arc<Seal>>,
        live: &[Record],
        at: Revision,
    ) -> Result<(), DiskError> {
        let db = Database::create(path).map_err(failed("make the database file"))?;
        let mut disk = Self {
            db: Some(db),
            path: None,
            seal,
        };
        disk.try_write(live, &[], Some(at))?;
        disk.label(cluster)?;
        let write = disk.db()?.begin_write().map_err(failed("begin to write"))?;
        {
            let mut meta = write.open_table(META).map_err(failed("open the meta table"))?;
            meta.insert(REVISION, at.0)
                .map_err(failed("write the meta table"))?;
        }
        write.commit().map_err(failed("commit"))
    }

    fn read(&self) -> Result<ReadTransaction, DiskError> {
        self.db()?.begin_read().map_err(failed("begin to read"))
    }

    /// What the file says of itself.
    pub fn read_label(&self) -> Result<Label, DiskError> {
        let read = self.read()?;
        let meta = read.open_table(META).map_err(failed("open the meta table"))?;
        let format = meta.get(FORMAT).map_err(failed("read the meta table"))?;
        let format = format.map_or(FIRST_FORMAT, |v| v.value());
        let cluster = match read.open_table(IDENTITY) {
            Ok(identity) => identity
                .get(CLUSTER)
                .map_err(failed("read the cluster's id"))?
                .map(|v| v.value().to_owned()),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(failed("open the identity table")(error)),
        };
        Ok(Label { format, cluster })
    }

    /// Gives the file its form's number and its cluster's id, durably.
    pub fn label(&self, cluster: &str) -> Result<(), DiskError> {
        let write = self.db()?.begin_write().map_err(failed("begin to write"))?;
        {
            let mut meta = write.open_table(META).map_err(failed("open the meta table"))?;
            let mut identity = write
                .open_table(IDENTITY)
                .map_err(failed("open the identity table"))?;
            meta.insert(FORMAT, CURRENT_FORMAT)
                .map_err(failed("write the meta table"))?;
            identity
                .insert(CLUSTER, cluster)
                .map_err(failed("write the cluster's id"))?;
        }
        write.commit().map_err(failed("commit"))
    }

    /// A record's value as it goes to the disk.
    fn sealed<'a>(&self, record: &'a Record) -> Option<Cow<'a, [u8]>> {
        let value = record.value.as_deref()?;
        let seal = self.seal.as_ref().filter(|seal| seal.covers(&record.key));
        Some(seal.map_or(Cow::Borrowed(value), |seal| seal.seal(&record.key, value).into()))
    }

    /// Encrypts what an earlier version wrote as plain values. Tells how many there were.
    pub fn seal_plain(&self) -> Result<usize, DiskError> {
        let Some(seal) = &self.seal else { return Ok(0) };
        let write = self.db()?.begin_write().map_err(failed("begin to write"))?;
        let mut plain = Vec::new();
        {
            let mut log = write.open_table(LOG).map_err(failed("open the log table"))?;
            for entry in log.iter().map_err(failed("read the log"))? {
                let (at, record) = entry.map_err(failed("read the log"))?;
                let ((revision, key), (create, version, value)) = (at.value(), record.value());
                if let Some(value) = value.filter(|value| seal.covers(key) && !seal::is_sealed(value)) {
                    plain.push((revision, key.to_owned(), create, version, seal.seal(key, value)));
                }
            }
            for (revision, key, create, version, value) in &plain {
                log.insert(
                    (*revision, key.as_str()),
                    (*create, *version, Some(value.as_slice())),
                )
                .map_err(failed("write the log"))?;
            }
        }
        write.commit().map_err(failed("commit"))?;
        Ok(plain.len())
    }

    /// Reads all of it.
    pub fn load(&self) -> Result<History, DiskError> {
        let read = self.read()?;
        let meta = read.open_table(META).map_err(failed("open the meta table"))?;
        let number = |key| {
            meta.get(key)
                .map(|v| v.map_or(1, |v| v.value()))
                .map_err(failed("read the meta table"))
        };
        let mut history = History::new(Revision(number(REVISION)?), Revision(number(COMPACTED)?));
        let log = read.open_table(LOG).map_err(failed("open the log table"))?;
        let mut opener = seal::Opener::new(self.seal.as_deref());
        for entry in log.iter().map_err(failed("read the log"))? {
            let (key, value) = entry.map_err(failed("read the log"))?;
            let ((revision, key), (create, version, value)) = (key.value(), value.value());
            history.apply(Record {
                key: Arc::from(key),
                revision: Revision(revision),
                create_revision: Revision(create),
                version,
                value: value.map(|value| opener.open(key, value)),
            });
        }
        opener.end().map_err(DiskError::sealed)?;
        Ok(history)
    }

    /// Writes records and drops compacted ones in one durable transaction (fsync before it returns). Every record up to `known`
    /// is on the disk, and none after it was acknowledged. After a failure (a full disk) the next write finds the file as good
    /// as it was.
    pub fn write(
        &mut self,
        records: &[Record],
        dropped: &[(Revision, Arc<str>)],
        compacted: Option<Revision>,
        known: Revision,
    ) -> Result<(), DiskError> {
        if self.db.is_none() {
            self.reopen(known)?;
        }
        let written = self.try_write(records, dropped, compacted);
        if written.is_err() && self.path.is_some() {
            self.db = None;
        }
        written
    }

    /// Opens the file again, and takes back what a transaction wrote that was told to have failed.
    fn reopen(&mut self, known: Revision) -> Result<(), DiskError> {
        let Some(path) = &self.path else { return Ok(()) };
        let db = database(path)?;
        let write = db.begin_write().map_err(failed("begin to write"))?;
        {
            let mut log = write.open_table(LOG).map_err(failed("open the log table"))?;
            log.retain_in((known.0 + 1, "").., |_, _| false)
                .map_err(failed("take back a failed write"))?;
            let mut meta = write.open_table(META).map_err(failed("open the meta table"))?;
            meta.insert(REVISION, known.0)
                .map_err(failed("write the meta table"))?;
        }
        write.commit().map_err(failed("commit"))?;
        self.db = Some(db);
        Ok(())
    }

    fn try_write(
        &mut self,
        records: &[Record],
        dropped: &[(Revision, Arc<str>)],
        compacted: Option<Revision>,
    ) -> Result<(), DiskError> {
        let write = self.db()?.begin_write().map_err(failed("begin to write"))?;
        {
            let mut log = write.open_table(LOG).map_err(failed("open the log table"))?;
            let mut meta = write.open_table(META).map_err(failed("open the meta table"))?;
            for r in records {
                let value = self.sealed(r);
                log.insert(
                    (r.revision.0, &*r.key),
                    (r.create_revision.0, r.version, value.as_deref()),
                )
                .map_err(failed("write the log"))?;
            }
            if let Some(last) = records.last() {
                meta.insert(REVISION, last.revision.0)
                    .map_err(failed("write the meta table"))?;
            }
            for (revision, key) in dropped {
                log.remove((revision.0, &**key))
                    .map_err(failed("compact the log"))?;
            }
            if let Some(through) = compacted {
                meta.insert(COMPACTED, through.0)
                    .map_err(failed("write the meta table"))?;
            }
        }
        write.commit().map_err(failed("commit"))
    }
}

fn database(path: &Path) -> Result<Database, DiskError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let held = Held::new(file.map_err(DiskError::file)?).map_err(failed("open the database file"))?;
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(held)
        .map_err(failed("open the database file"))
}

/// Makes the file's name as durable as what is in it.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
