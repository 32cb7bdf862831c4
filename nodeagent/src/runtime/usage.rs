//! How much a pod has left on the disk, counted in steps: whoever makes a million files must not hold up anybody.
//!
//! Only names in open folders are followed, never a link, never a mount. What changes meanwhile is counted as it is met. A file
//! with several names counts for each with its part, so that nothing has to be remembered. Files that have no name any more are
//! found with the processes that have them open ([`super::unnamed`]). What the kernel counts by itself is not walked ([`super::quota`]).

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

use super::unnamed::{Running, Unnamed};
use super::{PodDir, RuntimeError, dir, quota};

/// Folders in folders: each is an open descriptor while it is walked. What is nested deeper counts as too many files.
const MAX_DEPTH: usize = 128;
/// `st_blocks` is in units of so many bytes (stat(2)).
pub(super) const BLOCK_BYTES: u64 = 512;

/// What a pod has left on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of each container's writes to its root file system, of its logs, and of files without a name that it has open.
    pub containers: BTreeMap<String, u64>,
    /// Bytes in each volume that is a directory of the pod's own.
    pub volumes: BTreeMap<String, u64>,
    /// Files and directories; more than the bound when it was given up to count.
    pub entries: u64,
}

impl Usage {
    /// Of a part that may be new.
    fn bytes(&mut self, part: &Part) -> &mut u64 {
        match part {
            Part::Container(name) => self.containers.entry(name.clone()).or_default(),
            Part::Volume(name) => self.volumes.entry(name.clone()).or_default(),
        }
    }
}

/// One count of one pod, under way.
pub struct Walk {
    roots: Vec<(Part, PathBuf)>,
    part: Part,
    stack: Vec<Dir>,
    device: u64,
    unnamed: Unnamed,
    usage: Usage,
    max_entries: u64,
}

/// Whose files are being counted.
#[derive(Clone, Debug)]
enum Part {
    Container(String),
    Volume(String),
}

