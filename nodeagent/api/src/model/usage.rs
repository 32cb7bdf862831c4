//! What pods take, as the kernel has counted it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::PodUid;

/// All pods of a node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeMetrics {
    /// When, by a clock of the node that only goes forward, in nanoseconds.
    pub at_nanos: u64,
    /// Each that runs.
    pub pods: BTreeMap<PodUid, PodMetrics>,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMetrics {
    /// CPU time that it has had, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory without what the kernel gives back before it kills anybody: the working set, in bytes.
    pub memory_bytes: u64,
    /// What passed its interfaces, in both directions; without the loopback.
    pub interfaces: BTreeMap<String, Traffic>,
}

/// Of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Packets that came.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets that went.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
}
