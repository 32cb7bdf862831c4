//! Network namespaces of pods: bind mounts of nsfs under the agent's directory, so that they live without a process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

use crate::runtime::namespaces::{is_pinned, pin, pin_mapped, unpin};

/// All pods' network namespaces, and the user namespaces of those that have ids of their own.
#[derive(Clone, Debug)]
pub struct NetnsDir {
    dir: PathBuf,
    users: PathBuf,
}

impl NetnsDir {
    /// In the agent's directory.
    pub fn new(agent_dir: &Path) -> Self {
        Self {
            dir: agent_dir.join("netns"),
            users: agent_dir.join("userns"),
        }
    }

    /// Where a pod's is, whether it exists or not.
    pub fn path(&self, uid: &str) -> PathBuf {
        self.dir.join(uid)
    }

    /// Where a pod's user namespace is, whether it has one or not.
    pub fn user_path(&self, uid: &str) -> PathBuf {
        self.users.join(uid)
    }

    /// True if it is there (a file without a mount, as after a reboot, is not).
    pub fn exists(&self, uid: &str) -> bool {
        is_pinned(&self.path(uid))
    }

    /// Makes it if it is not there.
    pub fn create(&self, uid: &str) -> io::Result<PathBuf> {
        let path = self.path(uid);
        if self.exists(uid) {
            return Ok(path);
        }
        let target = path.clone();
        // On a thread of its own: the namespace is the thread's, and ends with it but for the mount.
        let made = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            pin(Path::new("/proc/thread-self/ns/net"), &target)
        });
        made.join()
            .map_err(|_| io::Error::other("the thread panicked"))??;
        Ok(path)
    }

    /// True if it is there with the user namespace that it belongs to.
    pub fn exists_mapped(&self, uid: &str) -> bool {
        self.exists(uid) && is_pinned(&self.user_path(uid))
    }

    /// Makes it with the user namespace that it belongs to, in place of what is there. `first` is the host's id of root in it.
    pub fn create_mapped(&self, uid: &str, first: u32) -> io::Result<()> {
        self.remove(uid)?;
        pin_mapped(first, &self.user_path(uid), &self.path(uid))
    }

    /// Removes it, and the user namespace; they may be gone.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        unpin(&self.path(uid))?;
        unpin(&self.user_path(uid))
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
