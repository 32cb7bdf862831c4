//! Which controllers are mounted where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// All v1 controllers: a container runtime makes groups in each, so each has to be emptied in the end.
const CONTROLLERS: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];
/// A node without one of these cannot run pods.
const NEEDED: [&str; 3] = ["cpu", "cpuset", "memory"];

/// The cgroup hierarchy of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// v1: controller name to mount point (two names may share one).
    V1(BTreeMap<String, PathBuf>),
    /// v2 alone.
    V2 {
        /// The mount point.
        point: PathBuf,
        /// What `cgroup.controllers` there names.
        controllers: BTreeSet<String>,
    },
}

impl Hierarchy {
    /// Reads a `mountinfo` file (`proc_pid_mountinfo(5)`). v1 wins where both are mounted: there the v2 one has no controllers.
    pub fn detect(mountinfo: &Path) -> Result<Self, CgroupError> {
        let table = fs::read_to_string(mountinfo).map_err(|source| CgroupError::Io {
            operation: "read".to_owned(),
            path: mountinfo.to_owned(),
            source,
        })?;
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in table.lines() {
            // The fields after " - " are type, source, options of the super block.
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let point = PathBuf::from(before.split(' ').nth(4).unwrap_or_default());
            let mut after = after.split(' ');
            match (after.next(), after.nth(1)) {
                (Some("cgroup"), Some(options)) => {
                    for name in options.split(',').filter(|o| CONTROLLERS.contains(o)) {
                        v1.entry(name.to_owned()).or_insert_with(|| point.clone());
                    }
                }
                (Some("cgroup2"), _) => v2 = v2.or(Some(point)),
                _ => {}
            }
        }
        match v2 {
            Some(point) if v1.is_empty() => Self::v2(point),
            _ => Self::check_v1(v1),
        }
    }

    fn check_v1(mounts: BTreeMap<String, PathBuf>) -> Result<Self, CgroupError> {
        match NEEDED.iter().find(|name| !mounts.contains_key(**name)) {
            Some(controller) => Err(CgroupError::NoController { controller }),
            None => Ok(Self::V1(mounts)),
        }
    }

    /// v2 as it is mounted at `point`.
    pub fn v2(point: PathBuf) -> Result<Self, CgroupError> {
        let file = point.join("cgroup.controllers");
        let available = fs::read_to_string(&file).map_err(|source| CgroupError::Io {
            operation: "read".to_owned(),
            path: file.clone(),
            source,
        })?;
        let controllers: BTreeSet<String> = available.split_whitespace().map(str::to_owned).collect();
        match NEEDED.iter().find(|name| !controllers.contains(**name)) {
            Some(controller) => Err(CgroupError::NoController { controller }),
            None => Ok(Self::V2 { point, controllers }),
        }
    }

    /// The mount point of a controller; `None` where the node does not have it.
    pub(super) fn mount(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1(mounts) => mounts.get(controller).map(PathBuf::as_path),
            Self::V2 { point, controllers } => controllers.contains(controller).then_some(point),
        }
    }

    /// Every mount point once.
    pub(super) fn mounts(&self) -> Vec<&Path> {
        match self {
            Self::V1(mounts) => {
                let mut points: Vec<&Path> = mounts.values().map(PathBuf::as_path).collect();
                points.sort();
                points.dedup();
                points
            }
            Self::V2 { point, .. } => vec![point],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(table: &str) -> Result<Hierarchy, CgroupError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), table).unwrap();
        Hierarchy::detect(file.path())
    }

    #[test]
    fn v1_controllers_may_share_a_mount_and_v2_may_stand_beside() {
        let found = detect(
            "30 25 0:26 / /c/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             31 25 0:27 / /c/cpuset rw - cgroup cgroup rw,cpuset\n\
             32 25 0:28 / /c/memory rw - cgroup cgroup rw,memory\n\
             33 25 0:29 / /c/unified rw - cgroup2 cgroup2 rw\n",
        );
        let Ok(Hierarchy::V1(mounts)) = found else {
            panic!("{found:?}")
        };
        assert_eq!(mounts["cpu"], Path::new("/c/cpu,cpuacct"));
        assert_eq!(mounts.len(), 4);
    }

    #[test]
    fn a_missing_controller_is_named() {
        let found = detect("31 25 0:27 / /c/cpuset rw - cgroup cgroup rw,cpuset\n").unwrap_err();
        assert!(found.to_string().contains("`cpu`"), "{found}");
    }
}
