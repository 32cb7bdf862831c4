//! A directory that others have filled becomes a pod's group's, with all that is in it.
//!
//! Source: k8s.io/kubernetes/pkg/volume, `SetVolumeOwnership`: the group, read and write for it, setgid on directories; not
//! again where the root has them (`fsGroupChangePolicy: OnRootMismatch`, whatever the pod says).

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, chownat, fchmod, fchown, fstat, openat, statat,
};

use super::RuntimeError;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Folders in folders: each is an open descriptor meanwhile. What is nested deeper cannot be counted, and keeps its group.
const MAX_DEPTH: usize = 128;
const SETGID: u32 = 0o2000;

/// Gives it to the group. No link is followed and no other file system entered; the root is last, so that what a crash has cut off is done again.
pub(super) fn give(path: &Path, group: u32) -> Result<(), RuntimeError> {
    let failed = |e| RuntimeError::io("give to the pod's group", path, e);
    let root = openat(CWD, path, FOLDER, Mode::empty()).map_err(|e| failed(e.into()))?;
    let found = fstat(&root).map_err(|e| failed(e.into()))?;
    if found.st_gid == group && found.st_mode & SETGID != 0 {
        return Ok(());
    }
    below(&root, found.st_dev, group)
        .and_then(|()| folder(&root, &found, group))
        .map_err(failed)
}

/// All that is in an open folder.
fn below(root: impl AsFd, device: u64, group: u32) -> io::Result<()> {
    let mut stack = vec![Dir::read_from(&root)?];
    loop {
        let depth = stack.len();
        let Some(dir) = stack.last_mut() else {
            return Ok(());
        };
        let Some(entry) = dir.read() else {
            stack.pop();
            continue;
        };
        let name: CString = entry?.file_name().to_owned();
        if [c".", c".."].contains(&name.as_c_str()) {
            continue;
        }
        // Gone meanwhile, mostly.
        let Ok(found) = statat(dir.fd()?, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            file(dir, &name, group)?;
        } else if found.st_dev == device
            && depth < MAX_DEPTH
            && let Ok(fd) = openat(dir.fd()?, &name, FOLDER, Mode::empty())
        {
            folder(&fd, &found, group)?;
            stack.push(Dir::read_from(&fd)?);
        }
    }
}

fn folder(fd: impl AsFd, found: &Stat, group: u32) -> io::Result<()> {
    fchown(&fd, None, Some(Gid::from_raw(group)))?;
    let mode = found.st_mode & 0o7777 | SETGID | 0o070;
    Ok(fchmod(&fd, Mode::from_raw_mode(mode))?)
}

/// Whatever it is, it is not opened; only plain files get another mode.
fn file(dir: &Dir, name: &CStr, group: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Gone meanwhile.
    let Ok(fd) = openat(dir.fd()?, name, flags, Mode::empty()) else {
        return Ok(());
    };
    chownat(&fd, c"", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
    let found = fstat(&fd)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
        // Setuid and setgid are dropped, as the kernel does with a new group.
        let mode = fs::Permissions::from_mode(found.st_mode & 0o1777 | 0o060);
        fs::set_permissions(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn all_in_it_is_the_groups_and_nothing_outside() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let tmp = tempfile::tempdir().unwrap();
        let (root, outside) = (tmp.path().join("root"), tmp.path().join("outside"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        for file in [root.join("a/b/file"), outside.clone()] {
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(&outside, root.join("link")).unwrap();
        give(&root, 4321).unwrap();
        let of = |path: &str| {
            let found = fs::symlink_metadata(root.join(path)).unwrap();
            (found.gid(), found.mode() & 0o7777)
        };
        assert_eq!(of("a/b/file"), (4321, 0o660));
        assert_eq!(of("a/b"), (4321, 0o2775));
        assert_eq!((of("").0, of("link").0), (4321, 4321));
        let outside = fs::metadata(outside).unwrap();
        assert_eq!((outside.gid(), outside.mode() & 0o777), (0, 0o600));
        // Once it is the group's, what is made in it is its makers'.
        fs::set_permissions(root.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        give(&root, 4321).unwrap();
        assert_eq!(of("a/b/file").1, 0o600);
    }
}
