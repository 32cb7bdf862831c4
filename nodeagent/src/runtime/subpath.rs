//! Parts of volumes. What lies in a volume is the containers' affair: a part of it may be a link to anywhere on the host. So
//! it is looked up without leaving the volume, and held by a bind mount in the pod's directory, which nobody else can change.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::{PodDir, RuntimeError, mounts};

/// Binds `sub_path` of the volume at `volume` for the container's mount with this number; returns where. Anew on each start.
pub(super) fn pin(
    dir: &PodDir,
    container: &str,
    number: usize,
    volume: &Path,
    sub_path: &str,
) -> Result<PathBuf, RuntimeError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, volume, flags | OFlags::DIRECTORY, Mode::empty())
        .map_err(|e| RuntimeError::io("open volume", volume, e.into()))?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let part = openat2(&root, sub_path, flags, Mode::empty(), inside)
        .map_err(|e| RuntimeError::io("find inside its volume", volume.join(sub_path), e.into()))?;
    let part = File::from(part);
    let target = dir
        .path()
        .join("subpaths")
        .join(container)
        .join(number.to_string());
    mounts::unmount_below(&target).map_err(|(path, e)| RuntimeError::io("unmount", &path, e))?;
    let is_dir = part
        .metadata()
        .map_err(|e| RuntimeError::io("look at", volume.join(sub_path), e))?
        .is_dir();
    make(&target, is_dir).map_err(|e| RuntimeError::io("create", &target, e))?;
    let source = format!("/proc/self/fd/{}", part.as_raw_fd());
    // Not recursive: what is unmounted here must never take a mount of the volume's own with it.
    mount(
        Some(source.as_str()),
        &target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|e| RuntimeError::io("bind a part of a volume at", &target, e.into()))?;
    Ok(target)
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
