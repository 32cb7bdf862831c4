//! Where a container of a pod with ids of its own is made. Once a process is in the pod's user namespace it is a stranger on the host: it
//! may not go through the directories that lead to the pod's files, and cannot map what it mounts. So before that, root of the
//! host moves to a mount namespace that has nothing but what the start needs: the root file system, the volumes with the pod's
//! ids, the usual devices, proc, sysfs and cgroups. What cannot be mapped ends the start.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use gantry_images::idmap::{attach, copied, mapped};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Mode, fstat, mknodat};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

use super::launch::save;
use super::spec;
use crate::chain::chain;
use crate::runtime::{BindMount, ContainerStart, PodDir, UserNamespace};

/// What a container may have of the host's devices, by path, major and minor number (`Documentation/admin-guide/devices.txt`).
const DEVICES: [(&str, u32, u32); 7] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
    ("dev/net/tun", 10, 200),
];
const CGROUPS: &str = "/sys/fs/cgroup";

/// A tree of mounts, and the absolute path that it has on the stage.
type Part = (PathBuf, OwnedFd);

/// Moves this process, which has one thread, to a stage of its own; `bundle` is there, with a description of the container that names
/// everything as it is called there.
pub(super) fn enter(
    dir: &PodDir,
    bundle: &Path,
    start: &ContainerStart,
    ids: &UserNamespace,
) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| said("make a mount namespace", &e.into()))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| said("make mounts private", &e.into()))?;
    let (start, parts) = take(dir, bundle, start, ids)?;
    let description = spec::build(&start).map_err(|e| chain(&e))?;
    // Nothing of the start is in the bundle any more: what is mounted over it becomes the root.
    lay_out(bundle, parts, ids.first).map_err(|e| said("lay out the files of the container", &e))?;
    save(&description, &below(bundle, bundle))?;
    move_to(bundle).map_err(|e| said("move to the files of the container", &e))
}

/// Everything that the start needs, as it is on the host, with places on the stage; and the start in those words.
fn take(
    dir: &PodDir,
    bundle: &Path,
    start: &ContainerStart,
    ids: &UserNamespace,
) -> Result<(ContainerStart, Vec<Part>), String> {
    let namespace = ids.open().map_err(|e| chain(&e))?;
    // Below the bundle, so that they meet nothing else.
    let place = |name: &str| bundle.join("stage").join(name);
    let as_is = |path: &Path| copied(path).map_err(|e| said(&format!("take {}", path.display()), &e));
    let mut start = start.clone();
    let records = dir.libcontainer_root();
    let mut parts = vec![
        (PathBuf::from(CGROUPS), as_is(Path::new(CGROUPS))?),
        (records.clone(), as_is(&records)?),
        (place("user"), as_is(&ids.path)?),
        (place("root"), as_is(&start.rootfs)?),
    ];
    start.rootfs = place("root");
    start.userns = Some(UserNamespace {
        path: place("user"),
        first: ids.first,
    });
    if let Some(net) = &mut start.netns {
        parts.push((place("net"), as_is(net)?));
        *net = place("net");
    }
    for (number, bind) in start.mounts.iter_mut().enumerate() {
        let tree = mapped(&bind.source, namespace.as_fd()).map_err(|e| unmappable(bind, &e))?;
        bind.source = place(&number.to_string());
        parts.push((bind.source.clone(), tree));
    }
    Ok((start, parts))
}

fn unmappable(bind: &BindMount, error: &io::Error) -> String {
    let (source, target) = (bind.source.display(), bind.target.display());
    let why = match error.raw_os_error() {
        Some(libc::EINVAL) => {
            "its file system, or one that is mounted below it, cannot be mapped to other ids".to_owned()
        }
        Some(libc::EPERM) => "it is mapped to other ids already".to_owned(),
        _ => error.to_string(),
    };
    format!(
        "{source} cannot be mounted at {target} in a pod with `hostUsers: false`: {why}; use another volume, or the host's ids"
    )
}

/// Mounts an empty file system over `top`, and in it everything at its place.
fn lay_out(top: &Path, parts: Vec<Part>, first_id: u32) -> io::Result<()> {
    mount("tmpfs", top, "tmpfs", MountFlags::empty(), Some(c"mode=755"))?;
    // Fresh ones: without what the host has mounted over parts of them, for which the kernel would not let the container have its own.
    let kernel = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (path, kind) in [("/proc", "proc"), ("/sys", "sysfs")] {
        let at = below(top, Path::new(path));
        fs::create_dir_all(&at)?;
        mount(kind, &at, kind, kernel, None::<&CStr>)?;
    }
    for (path, tree) in parts {
        let at = below(top, &path);
        make_place(&at, &tree)?;
        attach(&tree, &at)?;
    }
    for (path, major, minor) in DEVICES {
        let at = top.join(path);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        mknodat(
            CWD,
            &at,
            FileType::CharacterDevice,
            Mode::empty(),
            rustix::fs::makedev(major, minor),
        )?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o666))?;
        chown(&at, Some(first_id), Some(first_id))?;
    }
    fs::create_dir_all(below(top, top))
}

/// An empty file or directory to mount over.
fn make_place(at: &Path, tree: &OwnedFd) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(tree)?.st_mode) == FileType::Directory {
        return fs::create_dir_all(at);
    }
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(at).map(drop)
}

/// An absolute path, below another root.
fn below(top: &Path, path: &Path) -> PathBuf {
    top.join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes `top` the root, and lets go of the old one (`pivot_root(2)`, "pivot_root(".", ".")").
fn move_to(top: &Path) -> io::Result<()> {
    std::env::set_current_dir(top)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

fn said(what: &str, error: &io::Error) -> String {
    format!("cannot {what}: {error}")
}
