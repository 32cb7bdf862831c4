//! Putting limits in force and reading back what is.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use gantry_nodeagent_api::ContainerResources;
use gantry_topology::{CpuSet, NumaId};

use super::files::{children, number, read, try_write, write, write_if_other};
use super::{CgroupError, Cgroups, Hierarchy};
use crate::guard;

/// Length in microseconds of the period that a CPU limit is counted in.
const PERIOD_US: u64 = 100_000;

/// What the kernel holds a container to at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// CPUs it may run on.
    pub cpus: CpuSet,
    /// NUMA nodes whose memory it may use.
    pub mems: CpuSet,
    /// Weight as CPU request in thousandths (v2 rounds down to tens).
    pub cpu_request_milli: u32,
    /// CPU limit in thousandths.
    pub cpu_limit_milli: Option<u32>,
    /// Memory limit in bytes, a multiple of the page size; 0 means none.
    pub memory_bytes: u64,
    /// Hugepage limits above 0: page size in bytes to bytes.
    pub hugepages: BTreeMap<u64, u64>,
}

impl Applied {
    /// As reported upward: a container on exactly the shared pool has no exclusive CPUs.
    pub fn resources(&self, shared_cpus: &CpuSet) -> ContainerResources {
        ContainerResources {
            cpus: if self.cpus == *shared_cpus {
                CpuSet::new()
            } else {
                self.cpus.clone()
            },
            cpu_request_milli: self.cpu_request_milli,
            cpu_limit_milli: self.cpu_limit_milli,
            memory_bytes: self.memory_bytes,
            hugepages: self.hugepages.clone(),
        }
    }
}

impl Cgroups {
    /// What is in force for a container; an error of kind `NotFound` inside if it has no group.
    pub fn in_force(&self, pod: &str, container: &str) -> Result<Applied, CgroupError> {
        let group = self.container_path(pod, container);
        let (cpu, cpuset) = (self.dir("cpu", &group)?, self.dir("cpuset", &group)?);
        let v1 = matches!(self.hierarchy, Hierarchy::V1(_));
        let effective = |v1_file: &str, v2_file: &str| list(&cpuset.join(if v1 { v1_file } else { v2_file }));
        let (weight, quota) = if v1 {
            let quota = read(&cpu.join("cpu.cfs_quota_us"))?;
            let period = read(&cpu.join("cpu.cfs_period_us"))?;
            (read(&cpu.join("cpu.shares"))?, format!("{quota} {period}"))
        } else {
            (read(&cpu.join("cpu.weight"))?, read(&cpu.join("cpu.max"))?)
        };
        let weight = weight.parse().unwrap_or(0);
        Ok(Applied {
            cpus: effective("cpuset.cpus", "cpuset.cpus.effective")?,
            mems: effective("cpuset.mems", "cpuset.mems.effective")?,
            cpu_request_milli: if v1 {
                milli_of_shares(weight)
            } else {
                milli_of_weight(weight)
            },
            cpu_limit_milli: milli_of_quota(&quota),
            memory_bytes: number(&self.memory_limit(&group)?).unwrap_or(0),
            hugepages: self.hugepages_in_force(&group)?,
        })
    }

