//! Processes of a pod, as the kernel shows them.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Host pids of a pod's processes, by the cgroup they are in, sorted; never none, for a pod that runs.
pub fn of_pod(pod: &Value) -> Result<Vec<i32>> {
    let uid = pod["metadata"]["uid"].as_str().context("a pod has a uid")?;
    let in_pod = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(uid))
    };
    let mut pids: Vec<i32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|p| p.file_name().to_str()?.parse().ok())
        .filter(in_pod)
        .collect();
    pids.sort_unstable();
    ensure!(!pids.is_empty(), "pod {} has no process", pod["metadata"]["name"]);
    Ok(pids)
}

/// SIGKILL to all processes of a pod.
pub fn kill_pod(pod: &Value) -> Result<()> {
    for pid in of_pod(pod)? {
        // One that ended with its parent is as dead.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(())
}
