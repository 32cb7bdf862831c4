//! The messages as plain types. Desired state flows down as a whole [`NodeConfig`]; observed state flows up as a whole [`NodeStatus`].

mod claim;
mod node;
mod pod;
mod probe;
mod service;
mod size;
mod status;
mod usage;
mod volume;

use std::net::IpAddr;

use gantry_topology::{CpuSet, Topology};
use serde::{Deserialize, Serialize};

pub use claim::*;
pub use node::*;
pub use pod::*;
pub use probe::*;
pub use service::*;
pub use status::*;
pub use usage::*;
pub use volume::*;

/// Version of a node's configuration. Rises; an agent never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// A pod's uid, unique over time.
pub type PodUid = String;

/// What an agent says first on a new stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Node name; must equal the name in the client certificate.
    pub node: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Version of the agent.
    pub agent_version: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// Address by which the node is known.
    pub address: IpAddr,
    /// CPUs and memory as found.
    pub topology: Topology,
    /// CPUs kept for the host's own work.
    pub reserved: CpuSet,
    /// Memory in bytes kept for the host's own work.
    pub reserved_memory_bytes: u64,
    /// The file system that pods write to.
    #[serde(default)]
    pub storage: NodeStorage,
    /// The newest generation in the agent's ledger (0: none).
    pub generation: Generation,
    /// Id of the cluster that the agent belongs to; empty if it knows none yet.
    #[serde(default)]
    pub cluster: String,
}

/// The file system that a node's pods write to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStorage {
    /// Its size in bytes; 0 if unknown.
    pub bytes: u64,
    /// What of it is kept free, in bytes: with less the node is under pressure.
    pub reserved_bytes: u64,
}
