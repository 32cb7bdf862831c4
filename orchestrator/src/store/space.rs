//! The store's file holds space ahead of its need: a disk that others fill stops them, and not the store.

use std::fs::File;
use std::io;
use std::ops::Bound;

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Held beyond the file's end, at least. The file grows by doubling: as much again as it has is held too.
const RESERVE_BYTES: u64 = 16 << 20;
/// Where the disk does not have that: less, down to this.
const LEAST_BYTES: u64 = 1 << 20;

/// A file in which every write finds its block, and the next growth as well.
#[derive(Debug)]
pub(super) struct Held {
    inner: FileBackend,
    file: File,
}

impl Held {
    pub fn new(file: File) -> Result<Self, DatabaseError> {
        let own = file.try_clone()?;
        hold(&own, own.metadata()?.len());
        Ok(Self {
            inner: FileBackend::new(file)?,
            file: own,
        })
    }
}

/// Blocks for the first bytes of a file, beyond its end too.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes.max(1)) {
        // A file system that cannot promise space: as good as it was.
        Err(Errno::OPNOTSUPP) => Ok(()),
        done => done.map_err(Into::into),
    }
}

/// As much of the reserve as the disk has.
fn hold(file: &File, len: u64) {
    let wanted = RESERVE_BYTES.max(len);
    let mut bytes = wanted;
    while let Err(error) = allocate(file, len + bytes) {
        bytes /= 2;
        if bytes < LEAST_BYTES {
            tracing::warn!(%error, wanted, "the disk has no space that the store could hold ahead of its need");
            return;
        }
    }
    if bytes < wanted {
        tracing::warn!(
            bytes,
            wanted,
            "the disk is nearly full: the store holds less space ahead of its need"
        );
    }
}

impl StorageBackend for Held {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        allocate(&self.file, len)?;
        self.inner.set_len(len)?;
        // A file that is made shorter gives its blocks back: they are taken again at once.
        hold(&self.file, len);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
