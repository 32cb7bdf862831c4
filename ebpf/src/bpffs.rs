//! The BPF file system that holds the pins.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::error::DatapathError;

/// Is the directory on a BPF file system?
pub fn is_mounted(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}

/// Creates the directory and mounts a BPF file system there, unless it is on one already.
pub fn ensure(dir: &Path) -> Result<(), DatapathError> {
    std::fs::create_dir_all(dir).map_err(|source| DatapathError::File {
        operation: "create",
        path: dir.to_owned(),
        source,
    })?;
    if is_mounted(dir) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), dir, Some("bpf"), flags, Some("mode=0700")).map_err(|e| DatapathError::Mount {
        path: dir.to_owned(),
        source: e.into(),
    })
}

/// Unmounts what [`ensure`] mounted and removes the directory. Fine if nothing is there.
pub fn remove(dir: &Path) -> Result<(), DatapathError> {
    let failed = |operation, source| DatapathError::File {
        operation,
        path: dir.to_owned(),
        source,
    };
    loop {
        match umount2(dir, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => continue,
            // Not a mount point (any more), or not there.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(Errno::EBUSY) => {
                umount2(dir, MntFlags::MNT_DETACH).map_err(|e| failed("unmount", e.into()))?;
            }
            Err(e) => return Err(failed("unmount", e.into())),
        }
    }
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", e)),
        _ => Ok(()),
    }
}
