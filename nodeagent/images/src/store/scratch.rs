//! Folders for work in progress. Each is locked by its owner (flock ends with the process), so that whoever comes
//! next can tell a crash's leftovers from somebody's work.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{ImageStore, StoreError};

/// A private folder on the store's file system, removed when dropped.
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure leaves a folder that the next scratch() or gc() tries to remove.
        if let Err(error) = fs::remove_dir_all(&self.path) {
            left_over(&self.path, &error);
        }
    }
}

impl ImageStore {
    /// Makes a scratch folder, and removes those of dead processes.
    pub(crate) fn scratch(&self) -> Result<Scratch, StoreError> {
        let _lock = self.lock()?;
        self.reap_scratch()?;
        self.make_scratch()
    }

    /// Makes a scratch folder. The caller holds the store's lock.
    pub(super) fn make_scratch(&self) -> Result<Scratch, StoreError> {
        let tmp = self.dir.join("tmp");
        let path = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&tmp)
            .map_err(StoreError::io("create a folder in", &tmp))?
            .keep();
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        file.lock().map_err(StoreError::io("lock", &path))?;
        Ok(Scratch { path, _lock: file })
    }

    /// Removes scratch folders that nobody holds; one that cannot be removed is no reason to stop. The caller holds the store's lock: a new folder is locked by its
    /// owner before that is released.
    pub(super) fn reap_scratch(&self) -> Result<(), StoreError> {
        let tmp = self.dir.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(StoreError::io("list", &tmp))? {
            let path = entry.map_err(StoreError::io("list", &tmp))?.path();
            if let Err(error) = reap(&path) {
                left_over(&path, &error);
            }
        }
        Ok(())
    }
}

/// Removes what is there, unless somebody holds it.
fn reap(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return fs::remove_file(path);
    }
    let file = File::open(path)?;
    match file.try_lock() {
        Ok(()) => fs::remove_dir_all(path),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

fn left_over(path: &Path, error: &io::Error) {
    tracing::warn!(path = %path.display(), %error, "cannot remove a work folder of the image store");
}
