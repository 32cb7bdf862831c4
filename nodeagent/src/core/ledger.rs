//! What the agent must not forget: the accepted configuration, and what it is still taking down.

use std::collections::{BTreeMap, BTreeSet};

use gantry_nodeagent_api::{ClaimId, NodeConfig, PodConfig, PodUid};
use serde::{Deserialize, Serialize};

/// The agent's memory over a crash or reboot. Together with what the kernel shows it restores the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// The accepted configuration; generation 0 is none.
    pub config: NodeConfig,
    /// Pods that are in no configuration any more and not gone yet.
    pub leaving: BTreeMap<PodUid, PodConfig>,
    /// Pods that the node has evicted, and why. They never run again.
    pub evicted: BTreeMap<PodUid, String>,
    /// Claims that an accepted configuration has listed, and whose directories may be there.
    pub claims: BTreeSet<ClaimId>,
    /// Those with more in them than they may have, in bytes as last counted.
    pub full_claims: BTreeMap<ClaimId, u64>,
}
