//! What a group takes, as the kernel has counted it.

use super::files::{number, read};
use super::{CgroupError, Cgroups, Hierarchy};

impl Cgroups {
    /// CPU time that a pod has had, in nanoseconds, and its working set, in bytes.
    pub fn usage(&self, pod: &str) -> Result<(u64, u64), CgroupError> {
        let group = self.pod_path(pod);
        let cpu_nanos = match self.hierarchy {
            Hierarchy::V1(_) => number(&read(&self.dir("cpuacct", &group)?.join("cpuacct.usage"))?),
            Hierarchy::V2 { .. } => {
                let stat = read(&self.dir("cpu", &group)?.join("cpu.stat"))?;
                row(&stat, "usage_usec").map(|micros| micros * 1000)
            }
        };
        Ok((cpu_nanos.unwrap_or(0), self.working_set(&group)?))
    }

    /// Memory without what the kernel gives back before it kills anybody.
    pub(super) fn working_set(&self, group: &str) -> Result<u64, CgroupError> {
        let idle_cache = match self.hierarchy {
            Hierarchy::V1(_) => "total_inactive_file",
            Hierarchy::V2 { .. } => "inactive_file",
        };
        let stat = read(&self.dir("memory", group)?.join("memory.stat"))?;
        Ok(self
            .used(group)?
            .saturating_sub(row(&stat, idle_cache).unwrap_or(0)))
    }
}

/// A number of a `.stat` file by its name.
fn row(stat: &str, name: &str) -> Option<u64> {
    let mut found = stat
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_by_its_whole_name() {
        let stat = "inactive_file 1\ntotal_inactive_file_x 2\ntotal_inactive_file 3\n";
        assert_eq!(row(stat, "total_inactive_file"), Some(3));
        assert_eq!(row(stat, "inactive_file"), Some(1));
        assert_eq!(row("", "inactive_file"), None);
    }
}
