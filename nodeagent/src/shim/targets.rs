//! Where mounts of a container end up. A link in the image may lead a target to `/proc` or `/sys`, where a mount would cover what is
//! masked and read-only.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use gantry_nodeagent_api::is_system_path;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::runtime::ContainerStart;

/// Refuses a mount whose target is, by way of links in the root file system, in `/proc` or `/sys`. No container of this root runs, so
/// nothing changes between this look and the mount.
pub(super) fn check(start: &ContainerStart) -> Result<(), String> {
    if start.security.privileged {
        return Ok(());
    }
    for bind in &start.mounts {
        let place = place(&start.rootfs, &bind.target).map_err(|e| {
            let target = bind.target.display();
            format!("cannot look up the mount path {target} in the root file system: {e}")
        })?;
        if is_system_path(&place) {
            return Err(format!(
                "mount path {} leads to {}, and would cover what /proc and /sys hide",
                bind.target.display(),
                place.display()
            ));
        }
    }
    Ok(())
}

/// Where a path of a root file system is, links followed within it; what does not exist is where it would be made.
fn place(root: &Path, target: &Path) -> std::io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let dir = openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let root = fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    let parts: Vec<Component> = target
        .components()
        .filter(|c| matches!(c, Component::Normal(_)))
        .collect();
    for there in (0..=parts.len()).rev() {
        let mut known: PathBuf = parts[..there].iter().collect();
        if known.as_os_str().is_empty() {
            known.push(".");
        }
        match openat2(
            &dir,
            &known,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            Ok(fd) => {
                let found = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
                let inside = found.strip_prefix(&root).map_err(std::io::Error::other)?;
                let rest: PathBuf = parts[there..].iter().collect();
                return Ok(Path::new("/").join(inside).join(rest));
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(target.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_the_image_are_followed_within_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for dir in ["proc", "sys", "data"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        symlink("/proc", root.join("a")).unwrap();
        symlink("../../sys", root.join("data/b")).unwrap();
        symlink("/nowhere", root.join("c")).unwrap();
        let at = |path: &str| place(root, Path::new(path)).unwrap();
        assert_eq!(at("/a/sysrq-trigger"), Path::new("/proc/sysrq-trigger"));
        assert_eq!(at("/data/b/firmware"), Path::new("/sys/firmware"));
        assert_eq!(at("/data/new/dir"), Path::new("/data/new/dir"));
        assert_eq!(at("/"), Path::new("/"));
    }
}
