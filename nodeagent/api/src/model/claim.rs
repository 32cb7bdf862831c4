//! Claims: directories of the node that outlive pods.

use serde::{Deserialize, Serialize};

/// A claim's uid, unique over time. It becomes the name of a directory.
pub type ClaimId = String;

/// A directory that stays while the node's configuration lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimConfig {
    /// Namespace of the PersistentVolumeClaim.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What may be in it, in bytes; with more its pods are evicted, and none begins.
    pub size_bytes: u64,
}
