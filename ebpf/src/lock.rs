//! Who may change the datapath: a lock file next to the pins.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::DatapathError;

/// Held until dropped; the kernel frees it if the process dies.
pub struct Lock {
    _file: Flock<File>,
    path: PathBuf,
}

impl Lock {
    /// Waits until nobody else holds the lock of the datapath at `dir`: for changes of programs and maps.
    pub fn take(dir: &Path) -> Result<Lock, DatapathError> {
        Lock::acquire(dir, FlockArg::LockExclusive)
    }

    /// Waits until nobody holds it alone: for what may happen side by side, but not during a change.
    pub fn share(dir: &Path) -> Result<Lock, DatapathError> {
        Lock::acquire(dir, FlockArg::LockShared)
    }

    fn acquire(dir: &Path, kind: FlockArg) -> Result<Lock, DatapathError> {
        let path = lock_path(dir);
        let failed = |operation, source| DatapathError::File {
            operation,
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| failed("create the directory of", e))?;
        }
        loop {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|e| failed("open", e))?;
            let file = Flock::lock(file, kind).map_err(|(_, e)| failed("lock", e.into()))?;
            // Whoever held it before may have removed the file: then this lock excludes nobody.
            let inode = file.metadata().map_err(|e| failed("read", e))?.ino();
            if std::fs::metadata(&path).is_ok_and(|m| m.ino() == inode) {
                return Ok(Lock { _file: file, path });
            }
        }
    }

    /// Removes the lock file and releases the lock.
    pub fn remove(self) -> Result<(), DatapathError> {
        std::fs::remove_file(&self.path).map_err(|source| DatapathError::File {
            operation: "remove",
            path: self.path.clone(),
            source,
        })
    }
}

fn lock_path(dir: &Path) -> PathBuf {
    let mut name: OsString = dir.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}
