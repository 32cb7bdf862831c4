//! Limits on processes and threads: of one pod, and of all pods together, for the kernel has a number for the whole node
//! (`pid_max`, and `threads-max`: kernel/fork.c) and gives root no more.

use std::fs;
use std::path::PathBuf;

use super::files::{children, read, write_if_other};
use super::tree::TOP;
use super::{CgroupError, Cgroups};
use crate::guard;

/// Most processes and threads of one pod (Kubernetes' `podPidsLimit`, for which it has no default): far more than a network
/// function has, and an eighth of what a kernel gives out by default (`pid_max` 32,768).
pub const POD_PIDS_LIMIT: u64 = 4096;
/// The node's bounds.
const NODE_BOUNDS: [&str; 2] = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];

impl Cgroups {
    /// Bounds the processes of all pods of all Gantrys on the node: the host keeps a quarter of what there can be. Who has more keeps
    /// it, and gets none until there are fewer (admin-guide/cgroup-v1/pids.rst).
    pub fn bound_processes(&self) -> Result<(), CgroupError> {
        if self.hierarchy.mount("pids").is_none() || guard::off("pids") {
            return Ok(());
        }
        self.make_instance()?;
        let bounds = NODE_BOUNDS
            .map(|file| fs::read_to_string(file).ok())
            .into_iter()
            .flatten();
        let Some(least) = bounds.filter_map(|text| text.trim().parse::<u64>().ok()).min() else {
            return Ok(());
        };
        let top = self.dir("pids", &format!("/{TOP}"))?;
        write_if_other(&top.join("pids.max"), &(least / 4 * 3).to_string())
    }

    /// Bounds the processes of all containers of a pod together.
    pub(super) fn set_pids(&self, pod: &str) -> Result<(), CgroupError> {
        if self.hierarchy.mount("pids").is_none() {
            return Ok(());
        }
        let most = match guard::off("pids") {
            true => "max".to_owned(),
            false => POD_PIDS_LIMIT.to_string(),
        };
        write_if_other(&self.dir("pids", &self.pod_path(pod))?.join("pids.max"), &most)
    }

    /// How often a pod was refused a process since its groups were made (`pids.events`, cgroup-v1/pids.rst): newer kernels count
    /// at the group with the limit, older ones at the one that forks.
    pub fn refused_processes(&self, pod: &str) -> u64 {
        let Ok(dir) = self.dir("pids", &self.pod_path(pod)) else {
            return 0;
        };
        let groups = children(&dir).unwrap_or_default();
        let files = groups.iter().map(|name| dir.join(name)).chain([dir.clone()]);
        let count = |group: PathBuf| {
            let text = read(&group.join("pids.events")).ok()?;
            text.lines()
                .find_map(|line| line.strip_prefix("max "))?
                .parse::<u64>()
                .ok()
        };
        files.filter_map(count).fold(0, u64::saturating_add)
    }
}
