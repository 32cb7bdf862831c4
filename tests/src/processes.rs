//! Processes of a pod, as the kernel shows them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// In which the kernel tells times to programs (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// Host pids of a pod's processes, by the cgroup they are in, sorted; never none, for a pod that runs.
pub fn of_pod(pod: &Value) -> Result<Vec<i32>> {
    let uid = pod["metadata"]["uid"].as_str().context("a pod has a uid")?;
    let pids = in_group(uid)?;
    ensure!(!pids.is_empty(), "pod {} has no process", pod["metadata"]["name"]);
    Ok(pids)
}

/// Host pids of processes in a cgroup with this in its path, sorted.
pub fn in_group(name: &str) -> Result<Vec<i32>> {
    let is_in = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(name))
    };
    let mut pids: Vec<i32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|p| p.file_name().to_str()?.parse().ok())
        .filter(is_in)
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// CPU time of processes so far, in user and kernel mode, with that of their children that have ended (proc(5), `stat`).
pub fn cpu(pids: &[i32]) -> Duration {
    let ticks: u64 = pids
        .iter()
        .map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Behind the name, which may have spaces: fields from the third on.
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            let times = fields.split_whitespace().skip(11).take(4);
            times.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
        })
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// SIGKILL to all processes of a pod.
pub fn kill_pod(pod: &Value) -> Result<()> {
    for pid in of_pod(pod)? {
        // One that ended with its parent is as dead.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(())
}
