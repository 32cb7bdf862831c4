//! Gantry's own kinds, in Kubernetes' shape: apiVersion, kind, metadata, spec, status.

use std::collections::BTreeMap;

use gantry_catalog::{NetworkFunctionSpec, NetworkServiceSpec, NfPackageSpec};
use gantry_topology::{CpuSet, Topology};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::{Deserialize, Serialize};

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $plural:literal, $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// `gantry.dev/v1`.
            #[serde(default)]
            pub api_version: String,
            /// The kind's name.
            #[serde(default)]
            pub kind: String,
            /// Name, namespace, labels, versions.
            #[serde(default)]
            pub metadata: ObjectMeta,
            /// What is wanted.
            pub spec: $spec,
            /// What is.
            #[serde(default)]
            pub status: $status,
        }

        impl $name {
            /// The kind's name.
            pub const KIND: &'static str = stringify!($name);
            /// The resource name in URLs.
            pub const PLURAL: &'static str = $plural;

            /// An object with its type fields set and an empty status.
            pub fn new(metadata: ObjectMeta, spec: $spec) -> Self {
                Self {
                    api_version: format!("{}/{}", crate::GROUP, crate::VERSION),
                    kind: Self::KIND.to_owned(),
                    metadata,
                    spec,
                    status: Default::default(),
                }
            }
        }
    };
}
pub(crate) use kind;

kind! {
    /// A catalog entry at a version. Cluster-wide; named `<package>-<version>`.
    NfPackage, "nfpackages", NfPackageSpec, Empty
}
kind! {
    /// Desired instances of one package.
    NetworkFunction, "networkfunctions", NetworkFunctionSpec, NetworkFunctionStatus
}
kind! {
    /// Several functions wired together.
    NetworkService, "networkservices", NetworkServiceSpec, NetworkServiceStatus
}
kind! {
    /// A network segment. Cluster-wide; `pod` is the one every pod is on.
    Network, "networks", NetworkSpec, Empty
}
kind! {
    /// What a node really has, and who holds it. Cluster-wide; named as the node.
    NodeTopology, "nodetopologies", NodeTopologySpec, NodeTopologyStatus
}

/// No fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// What a NetworkFunction is at the moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkFunctionStatus {
    /// The `metadata.generation` that the rest speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Instances that exist, draining ones included.
    #[serde(default)]
    pub replicas: u32,
    /// Instances that are ready and take new work.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Instances that drain.
    #[serde(default)]
    pub draining_replicas: u32,
    /// Instances of the current revision.
    #[serde(default)]
    pub updated_replicas: u32,
    /// The current revision (hash).
    #[serde(default)]
    pub revision: String,
    /// The newest `metadata.generation` whose spec made the current revision; older than the one observed while that cannot be done.
    #[serde(default)]
    pub revision_generation: i64,
    /// Earlier specs, oldest first, for a rollback; at most ten.
    #[serde(default)]
    pub history: Vec<RevisionRecord>,
    /// Virtual address.
    #[serde(default)]
    pub vip: String,
    /// Live sessions over all instances, where the function tells.
    #[serde(default)]
    pub sessions: Option<u64>,
    /// Label selector in text form, for the scale sub-resource.
    #[serde(default)]
    pub selector: String,
    /// Why it is not as wanted; empty when it is.
    #[serde(default)]
    pub message: String,
    /// What is wrong with the function itself: `ReplicaFailure`, `TemplateFailure`; none when nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl NetworkFunctionStatus {
    /// Condition of a function whose templates cannot be rendered.
    pub const TEMPLATE_FAILURE: &str = "TemplateFailure";
}

/// A former state of a NetworkFunction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRecord {
    /// Its revision (hash).
    pub revision: String,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// The spec that made it.
    pub spec: NetworkFunctionSpec,
}

/// What a NetworkService is at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkServiceStatus {
    /// The `metadata.generation` that has become functions.
    #[serde(default)]
    pub observed_generation: i64,
    /// Functions that are as wanted.
    #[serde(default)]
    pub ready_functions: u32,
    /// Functions in all.
    #[serde(default)]
    pub functions: u32,
    /// Why it is not as wanted; empty when it is.
    #[serde(default)]
    pub message: String,
}

/// A network segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// What it is made of; only `pod` (the eBPF pod network) so far.
    #[serde(rename = "type")]
    pub type_: String,
    /// Addresses of pods, for example `10.85.0.0/16`.
    pub cidr: String,
    /// Addresses of services.
    pub service_cidr: String,
}

/// A node as its agent found it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTopologySpec {
    /// CPUs and memory.
    pub topology: Topology,
    /// CPUs for the host's own work.
    #[serde(default)]
    pub reserved: CpuSet,
    /// Memory in bytes for the host's own work.
    #[serde(default)]
    pub reserved_memory_bytes: u64,
    /// Size in bytes of the file system that pods write to; 0 if unknown.
    #[serde(default)]
    pub storage_bytes: u64,
    /// What of it is kept free, in bytes.
    #[serde(default)]
    pub reserved_storage_bytes: u64,
}

/// Who holds what on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTopologyStatus {
    /// The CPUs of containers without exclusive ones.
    #[serde(default)]
    pub shared_cpus: CpuSet,
    /// Exclusive CPUs by `namespace/pod/container`.
    #[serde(default)]
    pub exclusive: BTreeMap<String, CpuSet>,
    /// Configuration generation applied.
    #[serde(default)]
    pub generation: u64,
}
