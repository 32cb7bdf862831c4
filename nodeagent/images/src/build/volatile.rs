//! A folder over another one, where tools write what nobody must wait for: what they sync is not synced (Linux 5.10, overlayfs.rst,
//! "Volatile mount"). A crash loses it, and with it the work folder in which it lies.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::rootfs::overlay;

/// Where it is mounted, in the mount namespace of its thread only.
pub(super) struct Volatile {
    dir: PathBuf,
}

impl Volatile {
    /// Mounts one over `lower`, or over nothing, in a new folder at `dir`.
    pub(super) fn mount(lower: Option<&Path>, dir: &Path) -> io::Result<Self> {
        let made = Self { dir: dir.to_owned() };
        let none = dir.join("none");
        let (upper, work, merged) = (made.upper(), dir.join("work"), made.merged());
        for folder in [dir, &none, &upper, &work, &merged] {
            fs::create_dir(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        let lower = lower.unwrap_or(&none);
        match volatile(lower, &upper, &work, &merged) {
            Err(Errno::INVAL | Errno::NOSYS) => overlay(&[lower.to_owned()], &upper, &work, &merged)?,
            other => other?,
        }
        Ok(made)
    }

    /// All of it.
    pub(super) fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// What was written.
    pub(super) fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }
}

fn volatile(lower: &Path, upper: &Path, work: &Path, target: &Path) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "gantry")?;
    fsconfig_set_string(&context, "lowerdir+", lower)?;
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_set_flag(&context, "volatile")?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", rustix::fs::CWD, target, flags)
}
