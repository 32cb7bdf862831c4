//! Parts of volumes. What lies in a volume is the containers' affair: a part of it may be a link to anywhere on the host. So
//! it is looked up without leaving the volume, and held by a bind mount in the pod's directory, which nobody else can change.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_images::open_beneath;
use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, Mode, OFlags, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;

use super::{PodDir, mounts};

/// Binds `sub_path` of the volume at `volume` for the container's mount with this number; returns where. Anew on each start.
/// With `may_make`, a directory that is not there yet is made (kubelet, `SafeMakeDir`). No error names the path: it may have a
/// secret in it (`subPathExpr`).
pub(super) fn pin(
    dir: &PodDir,
    container: &str,
    number: usize,
    volume: &Path,
    sub_path: &str,
    may_make: bool,
) -> io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, volume, flags | OFlags::DIRECTORY, Mode::empty())?;
    let find = || open_beneath(&root, Path::new(sub_path), flags);
    let part = match find() {
        Err(Errno::NOENT) if may_make => {
            make_inside(&root, sub_path)?;
            find().map_err(told)?
        }
        found => found.map_err(told)?,
    };
    let part = File::from(part);
    let target = dir
        .path()
        .join("subpaths")
        .join(container)
        .join(number.to_string());
    mounts::unmount_at(&target)?;
    make(&target, part.metadata()?.is_dir())?;
    let source = format!("/proc/self/fd/{}", part.as_raw_fd());
    // Not recursive: what is unmounted here must never take a mount of the volume's own with it.
    mount(
        Some(source.as_str()),
        &target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    Ok(target)
}

/// Makes the directories of a path that are missing, each with the mode of the volume's root; group and setgid come from above.
fn make_inside(root: &OwnedFd, sub_path: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(fstat(root)?.st_mode & 0o777);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut above = root.try_clone()?;
    for part in Path::new(sub_path).components() {
        let part = Path::new(part.as_os_str());
        match open_beneath(&above, part, flags) {
            Ok(next) => above = next,
            Err(Errno::NOENT) => {
                mkdirat(&above, part, mode)?;
                let next = open_beneath(&above, part, flags | OFlags::NOFOLLOW)?;
                // Whatever the umask of this process.
                let made = Mode::from_raw_mode(fstat(&next)?.st_mode & 0o7000) | mode;
                fchmod(&next, made)?;
                above = next;
            }
            Err(e) => return Err(told(e)),
        }
    }
    Ok(())
}

/// What the kernel calls a device's end is the volume's: the path itself has no `..`.
fn told(error: Errno) -> io::Error {
    match error {
        Errno::XDEV => io::Error::other("a link in it leads out of the volume"),
        other => other.into(),
    }
}

/// An empty mount point of the right type; what an earlier start has left may be of the other.
fn make(target: &Path, is_dir: bool) -> std::io::Result<()> {
    match fs::symlink_metadata(target) {
        Ok(found) if found.is_dir() == is_dir => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir(target)?,
        Ok(_) => fs::remove_file(target)?,
        Err(_) => {}
    }
    if is_dir {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(target).map(drop)
}
