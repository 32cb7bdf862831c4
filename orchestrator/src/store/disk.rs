//! The log on disk: one redb table, ordered by revision.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

use super::history::{History, Record};
use super::types::Revision;

/// (revision, key) to (create revision, version, value); no value: removed.
type LogValue = (u64, u64, Option<&'static [u8]>);
const LOG: TableDefinition<(u64, &str), LogValue> = TableDefinition::new("log");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const COMPACTED: &str = "compacted";
const REVISION: &str = "revision";

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

/// The open file.
pub(super) struct Disk {
    db: Database,
}

impl Disk {
    /// Opens or makes the file and reads all of it.
    pub fn open(path: &Path) -> Result<(Self, History), DiskError> {
        let db = Database::create(path).map_err(failed("open the database file"))?;
        let disk = Self { db };
        disk.write(&[], &[], None)?;
        let history = disk.load()?;
        Ok((disk, history))
    }

    fn load(&self) -> Result<History, DiskError> {
        let read = self.db.begin_read().map_err(failed("begin to read"))?;
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
