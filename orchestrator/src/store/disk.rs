//! The log on disk: one redb table, ordered by revision.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

use super::history::{History, Record};
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

/// The open file.
pub(super) struct Disk {
    db: Database,
}

impl Disk {
    /// Opens a file that is there.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let db = Database::open(path).map_err(failed("open the database file"))?;
        Ok(Self { db })
    }

    /// Makes an empty store of a cluster; one that is there and empty is taken.
    pub fn create(path: &Path, cluster: &str) -> Result<Self, DiskError> {
        let db = Database::create(path).map_err(failed("make the database file"))?;
        let disk = Self { db };
        disk.write(&[], &[], None)?;
        disk.label(cluster)?;
        Ok(disk)
    }

    fn read(&self) -> Result<ReadTransaction, DiskError> {
        self.db.begin_read().map_err(failed("begin to read"))
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
        let write = self.db.begin_write().map_err(failed("begin to write"))?;
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
        for entry in log.iter().map_err(failed("read the log"))? {
            let (key, value) = entry.map_err(failed("read the log"))?;
            let ((revision, key), (create, version, value)) = (key.value(), value.value());
            history.apply(Record {
                key: Arc::from(key),
                revision: Revision(revision),
                create_revision: Revision(create),
                version,
                value: value.map(Bytes::copy_from_slice),
            });
        }
        Ok(history)
    }

    /// Writes records and drops compacted ones in one durable transaction (fsync before it returns).
    pub fn write(
        &self,
        records: &[Record],
        dropped: &[(Revision, Arc<str>)],
        compacted: Option<Revision>,
    ) -> Result<(), DiskError> {
        let write = self.db.begin_write().map_err(failed("begin to write"))?;
        {
            let mut log = write.open_table(LOG).map_err(failed("open the log table"))?;
            let mut meta = write.open_table(META).map_err(failed("open the meta table"))?;
            for r in records {
                log.insert(
                    (r.revision.0, &*r.key),
                    (r.create_revision.0, r.version, r.value.as_deref()),
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
