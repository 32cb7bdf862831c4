//! Project quotas: where the file system has them, the kernel counts what a pod writes, and nobody has to walk through it.
//!
//! Only for pods with ids of their own: who is root or owner in the host's user namespace may give a file to another project
//! (`FS_IOC_FSSETXATTR`), and it would count for nobody. Kubernetes draws the line there too (KEP-1029). The projects of a pod are numbers of its range
//! ([`super::ids`]), and which one a directory has, it says itself: there is no other record. The kernel sets no limits, eviction does.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use gantry_nodeagent_api::PodConfig;
use nix::libc;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::ioctl::{Getter, Setter, ioctl, opcode};

use super::{PodDir, RuntimeError, ids};

/// `FS_XFLAG_PROJINHERIT` of `linux/fs.h`: what is made in the directory is of its project.
const INHERIT: u32 = 0x200;
/// `PRJQUOTA` of `linux/quota.h`.
const PROJECT: libc::c_int = 2;

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    reserved: [u8; 8],
}

/// What a project has on the disk: also what was deleted and is still open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// The projects of one pod.
#[derive(Clone, Copy, Debug)]
pub struct Projects {
    first: u32,
    containers: usize,
}

impl Projects {
    /// Of a pod whose ids begin with `first`. `None`: what it writes has to be walked, all of it.
    pub fn of(dir: &PodDir, pod: &PodConfig, first: u32) -> Option<Self> {
        // A claim outlives the pod and its numbers, and others may have it: it is walked, and so is what such a pod has open.
        if pod.claims().next().is_some() {
            return None;
        }
        let projects = Self {
            first,
            containers: pod.containers.len(),
        };
        let own = open(dir.path()).ok()?;
        // All of the agent's directory may be in somebody's project: it stays there.
        if attributes(&own).ok()?.project != 0 {
            return None;
        }
        let name = &pod.containers.first()?.name;
        let counted = match open(&dir.path().join("rootfs").join(name)) {
            Ok(begun) => project(&begun).is_some(),
            // Another may use the numbers.
            Err(_) => (0..pod.containers.len() + pod.volumes.len())
                .all(|n| spent(&own, projects.number(n)).is_ok_and(|count| count == Count::default())),
        };
        counted.then_some(projects)
    }

    /// Makes the directory for the root file system of a container, which all that it writes there will be in. It may exist.
    pub fn make_root(&self, path: &Path, nth_container: usize) -> Result<(), RuntimeError> {
        if path.exists() {
            return Ok(());
        }
        // Whole or not at all: what exists stays as it is.
        let fresh = path.with_extension("new");
        let failed = |e| RuntimeError::io("make directory", path, e);
        fs::create_dir_all(&fresh).map_err(failed)?;
        assign(&fresh, self.number(nth_container)).map_err(failed)?;
        fs::rename(&fresh, path).map_err(failed)
    }

    /// Gives an empty directory to the project of a volume.
    pub(super) fn take_volume(&self, path: &Path, nth_volume: usize) -> io::Result<()> {
        assign(path, self.number(self.containers + nth_volume))
    }

    /// Containers first, then volumes.
    fn number(&self, nth: usize) -> u32 {
        let nth = u32::try_from(nth).unwrap_or(u32::MAX);
        self.first + nth.min(ids::IDS - 1)
    }
}

/// What the kernel has counted for a directory; `None` where it has no project of ours.
pub(super) fn count(path: &Path) -> Option<Count> {
    let dir = open(path).ok()?;
    spent(&dir, project(&dir)?).ok()
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?.into())
}

/// The project of a directory and of what is made in it, if it is one of ours.
fn project(dir: &File) -> Option<u32> {
    let found = attributes(dir).ok()?;
    (found.flags & INHERIT != 0 && ids::is_given(found.project)).then_some(found.project)
}

fn assign(path: &Path, project: u32) -> io::Result<()> {
    let dir = open(path)?;
    let before = attributes(&dir)?;
    let flags = before.flags | INHERIT;
    let wanted = Attributes {
        flags,
        project,
        ..before
    };
    // SAFETY: `FS_IOC_FSSETXATTR` reads a `struct fsxattr`.
    unsafe {
        ioctl(
            &dir,
            Setter::<{ opcode::write::<Attributes>(b'X', 32) }, _>::new(wanted),
        )
    }?;
    Ok(())
}

fn attributes(dir: impl AsFd) -> io::Result<Attributes> {
    // SAFETY: `FS_IOC_FSGETXATTR` fills a `struct fsxattr`, in which every value is allowed.
    let found = unsafe {
        ioctl(
            dir,
            Getter::<{ opcode::read::<Attributes>(b'X', 31) }, Attributes>::new(),
        )
    };
    Ok(found?)
}

/// Asks the file system of a directory; an error where it does not count projects.
fn spent(dir: &File, project: u32) -> io::Result<Count> {
    let command = libc::QCMD(libc::Q_GETQUOTA, PROJECT);
    // SAFETY: numbers only, for which zeros are allowed.
    let mut found: libc::dqblk = unsafe { std::mem::zeroed() };
    // SAFETY: `Q_GETQUOTA` fills a `struct if_dqblk`.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            dir.as_raw_fd(),
            command,
            project,
            &mut found,
        )
    };
    match asked {
        0 => Ok(Count {
            bytes: found.dqb_curspace,
            entries: found.dqb_curinodes,
        }),
        _ => match io::Error::last_os_error() {
            // xfs has no record of a project that has nothing.
            e if e.kind() == io::ErrorKind::NotFound => Ok(Count::default()),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_of_a_pod_has_a_number_of_its_range() {
        let projects = Projects {
            first: 0x7000_0000,
            containers: 2,
        };
        let numbers = [0, 1, projects.containers, projects.containers + 1].map(|nth| projects.number(nth));
        assert_eq!(numbers, [0, 1, 2, 3].map(|n| 0x7000_0000 + n));
        assert_eq!(projects.number(usize::MAX), 0x7000_ffff);
        assert!(numbers.into_iter().all(ids::is_given) && !ids::is_given(0));
        // As the kernel has it.
        assert_eq!(size_of::<Attributes>(), 28);
    }

    #[test]
    fn what_was_made_without_a_project_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("rootfs/c")).unwrap();
        let mut pod = PodConfig::default();
        pod.containers.push(gantry_nodeagent_api::ContainerConfig {
            name: "c".to_owned(),
            ..Default::default()
        });
        assert_eq!(count(&dir.path().join("rootfs/c")), None);
        assert!(Projects::of(&PodDir::new(dir.path()), &pod, 0x7000_0000).is_none());
    }
}
