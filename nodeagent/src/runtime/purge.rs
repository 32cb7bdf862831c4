//! Takes everything of one instance off the node: processes, mounts, cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{PodDir, RuntimeDir, RuntimeError, mounts};
use crate::host::cgroup::{CgroupError, Cgroups};

/// What a purge found and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Shims killed.
    pub shims: usize,
    /// Pods whose groups were removed.
    pub pods: usize,
    /// Mounts undone.
    pub mounts: usize,
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// A directory of the agent.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A control group.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A shim did not end in time.
    #[error("shim {pid} of {} does not end after SIGKILL", dir.display())]
    ShimStays {
        /// Host pid.
        pid: u32,
        /// The pod's directory.
        dir: PathBuf,
    },
}

/// Kills every shim recorded under `agent_dir` and everything in the instance's cgroups, unmounts everything below `agent_dir`
/// (innermost first), removes the cgroups and the pods' directories. Network and files above are the caller's. May be repeated.
pub fn purge(agent_dir: &Path, cgroups: &Cgroups, patience: Duration) -> Result<PurgeReport, PurgeError> {
    let mut report = PurgeReport::default();
    let runtime = RuntimeDir::new(agent_dir);
    let uids = runtime.pods()?;
    for uid in &uids {
        report.shims += usize::from(kill_shim(&runtime.pod(uid), patience)?);
    }
    report.pods = cgroups.pods()?.len();
    cgroups.remove_all(patience)?;
    report.mounts = mounts::unmount_below(agent_dir).map_err(|(path, source)| RuntimeError::Io {
        operation: "unmount",
        path,
        source,
    })?;
    for uid in &uids {
        runtime.pod(uid).remove()?;
    }
    Ok(report)
}

/// Kills the shim of a pod, if the process of that pid is still the one that wrote the file; true if it was there.
fn kill_shim(dir: &PodDir, patience: Duration) -> Result<bool, PurgeError> {
    let Some((pid, start_time)) = recorded(&dir.pid_file()) else {
        return Ok(false);
    };
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(false);
    };
    // Held first, compared second: from here on the pid cannot be given to another process unseen.
    let Ok(fd) = pidfd_open(raw, PidfdFlags::empty()) else {
        return Ok(false);
    };
    if start_time_of(pid) != Some(start_time) {
        return Ok(false);
    }
    // ESRCH: it has just ended.
    let _ = pidfd_send_signal(&fd, Signal::KILL);
    let deadline = Instant::now() + patience;
    while start_time_of(pid) == Some(start_time) {
        if Instant::now() > deadline {
            return Err(PurgeError::ShimStays {
                pid,
                dir: dir.path().to_owned(),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(true)
}

impl PodDir {
    /// The shim that was started here runs.
    pub(crate) fn has_shim(&self) -> bool {
        recorded(&self.pid_file()).is_some_and(|(pid, start_time)| start_time_of(pid) == Some(start_time))
    }
}

/// `pid start-time`, as [`identity_of_self`] writes it.
fn recorded(pid_file: &Path) -> Option<(u32, u64)> {
    let text = fs::read_to_string(pid_file).ok()?;
    let (pid, start_time) = text.trim().split_once(' ')?;
    Some((pid.parse().ok()?, start_time.parse().ok()?))
}

/// What identifies the calling process for as long as the node is up.
pub(crate) fn identity_of_self() -> String {
    let pid = std::process::id();
    format!("{pid} {}\n", start_time_of(pid).unwrap_or(0))
}

/// Start of a process in clock ticks since boot (`proc_pid_stat(5)`, field 22); `None` if it is gone or a zombie.
fn start_time_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
