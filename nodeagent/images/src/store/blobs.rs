//! Files of the store: read with bounds, replaced atomically, moved in after a sync.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{ImageStore, StoreError};
use crate::digest::Digest;

/// Holds the store's lock until dropped (flock, so it also ends with the process).
pub(crate) struct Lock {
    _file: File,
}

impl ImageStore {
    /// Waits for the exclusive lock.
    pub(crate) fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        file.lock().map_err(StoreError::io("lock", &path))?;
        Ok(Lock { _file: file })
    }

    /// Where a blob lies or would lie.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Reads a small document and checks its digest.
    pub(super) fn read_document(&self, digest: &Digest, what: &'static str) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let bytes = read_bounded(&path, self.limits.document_bytes).map_err(StoreError::io("read", &path))?;
        if Digest::of(&bytes) != *digest {
            let why = "its content does not have its digest, the disk or someone changed it".to_owned();
            return Err(StoreError::Invalid {
                what,
                image: digest.to_string(),
                why,
            });
        }
        Ok(bytes)
    }

    /// Moves a verified and synced file to its place, over one that is there already: that may be damaged. The
    /// caller holds the lock.
    pub(super) fn adopt_blob(&self, from: &Path, digest: &Digest) -> Result<(), StoreError> {
        let to = self.blob_path(digest);
        fs::rename(from, &to).map_err(StoreError::io("move into place", &to))
    }

    /// Makes renames into the blob folder durable.
    pub(super) fn sync_blobs(&self) -> Result<(), StoreError> {
        sync_dir(&self.dir.join("blobs/sha256"))
    }

    /// Replaces a file of the store: temporary file, fsync, rename, fsync of the folder. The caller holds the lock,
    /// so one fixed temporary name is enough, and a leftover of a crash is overwritten.
    pub(super) fn replace_file(&self, path: &Path, content: &[u8]) -> Result<(), StoreError> {
        let temp = path.with_extension("new");
        let write = || {
            let mut file = File::create(&temp)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temp, path)
        };
        write().map_err(StoreError::io("write", path))?;
        sync_dir(path.parent().unwrap_or(&self.dir))
    }
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(StoreError::io("sync", dir))
}

/// Reads a regular file of at most `limit_bytes`.
pub(crate) fn read_bounded(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    // A pipe is not opened: it would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::other(format!(
            "larger than the {limit_bytes} bytes allowed"
        )));
    }
    Ok(bytes)
}
