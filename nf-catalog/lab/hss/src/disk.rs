//! Records on the disk: what was kept is there after a power cut. Those that come at the same time are written together.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::registry::Record;

/// Records by IMSI, as JSON.
const RECORDS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");
/// Records that wait to be written.
const QUEUE: usize = 1024;

/// Why something is not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// The file.
    #[error("the state's file")]
    Store(#[source] Arc<redb::Error>),
    /// A record makes no sense.
    #[error("the record of {imsi} cannot be read; remove the state's file to begin anew")]
    Record {
        /// Whose.
        imsi: String,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// Nobody writes any more.
    #[error("the writer of the state has ended")]
    Ended,
}

/// A record that is to be written.
pub struct Job {
    /// Whose.
    pub imsi: String,
    bytes: Vec<u8>,
    /// Hears what came of it.
    pub done: oneshot::Sender<Result<(), DiskError>>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Disk(mpsc::Sender<Job>);

impl Disk {
    /// Opens the file, or begins it; returns what is there by IMSI.
    pub fn open(path: &Path) -> Result<(Self, Vec<(String, Record)>), DiskError> {
        let database = Database::create(path).map_err(store)?;
        write(&database, &[]).map_err(store)?;
        let records = read(&database)?;
        let (disk, queue) = Self::with_queue();
        std::thread::spawn(move || write_all(&database, queue));
        Ok((disk, records))
    }

    /// With what is to be written.
    pub fn with_queue() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        (Self(jobs), queue)
    }

    /// Returns when it is on the disk.
    pub async fn keep(&self, imsi: &str, record: &Record) -> Result<(), DiskError> {
        let (done, kept) = oneshot::channel();
        let bytes = serde_json::to_vec(record).expect("plain data has a JSON form");
        let imsi = imsi.to_owned();
        let job = Job { imsi, bytes, done };
        self.0.send(job).await.map_err(|_| DiskError::Ended)?;
        kept.await.map_err(|_| DiskError::Ended)?
    }
}

fn store(error: impl Into<redb::Error>) -> DiskError {
    DiskError::Store(Arc::new(error.into()))
}

fn read(database: &Database) -> Result<Vec<(String, Record)>, DiskError> {
    let table = database
        .begin_read()
        .map_err(store)?
        .open_table(RECORDS)
        .map_err(store)?;
    let mut records = Vec::new();
    for row in table.iter().map_err(store)? {
        let (imsi, bytes) = row.map_err(store)?;
        let imsi = imsi.value().to_owned();
        let record = serde_json::from_slice(bytes.value()).map_err(|source| DiskError::Record {
            imsi: imsi.clone(),
            source: Arc::new(source),
        })?;
        records.push((imsi, record));
    }
    Ok(records)
}

fn write_all(database: &Database, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = vec![first];
        while let Ok(job) = queue.try_recv() {
            jobs.push(job);
        }
        let result = write(database, &jobs).map_err(store);
        for job in jobs {
            // Whoever asked may have gone.
            let _ = job.done.send(result.clone());
        }
    }
}

fn write(database: &Database, jobs: &[Job]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for job in jobs {
            table.insert(job.imsi.as_str(), job.bytes.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_there_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("hss.redb");
        let record = Record {
            sqn_below: 64,
            server: "sip:a.lab".to_owned(),
            registered: true,
            ..Record::default()
        };
        let (disk, records) = Disk::open(&path).unwrap();
        assert!(records.is_empty());
        let keep = (0..50).map(|n| {
            let (disk, record) = (disk.clone(), record.clone());
            tokio::spawn(async move { disk.keep(&format!("{n:015}"), &record).await })
        });
        for kept in keep.collect::<Vec<_>>() {
            kept.await.unwrap().unwrap();
        }
        drop(disk);
        // The writer lets go of the file when the last who could ask is gone.
        let opened = || Disk::open(&path).ok();
        let records = loop {
            match opened() {
                Some((_, records)) => break records,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(records.len(), 50);
        assert_eq!(records[7], ("000000000000007".to_owned(), record));
    }
}