impl Walk {
    /// Begins to count; gives up beyond `max_entries` of files and directories, or of descriptors and mappings.
    pub fn new(pod: &PodDir, running: Vec<Running>, max_entries: u64) -> Result<Self, RuntimeError> {
        let below = |name: &str| pod.path().join(name);
        let failed = |e: rustix::io::Errno| RuntimeError::io("look at", pod.path(), e.into());
        let own = statat(CWD, pod.path(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let mut walk = Self {
            roots: Vec::new(),
            part: Part::Volume(String::new()),
            stack: Vec::new(),
            device: own.st_dev,
            unnamed: Unnamed::new(pod, own.st_dev, running),
            usage: Usage::default(),
            max_entries,
        };
        let mut walked = false;
        for name in dir::names(&below("rootfs"))? {
            let root = below("rootfs").join(&name);
            let part = Part::Container(name);
            if !walk.is_counted(&root, &part) {
                walk.roots.push((part, root.join("upper")));
                walked = true;
            }
        }
        for name in dir::names(&below("logs"))? {
            let path = below("logs").join(&name);
            walk.roots.push((Part::Container(name), path));
        }
        for name in dir::names(&below("volumes"))? {
            let path = below("volumes").join(&name);
            let part = Part::Volume(name);
            if !walk.is_counted(&path, &part) {
                walk.roots.push((part, path));
            }
        }
        // A pod is counted by the kernel in all that it may write to, or in nothing: what it has open is counted then, too.
        if !walked {
            walk.unnamed = Unnamed::new(pod, own.st_dev, Vec::new());
        }
        Ok(walk)
    }

    /// Begins to count a folder of its own, as its only volume (of no name); gives up as [`Self::new`] does.
    pub fn of_folder(folder: &Path, max_entries: u64) -> Result<Self, RuntimeError> {
        let failed = |e: rustix::io::Errno| RuntimeError::io("look at", folder, e.into());
        let own = statat(CWD, folder, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let part = Part::Volume(String::new());
        Ok(Self {
            roots: vec![(part.clone(), folder.to_owned())],
            part,
            stack: Vec::new(),
            device: own.st_dev,
            unnamed: Unnamed::new(&PodDir::new(folder), own.st_dev, Vec::new()),
            usage: Usage::default(),
            max_entries,
        })
    }

    /// Takes the kernel's own count of a directory, if there is one.
    fn is_counted(&mut self, path: &Path, part: &Part) -> bool {
        let Some(count) = quota::count(path) else {
            return false;
        };
        let bytes = self.usage.bytes(part);
        *bytes = bytes.saturating_add(count.bytes);
        self.usage.entries = self.usage.entries.saturating_add(count.entries);
        true
    }

    /// Looks at `most` more entries; the result once all were seen, or too many.
    pub fn step(&mut self, most: usize) -> Option<Usage> {
        for _ in 0..most {
            if !self.next() || self.usage.entries > self.max_entries {
                return Some(std::mem::take(&mut self.usage));
            }
        }
        None
    }

    /// False when there is nothing more.
    fn next(&mut self) -> bool {
        let Some(dir) = self.stack.last_mut() else {
            return self.next_root();
        };
        let Some(Ok(entry)) = dir.read() else {
            self.stack.pop();
            return true;
        };
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            return true;
        }
        // Gone meanwhile, mostly.
        let Ok((stat, below)) = look(dir, name, self.device) else {
            return true;
        };
        self.usage.entries += 1;
        let bytes = match &self.part {
            Part::Container(name) => self.usage.containers.get_mut(name),
            Part::Volume(name) => self.usage.volumes.get_mut(name),
        };
        if let Some(bytes) = bytes {
            *bytes = bytes.saturating_add(size(&stat));
        }
        if let Some(below) = below {
            if self.stack.len() > MAX_DEPTH {
                self.usage.entries = u64::MAX;
                return true;
            }
            self.stack.push(below);
        }
        true
    }

    fn next_root(&mut self) -> bool {
        let Some((part, path)) = self.roots.pop() else {
            return self.next_unnamed();
        };
        self.usage.bytes(&part);
        self.part = part;
        self.stack.extend(open_root(&path, self.device));
        true
    }

    fn next_unnamed(&mut self) -> bool {
        let containers = &mut self.usage.containers;
        let more = self.unnamed.next(|container, found| {
            let bytes = containers.entry(container.to_owned()).or_default();
            *bytes = bytes.saturating_add(found);
        });
        if self.unnamed.looks > self.max_entries {
            self.usage.entries = u64::MAX;
        }
        more
    }
}

/// What stands under a name; the folder, if it is one of this file system.
fn look(dir: &Dir, name: &CStr, device: u64) -> io::Result<(Stat, Option<Dir>)> {
    let stat = statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let below = (is_dir && stat.st_dev == device).then(|| openat(dir.fd()?, name, FOLDER, Mode::empty()));
    let below = below.and_then(|fd: rustix::io::Result<OwnedFd>| Dir::new(fd.ok()?).ok());
    Ok((stat, below))
}

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOATIME);

/// A folder of the pod's own; volumes in memory are on another device.
fn open_root(path: &Path, device: u64) -> Option<Dir> {
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let fd = openat(CWD, path, FOLDER, Mode::empty()).ok()?;
    (stat.st_dev == device).then(|| Dir::new(fd).ok()).flatten()
}

/// Bytes on the disk; of a file with several names, one name's part.
fn size(stat: &Stat) -> u64 {
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    let bytes = blocks.saturating_mul(BLOCK_BYTES);
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return bytes;
    }
    #[allow(
        clippy::useless_conversion,
        reason = "its width differs between architectures"
    )]
    let names = u64::from(stat.st_nlink).max(1);
    bytes.div_ceil(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use nix::libc;

    use super::*;

    fn pod() -> (tempfile::TempDir, PodDir) {
        let tmp = tempfile::tempdir().unwrap();
        for dir in ["rootfs/c/upper", "rootfs/c/work", "logs/c", "volumes/v"] {
            fs::create_dir_all(tmp.path().join(dir)).unwrap();
        }
        let pod = PodDir::new(tmp.path());
        (tmp, pod)
    }

    fn count(pod: &PodDir, max_entries: u64) -> Usage {
        count_with(pod, Vec::new(), max_entries)
    }

    fn count_with(pod: &PodDir, running: Vec<Running>, max_entries: u64) -> Usage {
        let mut walk = Walk::new(pod, running, max_entries).unwrap();
        loop {
            if let Some(usage) = walk.step(1) {
                return usage;
            }
        }
    }

    #[test]
    fn what_is_on_the_disk_counts_once_and_nothing_outside_does() {
        let (tmp, pod) = pod();
        let at = |path: &str| tmp.path().join(path);
        assert_eq!(count(&pod, 10).containers["c"], 0);
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("big"), vec![1; 8 << 20]).unwrap();
        symlink(outside.path(), at("rootfs/c/upper/link")).unwrap();
        symlink(outside.path().join("big"), at("volumes/v/big")).unwrap();
        fs::write(at("rootfs/c/work/file"), vec![1; 8 << 20]).unwrap();
        fs::create_dir(at("rootfs/c/upper/etc")).unwrap();
        fs::write(at("rootfs/c/upper/etc/a"), vec![1; 1 << 20]).unwrap();
        for name in ["b", "c", "d"] {
            fs::hard_link(at("rootfs/c/upper/etc/a"), at("rootfs/c/upper").join(name)).unwrap();
        }
        fs::write(at("logs/c/0.log"), vec![1; 1 << 20]).unwrap();
        fs::write(at("volumes/v/x"), vec![1; 3 << 20]).unwrap();
        let sparse = fs::File::create(at("volumes/v/sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let usage = count(&pod, 1000);
        let mebi = |bytes: u64| bytes >> 20;
        assert_eq!(
            (mebi(usage.containers["c"]), mebi(usage.volumes["v"])),
            (2, 3),
            "{usage:?}"
        );
        assert!(usage.containers["c"] < (2 << 20) + (64 << 10), "{usage:?}");
        assert_eq!(usage.entries, 10);
    }

    #[test]
    fn what_cannot_be_counted_is_more_than_the_bound() {
        let (tmp, pod) = pod();
        for number in 0..50 {
            fs::write(tmp.path().join(format!("volumes/v/{number}")), "").unwrap();
        }
        assert_eq!(count(&pod, 50).entries, 50);
        assert_eq!(count(&pod, 49).entries, 50);
        let deep = |folders: usize| vec!["d"; folders].join("/");
        fs::create_dir_all(tmp.path().join("rootfs/c/upper").join(deep(MAX_DEPTH))).unwrap();
        assert_eq!(count(&pod, 1000).entries, 50 + MAX_DEPTH as u64);
        fs::create_dir_all(tmp.path().join("rootfs/c/upper").join(deep(MAX_DEPTH + 1))).unwrap();
        assert!(count(&pod, 1000).entries > 1000);
    }

    /// A child of this process, that ends with the test.
    struct Child(std::process::Child);

    impl Drop for Child {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn what_was_deleted_and_is_still_open_counts_once() {
        let (tmp, pod) = pod();
        let file = |name: &str, mebi: usize| {
            let path = tmp.path().join("volumes/v").join(name);
            fs::write(&path, vec![1; mebi << 20]).unwrap();
            fs::File::open(path).unwrap()
        };
        let (deleted, named) = (file("deleted", 5), file("named", 3));
        fs::remove_file(tmp.path().join("volumes/v/deleted")).unwrap();
        // Twice the same, one with a name, a pipe.
        let mut sleeper = std::process::Command::new("sleep");
        sleeper
            .arg("1000")
            .stdin(deleted.try_clone().unwrap())
            .stdout(deleted)
            .stderr(named);
        let sleeper = Child(sleeper.spawn().unwrap());
        let of = |group: &str| {
            let pids = vec![sleeper.0.id(), sleeper.0.id(), u32::MAX];
            let (container, group) = ("c".to_owned(), group.to_owned());
            vec![Running {
                container,
                group,
                pids,
            }]
        };
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().next().unwrap();
        let usage = count_with(&pod, of(own), 1000);
        assert_eq!(
            (usage.containers["c"] >> 20, usage.volumes["v"] >> 20),
            (5, 3),
            "{usage:?}"
        );
        assert_eq!(usage.entries, 1);
        // Its number is another's by now.
        assert_eq!(count_with(&pod, of("/gantry/other"), 1000).containers["c"], 0);
        assert!(count_with(&pod, of(own), 3).entries > 3);
        drop(sleeper);
        assert_eq!(count(&pod, 1000).containers["c"], 0);
    }

    #[test]
    fn so_does_what_is_only_mapped() {
        let (tmp, pod) = pod();
        let path = tmp.path().join("rootfs/c/upper/mapped");
        let (container, group) = ("c".to_owned(), String::new());
        let of_self = Running {
            container,
            group,
            pids: vec![std::process::id()],
        };
        let mebi = || count_with(&pod, vec![of_self.clone()], 100_000).containers["c"] >> 20;
        let length = 5 << 20;
        fs::write(&path, vec![1; length]).unwrap();
        let file = fs::File::open(&path).unwrap();
        let (fd, nowhere) = (file.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: a new mapping, which nobody reads.
        let mapped = unsafe { libc::mmap(nowhere, length, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
        assert_ne!(mapped, libc::MAP_FAILED);
        drop(file);
        assert_eq!(mebi(), 5, "by its name");
        fs::remove_file(&path).unwrap();
        assert_eq!(mebi(), 5, "by its mapping");
        // SAFETY: the mapping from above.
        assert_eq!(unsafe { libc::munmap(mapped, length) }, 0);
        assert_eq!(mebi(), 0);
    }
}
