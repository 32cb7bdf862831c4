//! Why a pod does not fit a node, as data; [`crate::explain`] makes words of it.

use std::collections::BTreeMap;

use gantry_topology::{Misfit, NumaId};

/// One node's answer to one pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reason {
    /// No new pods.
    NotSchedulable,
    /// It has as many pods as it can have.
    Full { max_pods: u32 },
    /// Only the last places are left, and the pod's like have many there.
    KeptForOthers { kept: u32 },
    /// The pod is bound to another node.
    OtherNode { wanted: String },
    /// Another node still reports that the pod holds something there.
    RunsOn { node: String },
    /// A label is missing or different.
    Selector { key: String, value: String },
    /// A pod that it must avoid is there.
    AntiAffinity { key: String },
    /// Exclusive CPUs, for one container.
    Cpus {
        wanted: u32,
        whole_cores: bool,
        misfit: Misfit,
    },
    /// All must come from one NUMA node, and each has its own reason.
    EachNuma(BTreeMap<NumaId, Reason>),
    /// The shared pool would be too small.
    SharedPool { needed_milli: u64, pool_milli: u64 },
    /// Nothing would be left of the shared pool.
    NoSharedPool,
    /// Memory, in bytes by NUMA node.
    Memory {
        wanted_bytes: u64,
        free_bytes: BTreeMap<NumaId, u64>,
    },
    /// Ephemeral storage, in bytes.
    Storage { wanted_bytes: u64, free_bytes: u64 },
    /// Its disk is short of space.
    DiskPressure,
    /// A volume of the pod is on another node.
    VolumeElsewhere { volume: String, node: String },
    /// A pod has a volume that only one may have.
    VolumeInUse { volume: String, pod: String },
    /// There is no room for its volumes, in bytes.
    VolumeRoom { wanted_bytes: u64, free_bytes: u64 },
    /// Hugepages of one size, in bytes by NUMA node.
    Hugepages {
        page_bytes: u64,
        wanted_bytes: u64,
        free_bytes: BTreeMap<NumaId, u64>,
    },
    /// The pod's node is not in the snapshot.
    NodeGone,
    /// The node has reported no NUMA node.
    NoTopology,
}