    /// The file in which the kernel counts the processes of a container that it killed for want of memory, if the node counts.
    pub fn oom_events(&self, pod: &str, container: &str) -> Option<PathBuf> {
        let file = if matches!(self.hierarchy, Hierarchy::V1(_)) {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        let group = self.container_path(pod, container);
        Some(self.dir("memory", &group).ok()?.join(file))
    }

    pub(super) fn used(&self, group: &str) -> Result<u64, CgroupError> {
        let file = if matches!(self.hierarchy, Hierarchy::V1(_)) {
            "memory.usage_in_bytes"
        } else {
            "memory.current"
        };
        Ok(number(&read(&self.dir("memory", group)?.join(file))?).unwrap_or(0))
    }

    fn memory_limit_file(&self, group: &str) -> Result<PathBuf, CgroupError> {
        let file = if matches!(self.hierarchy, Hierarchy::V1(_)) {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        };
        Ok(self.dir("memory", group)?.join(file))
    }

    /// As the kernel writes it.
    pub(super) fn memory_limit(&self, group: &str) -> Result<String, CgroupError> {
        read(&self.memory_limit_file(group)?)
    }

    /// The files of a group's limits on memory and sockets, and what is in them.
    pub(super) fn memory_limits(&self, group: &str) -> Result<Vec<(PathBuf, String)>, CgroupError> {
        let files = [self.memory_limit_file(group)?].into_iter();
        let files = files.chain(self.sockets_file(group, "limit_in_bytes")?);
        files.map(|file| read(&file).map(|limit| (file, limit))).collect()
    }

    pub(super) fn set_memory(&self, group: &str, bytes: u64) -> Result<(), CgroupError> {
        let bytes = if guard::off("memory-limit") { 0 } else { bytes };
        let dir = self.dir("memory", group)?;
        let in_use = |used_bytes| CgroupError::MemoryInUse {
            group: group.to_owned(),
            wanted_bytes: bytes,
            used_bytes,
        };
        if matches!(self.hierarchy, Hierarchy::V1(_)) {
            let file = self.memory_limit_file(group)?;
            let value = if bytes == 0 {
                "-1".to_owned()
            } else {
                bytes.to_string()
            };
            return match try_write(&file, &value) {
                Ok(()) => Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(in_use(self.used(group)?)),
                Err(source) => Err(CgroupError::Io {
                    operation: format!("write `{value}` to"),
                    path: file,
                    source,
                }),
            };
        }
        // v2 accepts any limit and kills what does not fit: ask first, and let the kernel drop caches.
        if bytes != 0 {
            let over = self.used(group)?.saturating_sub(bytes);
            if over > 0 {
                // Fails when it could not free enough, or on a kernel before 5.19; the next reading tells.
                let _ = try_write(&dir.join("memory.reclaim"), &over.to_string());
            }
            let used = self.used(group)?;
            if used > bytes {
                return Err(in_use(used));
            }
        }
        let value = if bytes == 0 {
            "max".to_owned()
        } else {
            bytes.to_string()
        };
        write(&self.memory_limit_file(group)?, &value)
    }

    pub(super) fn set_cpuset(
        &self,
        pod: &str,
        container: &str,
        cpus: &CpuSet,
        mems: &[NumaId],
    ) -> Result<(), CgroupError> {
        let parent = self.dir("cpuset", &self.pod_path(pod))?;
        let child = parent.join(container);
        let mems: CpuSet = mems.iter().copied().collect();
        // All nodes: v2 inherits by itself, v1 has to be told.
        let mems = match (&self.hierarchy, mems.is_empty()) {
            (Hierarchy::V1(_), true) => {
                list(&self.dir("cpuset", &self.instance_path())?.join("cpuset.mems"))?
            }
            _ => mems,
        };
        if matches!(self.hierarchy, Hierarchy::V1(_)) {
            write_if_other(&child.join("cpuset.memory_migrate"), "1")?;
        }
        for (file, wanted) in [("cpuset.mems", &mems), ("cpuset.cpus", cpus)] {
            let (above, own) = (parent.join(file), child.join(file));
            write_if_other(&above, &list(&above)?.union(wanted).to_string())?;
            write_if_other(&own, &wanted.to_string())?;
            write_if_other(&above, &union_of_children(&parent, file)?.to_string())?;
        }
        Ok(())
    }

    pub(super) fn set_cpu(
        &self,
        group: &str,
        request_milli: u32,
        limit_milli: Option<u32>,
    ) -> Result<(), CgroupError> {
        let request_milli = if guard::off("cpu-weight") {
            1000
        } else {
            request_milli
        };
        let dir = self.dir("cpu", group)?;
        let quota = limit_milli.map(|milli| (u64::from(milli) * PERIOD_US / 1000).max(1000));
        let (file, weight) = if matches!(self.hierarchy, Hierarchy::V1(_)) {
            write_if_other(&dir.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
            let quota = quota.map_or("-1".to_owned(), |us| us.to_string());
            write_if_other(&dir.join("cpu.cfs_quota_us"), &quota)?;
            ("cpu.shares", shares_of_milli(request_milli))
        } else {
            let quota = quota.map_or("max".to_owned(), |us| us.to_string());
            write_if_other(&dir.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
            ("cpu.weight", weight_of_milli(request_milli))
        };
        write_if_other(&dir.join(file), &weight.to_string())?;
        // A pod weighs as much as its containers together.
        let pod = dir.parent().expect("a container's group is below its pod's");
        let mut total = 0;
        for name in children(pod)? {
            total += number(&read(&pod.join(name).join(file))?).unwrap_or(0);
        }
        let most = if file == "cpu.shares" { 262_144 } else { 10_000 };
        write_if_other(&pod.join(file), &total.min(most).to_string())
    }
}

fn list(path: &Path) -> Result<CpuSet, CgroupError> {
    read(path)?.parse().map_err(|e| CgroupError::Io {
        operation: "read CPU list of".to_owned(),
        path: path.to_owned(),
        source: io::Error::other(e),
    })
}

fn union_of_children(parent: &Path, file: &str) -> Result<CpuSet, CgroupError> {
    let mut all = CpuSet::new();
    for name in children(parent)? {
        all = all.union(&list(&parent.join(name).join(file))?);
    }
    Ok(all)
}

/// 1024 shares a CPU, rounded up so that [`milli_of_shares`] finds the same number again.
fn shares_of_milli(milli: u32) -> u64 {
    (u64::from(milli) * 1024).div_ceil(1000).clamp(2, 262_144)
}

fn milli_of_shares(shares: u64) -> u32 {
    if shares <= 2 {
        0
    } else {
        u32::try_from(shares * 1000 / 1024).unwrap_or(u32::MAX)
    }
}

/// 100, the kernel's default, a CPU.
fn weight_of_milli(milli: u32) -> u64 {
    u64::from(milli / 10).clamp(1, 10_000)
}

fn milli_of_weight(weight: u64) -> u32 {
    if weight <= 1 {
        0
    } else {
        u32::try_from(weight * 10).unwrap_or(u32::MAX)
    }
}

/// From `quota period`, both in microseconds; a quota of `max` or -1 is none.
fn milli_of_quota(text: &str) -> Option<u32> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (
        quota.parse::<u64>().ok()?,
        period.parse::<u64>().ok().filter(|p| *p > 0)?,
    );
    u32::try_from(quota * 1000 / period).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for milli in [2, 10, 100, 105, 250, 1000, 1333, 64_000] {
            assert_eq!(milli_of_shares(shares_of_milli(milli)), milli);
        }
        assert_eq!(milli_of_weight(weight_of_milli(1500)), 1500);
        assert_eq!(milli_of_quota("150000 100000"), Some(1500));
        assert_eq!(milli_of_quota("-1 100000"), None);
        assert_eq!(milli_of_quota("max 100000"), None);
    }
}
