//! Network namespaces, held by a bind mount.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

pub struct Netns {
    path: PathBuf,
}

impl Netns {
    pub fn new(path: &Path) -> Netns {
        File::create(path).unwrap();
        std::thread::scope(|s| {
            s.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                let own = Some("/proc/thread-self/ns/net");
                mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            });
        });
        let ns = Netns {
            path: path.to_owned(),
        };
        ns.run(|| run_ip(&["link", "set", "lo", "up"]));
        ns
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs on a new thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(File::open(&self.path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|s| match s.spawn(enter).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a thread inside.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
        let ns = File::open(&self.path).unwrap();
        std::thread::spawn(move || {
            setns(ns, CloneFlags::CLONE_NEWNET).unwrap();
            work();
        })
    }

    /// What a runtime does at the end of a pod, before or after DEL.
    pub fn remove(&self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.remove();
    }
}

pub fn run_ip(args: &[&str]) {
    let output = std::process::Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
