//! Files without a name that a container's processes keep open or mapped: no walk through folders finds them, and they fill the
//! disk all the same.
//!
//! `/proc/PID/fd` and `/proc/PID/map_files` are read, and what their links lead to is asked for its attributes; nothing is opened.
//! Each file counts once, for the container where it is met first, whichever volume of the pod's disk it was on. A file of the
//! image counts too if it was deleted while somebody had it open. Not seen are files that no process has (on their way through
//! a socket, or held by the kernel for io_uring or a loop device), and those of a root file system whose image is on another disk, where
//! overlayfs cannot tell numbers of both (`xino`).

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::libc;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags, makedev, openat, statat, statx,
};

use super::PodDir;

/// What is read of a process's `cgroup` file.
const CGROUP_FILE_BYTES: u64 = 16 << 10;
/// `KCMP_FILES` of `linux/kcmp.h`.
const KCMP_FILES: libc::c_int = 2;

/// What runs in one container.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// The container.
    pub container: String,
    /// Its control group, below the mount of any controller.
    pub group: String,
    /// Host pids in it. One that belongs to somebody else by now is passed over.
    pub pids: Vec<u32>,
}

/// A walk through what a pod's processes have open.
pub(super) struct Unnamed {
    running: Vec<Running>,
    container: String,
    /// The process that is being looked at, and its folders of links.
    process: Option<OwnedFd>,
    folders: Vec<String>,
    links: Option<Dir>,
    /// How the pod's disk is called: by itself, and through each root file system.
    devices: BTreeSet<u64>,
    /// Numbers of the files that were counted.
    counted: HashSet<u64>,
    /// Links and processes that were looked at.
    pub(super) looks: u64,
}

impl Unnamed {
    /// `device` is the disk with the pod's directory.
    pub(super) fn new(pod: &PodDir, device: u64, running: Vec<Running>) -> Self {
        let roots = running
            .iter()
            .map(|r| pod.path().join("rootfs").join(&r.container));
        let of_roots =
            roots.filter_map(|root| statat(CWD, root.join("merged"), AtFlags::SYMLINK_NOFOLLOW).ok());
        let devices = of_roots.map(|stat| stat.st_dev).chain([device]).collect();
        Self {
            running,
            container: String::new(),
            process: None,
            folders: Vec::new(),
            links: None,
            devices,
            counted: HashSet::new(),
            looks: 0,
        }
    }

    /// Looks at one more; false when there is nothing more. `found` is told whose bytes were found.
    pub(super) fn next(&mut self, found: impl FnOnce(&str, u64)) -> bool {
        let Some(links) = &mut self.links else {
            return self.next_folder();
        };
        let Some(Ok(link)) = links.read() else {
            self.links = None;
            return true;
        };
        self.looks += 1;
        // A file system that would have to ask somebody, as FUSE does, is not asked.
        let flags = AtFlags::STATX_DONT_SYNC;
        let stat = links
            .fd()
            .and_then(|fd| statx(fd, link.file_name(), flags, StatxFlags::BASIC_STATS));
        if let Ok(stat) = stat
            && self.takes_space(&stat)
            && self.counted.insert(stat.stx_ino)
        {
            found(
                &self.container,
                stat.stx_blocks.saturating_mul(super::usage::BLOCK_BYTES),
            );
        }
        true
    }

    fn takes_space(&self, stat: &Statx) -> bool {
        FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
            && stat.stx_nlink == 0
            && self
                .devices
                .contains(&makedev(stat.stx_dev_major, stat.stx_dev_minor))
    }

    fn next_folder(&mut self) -> bool {
        if let Some(folder) = self.folders.pop() {
            self.links = self
                .process
                .as_ref()
                .and_then(|process| folder_in(process, &folder));
            return true;
        }
        let Some(running) = self.running.last_mut() else {
            return false;
        };
        let Some(pid) = running.pids.pop() else {
            self.running.pop();
            return true;
        };
        self.looks += 1;
        self.container.clone_from(&running.container);
        // Not there: it has ended meanwhile.
        if let Some((process, folders)) = look_up(pid, &running.group) {
            (self.process, self.folders) = (Some(process), folders);
        }
        true
    }
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// A process, and where its mapped files are and the tables of open files of its threads: mostly they share one.
fn look_up(pid: u32, group: &str) -> Option<(OwnedFd, Vec<String>)> {
    let process = openat(CWD, format!("/proc/{pid}"), FOLDER, Mode::empty()).ok()?;
    let mut groups = String::new();
    let file = File::from(openat(&process, "cgroup", OFlags::CLOEXEC, Mode::empty()).ok()?);
    file.take(CGROUP_FILE_BYTES).read_to_string(&mut groups).ok()?;
    if !groups.contains(group) {
        return None;
    }
    let mut folders = vec!["map_files".to_owned()];
    let mut before = None;
    for thread in folder_in(&process, "task")?.flatten() {
        let Some(id) = thread
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if before.is_none_or(|before| own_files(before, id)) {
            folders.push(format!("task/{id}/fd"));
            before = Some(id);
        }
    }
    Some((process, folders))
}

fn folder_in(process: &OwnedFd, name: &str) -> Option<Dir> {
    let folder = openat(process, name, FOLDER, Mode::empty()).ok()?;
    Dir::new(folder).ok()
}

/// Whether two threads have each their own table of open files (`kcmp(2)`); no, where the kernel cannot tell.
fn own_files(one: i32, other: i32) -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) > 0 }
}
