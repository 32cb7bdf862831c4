//! Making and naming groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::files::{children, read, write, write_if_other};
use super::{CgroupError, Cgroups, Hierarchy};

/// The group of all Gantrys on the node.
pub(super) const TOP: &str = "gantry";
/// Controllers switched on for child groups in v2, where available.
const V2_CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];
/// How often groups are made that another Gantry removes, because the one above is empty for a moment.
const MAKING_ATTEMPTS: u32 = 10;

impl Cgroups {
    pub(super) fn instance_path(&self) -> String {
        format!("/{TOP}/{}", self.instance)
    }

    pub(super) fn pod_path(&self, pod: &str) -> String {
        format!("{}/pod{pod}", self.instance_path())
    }

    /// The directory of a group (`/gantry/...`) under one controller.
    pub(super) fn dir(&self, controller: &'static str, group: &str) -> Result<PathBuf, CgroupError> {
        let mount = self
            .hierarchy
            .mount(controller)
            .ok_or(CgroupError::NoController { controller })?;
        Ok(below(mount, group))
    }

    /// Where processes that enter a container count until they are in it: the pod's group, which weighs as much as the pod and has
    /// no quota. None in v2, where processes live in groups without children only.
    pub fn entering_group(&self, pod: &str) -> Option<PathBuf> {
        let in_v1 = matches!(self.hierarchy, Hierarchy::V1(_));
        in_v1.then(|| self.dir("cpu", &self.pod_path(pod)).ok())?
    }

    /// Pods that have a group, sorted: also those that a former agent left behind.
    pub fn pods(&self) -> Result<Vec<String>, CgroupError> {
        let names = self.children_everywhere(&self.instance_path())?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.strip_prefix("pod").map(str::to_owned))
            .collect())
    }

    /// Containers of a pod that have a group, sorted.
    pub fn containers(&self, pod: &str) -> Result<Vec<String>, CgroupError> {
        self.children_everywhere(&self.pod_path(pod))
    }

    fn children_everywhere(&self, group: &str) -> Result<Vec<String>, CgroupError> {
        let mut names = Vec::new();
        for mount in self.hierarchy.mounts() {
            names.extend(children(&below(mount, group))?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Makes the groups from the top down to the container, and what a child group needs of its parents.
    pub(super) fn make(&self, pod: &str, container: &str) -> Result<(), CgroupError> {
        self.make_chain(&[self.pod_path(pod), self.container_path(pod, container)])
    }

    /// Makes the groups from the top down to the one of all pods.
    pub(super) fn make_instance(&self) -> Result<(), CgroupError> {
        self.make_chain(&[])
    }

    fn make_chain(&self, below: &[String]) -> Result<(), CgroupError> {
        let chain = [&[format!("/{TOP}"), self.instance_path()], below].concat();
        for _ in 1..MAKING_ATTEMPTS {
            match self.try_make(&chain) {
                Err(CgroupError::Io { source, .. }) if is_gone(&source) => {}
                made => return made,
            }
        }
        self.try_make(&chain)
    }

    fn try_make(&self, chain: &[String]) -> Result<(), CgroupError> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => {
                for controller in ["cpu", "cpuset", "memory", "pids", "hugetlb"] {
                    let Some(mount) = mounts.get(controller) else {
                        continue;
                    };
                    for group in chain {
                        make_dir(&below(mount, group))?;
                    }
                }
                // v1 leaves a new cpuset empty, and nothing can live in it or below it. It also takes a CPU that goes offline
                // out of every group below the root, and gives it back to none.
                let cpuset = self.dir("cpuset", "/")?;
                inherit_cpuset(&cpuset, &below(&cpuset, &chain[0]))?;
                inherit_cpuset(&below(&cpuset, &chain[0]), &below(&cpuset, &chain[1]))?;
            }
            Hierarchy::V2 { point, .. } => {
                let mut parent = point.clone();
                for group in chain {
                    delegate(&parent)?;
                    parent = below(point, group);
                    make_dir(&parent)?;
                }
            }
        }
        self.raise_top_weights(&chain[..2])
    }

    /// The groups above the pods must weigh as much as all CPUs, or host processes would push pods aside.
    fn raise_top_weights(&self, groups: &[String]) -> Result<(), CgroupError> {
        let cpus = online_cpus();
        for group in groups {
            let dir = self.dir("cpu", group)?;
            match self.hierarchy {
                Hierarchy::V1(_) => {
                    write_if_other(&dir.join("cpu.shares"), &(cpus * 1024).min(262_144).to_string())?
                }
                Hierarchy::V2 { .. } => {
                    write_if_other(&dir.join("cpu.weight"), &(cpus * 100).min(10_000).to_string())?
                }
            }
        }
        Ok(())
    }
}

/// All of the node's, whatever this process itself may run on.
fn online_cpus() -> u64 {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let count = unsafe { nix::libc::sysconf(nix::libc::_SC_NPROCESSORS_ONLN) };
    u64::try_from(count).unwrap_or(1).max(1)
}

/// `mount` + `/group`.
pub(super) fn below(mount: &Path, group: &str) -> PathBuf {
    mount.join(group.trim_start_matches('/'))
}

/// The group that a file or directory was to be in does not exist, or not any more: the kernel says the latter of files that are open.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn make_dir(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(CgroupError::Io {
            operation: "make cgroup".to_owned(),
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn inherit_cpuset(parent: &Path, child: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        write_if_other(&child.join(file), &read(&parent.join(file))?)?;
    }
    Ok(())
}

/// Gives the children of a v2 group the controllers that the group itself has.
fn delegate(parent: &Path) -> Result<(), CgroupError> {
    let available = read(&parent.join("cgroup.controllers"))?;
    let control = parent.join("cgroup.subtree_control");
    let enabled = read(&control)?;
    let missing: Vec<String> = V2_CONTROLLERS
        .iter()
        .filter(|c| available.split(' ').any(|a| a == **c) && !enabled.split(' ').any(|e| e == **c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        write(&control, &missing.join(" "))
    }
}
