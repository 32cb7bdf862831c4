//! What the planner sees ([`Snapshot`]), writes ([`Plan`]) and says ([`Explanation`]).

use std::collections::{BTreeMap, BTreeSet};

use gantry_topology::{CpuSet, NumaId, Topology};
use serde::{Deserialize, Serialize};

/// A node's name.
pub type NodeName = String;
/// A pod's uid, unique over time.
pub type PodUid = String;

/// Everything that a decision depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The nodes, by name.
    pub nodes: BTreeMap<NodeName, NodeState>,
    /// Every pod that should have a place, those that have one included. A pod that is in the current plan and
    /// not here has been deleted: its resources are free once no node reports to hold them.
    pub pods: BTreeMap<PodUid, PodRequest>,
    /// Nodes of which nothing but the name is known, since no agent has reported for them: only reasons tell of them.
    #[serde(default)]
    pub silent: BTreeSet<NodeName>,
}

/// One node as last reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// CPUs and memory.
    pub topology: Topology,
    /// CPUs for the host's own work. Never given out exclusively; part of the shared pool.
    #[serde(default)]
    pub reserved: CpuSet,
    /// Memory in bytes for the host's own work, taken off the first NUMA node(s).
    #[serde(default)]
    pub reserved_memory_bytes: u64,
    /// Labels for `nodeSelector`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many pods it can have, those included that it still holds; no limit if absent.
    #[serde(default)]
    pub max_pods: Option<u32>,
    /// Ephemeral storage in bytes for pods; no limit if absent.
    #[serde(default)]
    pub storage_bytes: Option<u64>,
    /// False when cordoned or not ready: keeps its pods, takes no new ones.
    pub schedulable: bool,
    /// Its disk is short of space: it takes no new pods either.
    #[serde(default)]
    pub disk_pressure: bool,
    /// What the agent reports that pods hold right now. Held CPUs and memory belong to their holder, whatever the plan says.
    #[serde(default)]
    pub held: BTreeMap<PodUid, Held>,
}

/// What one pod holds on a node at this moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Exclusive CPUs.
    #[serde(default)]
    pub cpus: CpuSet,
    /// Memory limit in bytes, over all containers.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// A pod that wants a place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRequest {
    /// Namespace, for messages.
    pub namespace: String,
    /// Name, for messages and for a stable order.
    pub name: String,
    /// Pods with the same group are placed all or none (those that already have a place stay).
    #[serde(default)]
    pub group: Option<String>,
    /// Containers, in order.
    pub containers: Vec<ContainerRequest>,
    /// NUMA policy of the pod's exclusive CPUs and memory.
    #[serde(default)]
    pub numa: NumaPolicy,
    /// Labels a node must carry.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// Set: the pod must be (or is) on this node.
    #[serde(default)]
    pub node_name: Option<NodeName>,
    /// Pods that share a key spread over nodes.
    #[serde(default)]
    pub anti_affinity: Vec<AntiAffinity>,
    /// Volumes on nodes' own disks.
    #[serde(default)]
    pub volumes: Vec<VolumeRequest>,
    /// Why it can have no place anywhere, whatever room there is: what it needs is missing.
    #[serde(default)]
    pub obstacle: Option<String>,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
}

/// A volume that is on one node's disk, or will be on that of the first pod that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRequest {
    /// Which; pods with the same have the same volume.
    pub key: String,
    /// What people call it, for messages.
    pub name: String,
    /// Where it is, if it is anywhere yet.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// One pod at a time has it.
    #[serde(default)]
    pub exclusive: bool,
    /// What of the node's storage is kept for it, in bytes, as long as it is nowhere; later the node has that much less.
    #[serde(default)]
    pub bytes: u64,
}

/// Pods with the same key avoid each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AntiAffinity {
    /// For example `nf=default/pcscf`.
    pub key: String,
    /// True: never two on a node. False: as few as possible on a node.
    pub required: bool,
}

/// How tightly a pod's resources keep together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NumaPolicy {
    /// All from one NUMA node, or no place.
    Single,
    /// From as few as possible.
    #[default]
    Prefer,
    /// Does not matter.
    Any,
}

