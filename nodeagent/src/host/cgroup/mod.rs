//! Control groups of pods and containers: `<controller>/gantry/<instance>/pod<uid>/<container>`, by plain writes.
//!
//! Kernel documents: admin-guide/cgroup-v1/{cpusets,memory,pids,hugetlb}.rst, scheduler/sched-bwc.rst, admin-guide/cgroup-v2.rst.
//! A parent's cpuset always holds its children's: it grows before a child grows, and shrinks after a child shrank.

mod detect;
mod devices;
mod files;
mod hugepages;
mod limits;
mod processes;
mod remove;
mod sockets;
mod total;
mod tree;
mod usage;

use std::io;
use std::path::{Path, PathBuf};

use gantry_nodeagent_api::ContainerResources;
use gantry_topology::{CpuSet, NumaId};

pub use detect::Hierarchy;
pub use limits::Applied;
pub use processes::POD_PIDS_LIMIT;
use sockets::Whose;

/// The control groups of one Gantry instance on this node.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchy: Hierarchy,
    instance: String,
}

/// What can go wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The node mounts no controller that is needed.
    #[error("no cgroup controller `{controller}` is mounted on this node; mount it or boot with it enabled")]
    NoController {
        /// Name, for example `cpuset`.
        controller: &'static str,
    },
    /// The node has no hugepages of a size that is asked for.
    #[error("this node has no hugepages of {page_bytes} bytes, or no limit for them; boot it with that size")]
    NoPageSize {
        /// The size of a page.
        page_bytes: u64,
    },
    /// The container uses more memory than its new limit. Nothing was changed.
    #[error(
        "cannot limit {group} to {wanted_bytes} bytes of memory: it uses {used_bytes} bytes; nothing was changed"
    )]
    MemoryInUse {
        /// The group, below the controller's mount.
        group: String,
        /// The limit asked for.
        wanted_bytes: u64,
        /// What is in use.
        used_bytes: u64,
    },
    /// The container uses more hugepages than its new limit. Nothing was changed.
    #[error(
        "cannot limit {group} to {wanted_bytes} bytes of hugepages of {page_bytes} bytes: more are in use; nothing was changed"
    )]
    HugepagesInUse {
        /// The group, below the controller's mount.
        group: String,
        /// The size of a page.
        page_bytes: u64,
        /// The limit asked for.
        wanted_bytes: u64,
    },
    /// No CPU to run on: neither exclusive ones nor a shared pool.
    #[error("no CPU for {group}: it has no exclusive ones, and the shared pool is empty")]
    NoCpus {
        /// The group.
        group: String,
    },
    /// Processes did not end, or the kernel did not let go of the group, before the deadline.
    #[error("cgroup {} is still in use by processes {pids:?}", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
        /// Processes in it.
        pids: Vec<u32>,
    },
    /// A file or directory.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried (with the value for a write).
        operation: String,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl CgroupError {
    /// More memory or hugepages are in use than the new limit allows, and nothing was changed.
    pub fn in_use(&self) -> bool {
        matches!(self, Self::MemoryInUse { .. } | Self::HugepagesInUse { .. })
    }
}

impl Cgroups {
    /// Finds out what this node has: cgroup v1 controllers (also beside an empty v2 mount, "hybrid") or v2 alone.
    /// `instance` is the short name of this Gantry, unique on the node.
    pub fn detect(instance: &str) -> Result<Self, CgroupError> {
        Ok(Self {
            hierarchy: Hierarchy::detect(Path::new("/proc/self/mountinfo"))?,
            instance: instance.to_owned(),
        })
    }

    /// For a given hierarchy (tests).
    pub fn new(hierarchy: Hierarchy, instance: &str) -> Self {
        Self {
            hierarchy,
            instance: instance.to_owned(),
        }
    }

    /// Which kind of hierarchy it is.
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// The container's group below each controller's mount, with a leading `/`: what [`crate::runtime::ContainerStart`] wants.
    pub fn container_path(&self, pod: &str, container: &str) -> String {
        format!("{}/{container}", self.pod_path(pod))
    }

    /// Makes the groups of a container (they may exist) and puts its limits in force: call it before each start.
    /// `shared_cpus` is the node's shared pool, used when the container has no exclusive CPUs; `mems` are the NUMA nodes whose
    /// memory may be used, empty for all.
    pub fn create(
        &self,
        pod: &str,
        container: &str,
        resources: &ContainerResources,
        shared_cpus: &CpuSet,
        mems: &[NumaId],
    ) -> Result<(), CgroupError> {
        self.make(pod, container)?;
        self.apply_resources(pod, container, resources, shared_cpus, mems)
    }

    /// Changes the limits of a container, running or not, in an order that is safe at each step; the pod's group becomes the
    /// union (CPUs) of its containers. The changes that the kernel may refuse, less memory or fewer hugepages than are in use, are
    /// done first: after [`CgroupError::MemoryInUse`] and [`CgroupError::HugepagesInUse`] everything is as before.
    ///
    /// One caller at a time for each pod. When the shared pool changes, apply again to every container that lives in it.
    pub fn apply_resources(
        &self,
        pod: &str,
        container: &str,
        resources: &ContainerResources,
        shared_cpus: &CpuSet,
        mems: &[NumaId],
    ) -> Result<(), CgroupError> {
        let group = self.container_path(pod, container);
        let cpus = if resources.cpus.is_empty() {
            shared_cpus
        } else {
            &resources.cpus
        };
        if cpus.is_empty() {
            return Err(CgroupError::NoCpus { group });
        }
        let memory_before = self.memory_limits(&group)?;
        let sockets = self.sockets_wanted(resources.memory_bytes, Whose::OnePod);
        self.set_memory(&group, resources.memory_bytes)?;
        self.set_sockets(&group, sockets)
            .and_then(|()| self.set_hugepages(&group, &resources.hugepages))
            .inspect_err(|_| files::restore(&memory_before))?;
        self.set_cpuset(pod, container, cpus, mems)?;
        self.set_cpu(&group, resources.cpu_request_milli, resources.cpu_limit_milli)?;
        self.set_pids(pod)
    }
}
