//! Mounts whose files have other ids (`mount_setattr(2)`, `MOUNT_ATTR_IDMAP`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

/// Ids of a pod's own: whoever is `n` in the image is `first + n` on the host.
#[derive(Clone, Copy, Debug)]
pub struct OwnIds<'a> {
    /// A user namespace with this mapping.
    pub namespace: BorrowedFd<'a>,
    /// The host's id of user and group 0.
    pub first: u32,
}

/// A copy of what is mounted at `source` and below it, mounted nowhere yet, with the files' ids mapped as in a user namespace: who is 0
/// on the disk is 0 in the namespace. Refused (`EINVAL`) where one of the file systems cannot do so. Needs root.
pub fn mapped(source: &Path, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let tree = copied(source)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path and the attributes live during the call, and their size is told.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    match done {
        0 => Ok(tree),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same as it is.
pub fn copied(source: &Path) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, source, flags)?)
}

/// Mounts such a copy.
pub fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(
        tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Unmounts what is there, if anything is. What still holds on to it keeps it for itself.
pub(crate) fn detach(target: &Path) -> io::Result<()> {
    loop {
        match unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            done => done?,
        }
    }
}

/// The layers of an image, mounted with a pod's ids for as long as this lives: an overlay that was made of them keeps them.
pub(crate) struct MappedLayers {
    pub(crate) paths: Vec<PathBuf>,
}

impl MappedLayers {
    /// At numbered folders in `dir`. Those that an earlier attempt has left mounted there go.
    pub(crate) fn mount(lower: &[PathBuf], dir: &Path, ids: OwnIds<'_>) -> io::Result<Self> {
        let mut layers = Self { paths: Vec::new() };
        for (number, layer) in lower.iter().enumerate() {
            let place = dir.join(number.to_string());
            std::fs::create_dir_all(&place)?;
            detach(&place)?;
            attach(&mapped(layer, ids.namespace)?, &place)?;
            layers.paths.push(place);
        }
        Ok(layers)
    }
}

impl Drop for MappedLayers {
    fn drop(&mut self) {
        for path in &self.paths {
            // It goes with the pod at the latest.
            let _ = detach(path);
        }
    }
}
