//! Where mounts of a container end up. A link in the image or in a volume may lead a target to `/proc` or `/sys`, where a mount
//! would cover what is masked and read-only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use gantry_nodeagent_api::is_system_path;
use oci_spec::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::runtime::ContainerStart;

/// Says what is wrong with a mount before it is tried: its target is, by way of links in the root file system, in `/proc` or
/// `/sys`; or cannot be covered by its source. No container of this root runs, so nothing changes between this look and the mount.
/// Links in volumes are another matter: see [`are_apart`].
pub(super) fn check(start: &ContainerStart) -> Result<(), String> {
    // Whether it is a directory.
    let mut mounted = BTreeMap::new();
    for bind in &start.mounts {
        let target = bind.target.display();
        let place = place(&start.rootfs, &bind.target)
            .map_err(|e| format!("cannot look up the mount path {target} in the root file system: {e}"))?;
        if place == Path::new("/") || place == Path::new("/dev") {
            return Err(format!(
                "mount path {target} would cover the container's {}: mount it below",
                place.display()
            ));
        }
        if is_system_path(&place) && !start.security.privileged {
            return Err(format!(
                "mount path {target} leads to {}, and would cover what /proc and /sys hide",
                place.display()
            ));
        }
        let Ok(source) = fs::metadata(&bind.source) else {
            continue;
        };
        let kind = |is_dir: bool| if is_dir { "a directory" } else { "a file" };
        let before = mounted.insert(place, source.is_dir());
        if let Some(before) = before.filter(|before| *before != source.is_dir()) {
            return Err(format!(
                "mount path {target} is {} already, and what is to be mounted there {}",
                kind(before),
                kind(source.is_dir())
            ));
        }
    }
    Ok(())
}

/// In the container, before its program: whether nothing lies over `/proc` and `/sys` but what belongs there. A link in a volume
/// leads a mount to where it points at that moment, so only what came of it counts.
pub(super) fn are_apart(spec: &Spec) -> io::Result<()> {
    let linux = spec.linux().as_ref();
    let hidden = linux
        .and_then(|l| l.masked_paths().as_ref())
        .into_iter()
        .flatten();
    let hidden: Vec<&str> = hidden.map(String::as_str).collect();
    let mut table = fs::File::open("/proc/self/mountinfo").map_err(|_| covered("/proc"))?;
    // A volume over `/proc` may have a file of that name.
    if rustix::fs::fstatfs(&table)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(covered("/proc"));
    }
    let table = io::read_to_string(&mut table)?;
    for line in table.lines() {
        let (point, kind) = mount_point(line).ok_or_else(|| covered("/proc"))?;
        let own = matches!(kind, "proc" | "sysfs" | "cgroup" | "cgroup2") || hidden.contains(&point);
        if is_system_path(Path::new(point)) && !own {
            return Err(covered(point));
        }
    }
    Ok(())
}

fn covered(point: &str) -> io::Error {
    io::Error::other(format!(
        "a mount covers {point}: the path of a volume leads there by a link"
    ))
}

/// Mount point and type of a line of `proc_pid_mountinfo(5)`.
fn mount_point(line: &str) -> Option<(&str, &str)> {
    let (mount, file_system) = line.split_once(" - ")?;
    Some((mount.split(' ').nth(4)?, file_system.split(' ').next()?))
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