/// One container's wishes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRequest {
    /// Name within the pod.
    pub name: String,
    /// CPU.
    pub cpu: CpuRequest,
    /// Memory in bytes; 0 asks for none and is not limited.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Hugepages: page size in bytes to bytes wanted (a multiple of the size).
    #[serde(default)]
    pub hugepages: BTreeMap<u64, u64>,
    /// Ephemeral storage in bytes.
    #[serde(default)]
    pub storage_bytes: u64,
}

/// Shared or exclusive CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "mode")]
pub enum CpuRequest {
    /// A share of the shared pool, in thousandths of a CPU.
    #[serde(rename_all = "camelCase")]
    Shared {
        /// Guaranteed.
        request_milli: u32,
        /// Ceiling (CFS quota), if any.
        limit_milli: Option<u32>,
    },
    /// Whole logical CPUs that nobody else runs on.
    #[serde(rename_all = "camelCase")]
    Exclusive {
        /// How many logical CPUs.
        count: u32,
        /// What SMT siblings may be.
        smt: SmtPolicy,
    },
}

impl Default for CpuRequest {
    fn default() -> Self {
        Self::Shared {
            request_milli: 0,
            limit_milli: None,
        }
    }
}

/// What to do about SMT siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SmtPolicy {
    /// Whole physical cores: no sibling ever belongs to somebody else.
    #[default]
    Full,
    /// Any logical CPU.
    Any,
}

/// An exact, immutable assignment. Replaces only its parent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Number of this plan; a successor has a higher one.
    pub id: u64,
    /// The plan that this one replaces.
    pub parent: u64,
    /// Who sits where.
    pub placements: BTreeMap<PodUid, Placement>,
    /// The shared pool of each node: online CPUs that no placement (and no holder) has exclusively.
    pub shared_pools: BTreeMap<NodeName, CpuSet>,
}

/// Where one pod sits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Namespace, copied from the request.
    pub namespace: String,
    /// Name, copied from the request.
    pub name: String,
    /// The node.
    pub node: NodeName,
    /// Containers, in the request's order.
    pub containers: Vec<ContainerPlacement>,
    /// NUMA nodes whose memory the pod may use (cpuset.mems).
    pub numa_nodes: BTreeSet<NumaId>,
    /// True while the plan holds the pod at its old size because a resize does not fit (yet), see `Outcome::unplaced`.
    #[serde(default)]
    pub resize_pending: bool,
}

/// What one container gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPlacement {
    /// Name within the pod.
    pub name: String,
    /// Exclusive CPUs; empty for a container of the shared pool.
    pub cpus: CpuSet,
    /// The CPU wish as granted.
    pub cpu: CpuRequest,
    /// Memory in bytes as granted, by NUMA node (the sum is the limit).
    pub memory_bytes: BTreeMap<NumaId, u64>,
    /// Hugepages as granted: NUMA node to page size to bytes.
    #[serde(default)]
    pub hugepages: BTreeMap<NumaId, BTreeMap<u64, u64>>,
    /// Ephemeral storage in bytes as granted.
    #[serde(default)]
    pub storage_bytes: u64,
}

/// The planner's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The next plan (equal to the current one, id included, when nothing changes).
    pub plan: Plan,
    /// Pods without a place, or held at their old size, each with the reason.
    pub unplaced: BTreeMap<PodUid, Explanation>,
}

/// Why a pod has no place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Namespace, copied from the request.
    pub namespace: String,
    /// Name, copied from the request.
    pub name: String,
    /// One line, for people: `0/2 nodes fit: a: NUMA node 0 has 1 free of the 2 exclusive CPUs needed`.
    pub reason: String,
    /// Node by node.
    pub nodes: BTreeMap<NodeName, NodeVerdict>,
}

/// Why one node does not fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeVerdict {
    /// The reason for the node as a whole.
    pub reason: String,
    /// NUMA node by NUMA node, where that is what it hangs on.
    pub numa_nodes: BTreeMap<NumaId, String>,
}
