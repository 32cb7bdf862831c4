//! Ending what runs in groups, and removing them.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::files::{children, read, rmdir, try_write};
use super::tree::{TOP, below};
use super::{CgroupError, Cgroups, Hierarchy};

/// Between two looks at a group that is still in use.
const RETRY: Duration = Duration::from_millis(5);

impl Cgroups {
    /// Host pids of everything that runs in a pod, shims not included.
    pub fn pids_of_pod(&self, pod: &str) -> Result<Vec<u32>, CgroupError> {
        self.pids(&self.pod_path(pod))
    }

    /// Host pids of what runs in one container.
    pub fn pids_of_container(&self, pod: &str, container: &str) -> Result<Vec<u32>, CgroupError> {
        self.pids(&self.container_path(pod, container))
    }

    /// SIGKILL to everything in a pod; waits until all have ended.
    pub fn kill_pod(&self, pod: &str, patience: Duration) -> Result<(), CgroupError> {
        self.kill(&self.pod_path(pod), Instant::now() + patience)
    }

    /// Kills what is left of a pod and removes its groups. They may be gone already.
    pub fn remove_pod(&self, pod: &str, patience: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + patience;
        let group = self.pod_path(pod);
        self.kill(&group, deadline)?;
        self.remove_tree(&group, deadline)
    }

    /// Removes everything of this instance, the instance's own group too.
    pub fn remove_all(&self, patience: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + patience;
        for pod in self.pods()? {
            let group = self.pod_path(&pod);
            self.kill(&group, deadline)?;
            self.remove_tree(&group, deadline)?;
        }
        self.remove_tree(&self.instance_path(), deadline)?;
        for mount in self.hierarchy.mounts() {
            // Stays while another Gantry uses it.
            let _ = rmdir(&mount.join(TOP));
        }
        Ok(())
    }

    fn kill(&self, group: &str, deadline: Instant) -> Result<(), CgroupError> {
        loop {
            let before = self.pids(group)?;
            if before.is_empty() {
                return Ok(());
            }
            if let Hierarchy::V2 { point, .. } = &self.hierarchy {
                // Since Linux 5.14; the loop below does the same where it is missing.
                let _ = try_write(&below(point, group).join("cgroup.kill"), "1");
            }
            // A pid may be given to another process at any time: hold it, then see that it is still in the group.
            let held: Vec<_> = before
                .iter()
                .filter_map(|pid| {
                    let fd =
                        pidfd_open(Pid::from_raw(i32::try_from(*pid).ok()?)?, PidfdFlags::empty()).ok()?;
                    Some((*pid, fd))
                })
                .collect();
            let still = self.pids(group)?;
            for (pid, fd) in &held {
                if still.contains(pid) {
                    // ESRCH: it has just ended.
                    let _ = pidfd_send_signal(fd, Signal::KILL);
                }
            }
            if Instant::now() > deadline {
                return Err(CgroupError::Busy {
                    path: self.any_dir(group),
                    pids: still,
                });
            }
            sleep(RETRY);
        }
    }

    /// Everything at or below a group, under any controller.
    fn pids(&self, group: &str) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        for mount in self.hierarchy.mounts() {
            collect_pids(&below(mount, group), &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn remove_tree(&self, group: &str, deadline: Instant) -> Result<(), CgroupError> {
        for mount in self.hierarchy.mounts() {
            remove_dir_tree(&below(mount, group), deadline)?;
        }
        Ok(())
    }

    fn any_dir(&self, group: &str) -> PathBuf {
        self.hierarchy
            .mounts()
            .first()
            .map(|mount| below(mount, group))
            .unwrap_or_default()
    }
}

fn collect_pids(dir: &Path, into: &mut Vec<u32>) -> Result<(), CgroupError> {
    match read(&dir.join("cgroup.procs")) {
        Ok(text) => into.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
        Err(CgroupError::Io { source, .. }) if gone(&source) => return Ok(()),
        Err(e) => return Err(e),
    }
    for child in children(dir)? {
        collect_pids(&dir.join(child), into)?;
    }
    Ok(())
}

/// ENODEV is what a read of a group says that was removed after its file was opened.
fn gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

fn remove_dir_tree(dir: &Path, deadline: Instant) -> Result<(), CgroupError> {
    for child in children(dir)? {
        remove_dir_tree(&dir.join(child), deadline)?;
    }
    loop {
        match rmdir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                sleep(RETRY)
            }
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                let mut pids = Vec::new();
                collect_pids(dir, &mut pids)?;
                return Err(CgroupError::Busy {
                    path: dir.to_owned(),
                    pids,
                });
            }
            Err(source) => {
                return Err(CgroupError::Io {
                    operation: "remove cgroup".to_owned(),
                    path: dir.to_owned(),
                    source,
                });
            }
        }
    }
}
