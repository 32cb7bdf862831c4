//! Network namespaces of pods: bind mounts of nsfs under the agent's directory, so that they live without a process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// All pods' network namespaces.
#[derive(Clone, Debug)]
pub struct NetnsDir {
    dir: PathBuf,
}

impl NetnsDir {
    /// In the agent's directory.
    pub fn new(agent_dir: &Path) -> Self {
        Self {
            dir: agent_dir.join("netns"),
        }
    }

    /// Where a pod's is, whether it exists or not.
    pub fn path(&self, uid: &str) -> PathBuf {
        self.dir.join(uid)
    }

    /// True if it is there (a file without a mount, as after a reboot, is not).
    pub fn exists(&self, uid: &str) -> bool {
        nix::sys::statfs::statfs(&self.path(uid)).is_ok_and(|s| s.filesystem_type().0 == NSFS_MAGIC)
    }

    /// Makes it if it is not there.
    pub fn create(&self, uid: &str) -> io::Result<PathBuf> {
        let path = self.path(uid);
        if self.exists(uid) {
            return Ok(path);
        }
        fs::create_dir_all(&self.dir)?;
        File::create(&path)?;
        let target = path.clone();
        // On a thread of its own: the namespace is the thread's, and ends with it but for the mount.
        let made = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let source = Path::new("/proc/thread-self/ns/net");
            mount(
                Some(source),
                &target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        });
        made.join()
            .map_err(|_| io::Error::other("the thread panicked"))??;
        Ok(path)
    }

    /// Removes it; it may be gone.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        let path = self.path(uid);
        while self.exists(uid) {
            umount2(&path, MntFlags::MNT_DETACH)?;
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Uids that have one, or a file of one.
    pub fn uids(&self) -> io::Result<Vec<String>> {
        match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
            Ok(entries) => entries
                .map(|e| {
                    e?.file_name()
                        .into_string()
                        .map_err(|_| io::Error::other("a name that is no text"))
                })
                .collect(),
        }
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn within<T: Send + 'static>(
        &self,
        uid: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let namespace = File::open(self.path(uid))?;
        let done = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        done.join().map_err(|_| io::Error::other("the thread panicked"))?
    }
}

/// `linux/magic.h`.
const NSFS_MAGIC: i64 = 0x6e73_6673;
