//! `Operation`: a scale, resize, upgrade or rollback in progress, ending in a receipt; and the pod annotations of Gantry.

use std::collections::BTreeMap;

use gantry_catalog::{Drain, NetworkFunctionSpec, Smt};
use gantry_topology::CpuSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::kinds::kind;

kind! {
    /// One change of a NetworkFunction under way. Made by the orchestrator whenever a spec changes, whoever changed it;
    /// named `<function>-<metadata.generation>`. A change of a peer or of the package that replaces instances makes one too,
    /// named `<function>-<metadata.generation>-<revision>`.
    ///
    /// A spec that was changed again before the orchestrator looked, or in nothing that matters to instances, has none: once
    /// `status.observedGeneration` of the function has reached a generation, an operation of that name is there or never will be.
    Operation, "operations", OperationSpec, OperationStatus
}

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationSpec {
    /// Name of the NetworkFunction.
    pub function: String,
    /// Its `metadata.generation` that this operation brings about; the same as before when only what it depends on changed.
    pub generation: i64,
    /// What changed.
    pub kinds: Vec<OperationKind>,
    /// In words: `replicas 1 -> 4`.
    pub asked: String,
    /// The spec before.
    #[serde(default)]
    pub from: Option<NetworkFunctionSpec>,
    /// The spec after.
    pub to: NetworkFunctionSpec,
}

/// What an operation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OperationKind {
    /// First instances.
    Deploy,
    /// More or fewer instances.
    Scale,
    /// Bigger or smaller instances.
    Resize,
    /// Another version or other values.
    Upgrade,
    /// The function goes.
    Undeploy,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// Where it stands.
    #[serde(default)]
    pub phase: OperationPhase,
    /// In words, for progress: `2/4 ready, 1 draining (17 sessions)`.
    #[serde(default)]
    pub message: String,
    /// Milliseconds since the Unix epoch.
    #[serde(default)]
    pub started_at_ms: u64,
    /// Milliseconds since the Unix epoch; 0 while it runs.
    #[serde(default)]
    pub finished_at_ms: u64,
    /// What it did to each pod. Where one has replaced another of the same name, the former is `<name>#1`.
    #[serde(default)]
    pub pods: BTreeMap<String, PodReceipt>,
    /// Sums, final when the phase is.
    #[serde(default)]
    pub receipt: Receipt,
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationPhase {
    /// Under way.
    #[default]
    Running,
    /// As asked.
    Succeeded,
    /// Replaced by a newer change of the same function.
    Superseded,
    /// Cannot be done; the message says why.
    Failed,
}

/// What an operation did to one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReceipt {
    /// `created`, `resized`, `drained`, or `recalled` when its drain was called off.
    pub action: String,
    /// Which pod of this name: one that replaces another has the same under `upgrade: replace`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Exclusive CPUs before.
    #[serde(default)]
    pub cpus_before: CpuSet,
    /// Exclusive CPUs after.
    #[serde(default)]
    pub cpus_after: CpuSet,
    /// Sessions when its drain began.
    #[serde(default)]
    pub sessions_before: u64,
    /// Sessions it had when it was last heard of; 0 once it is gone.
    #[serde(default)]
    pub sessions: u64,
    /// Sessions that it had when it was last heard of before it was stopped, was gone, or a container of it ended: these are
    /// lost. Absent when that happened to a function that does not count its sessions.
    #[serde(default)]
    pub sessions_lost: Option<u64>,
    /// Restarts of its containers since the operation began.
    #[serde(default)]
    pub restarts: u32,
    /// When the oldest run of its containers began, milliseconds since the Unix epoch: after a reboot restarts count anew.
    #[serde(default)]
    pub started_at_ms: u64,
    /// Done.
    #[serde(default)]
    pub done: bool,
}

/// What an operation cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Sessions over all instances when it began.
    #[serde(default)]
    pub sessions_before: u64,
    /// Sessions that ended by themselves while their instance drained.
    #[serde(default)]
    pub sessions_drained: u64,
    /// Sessions cut off; absent while the operation runs, and when it is not known.
    #[serde(default)]
    pub sessions_lost: Option<u64>,
    /// Packets that the datapath saw meanwhile.
    #[serde(default)]
    pub packets: u64,
    /// Packets that the datapath dropped meanwhile.
    #[serde(default)]
    pub packets_dropped: u64,
    /// Those by the reason that the datapath had, on all nodes together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
    /// Restarts of containers meanwhile.
    #[serde(default)]
    pub restarts: u32,
}

/// What a Kubernetes PodSpec cannot say, as JSON in the annotation `gantry.dev/extras`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodExtras {
    /// Containers with exclusive CPUs; the others share.
    #[serde(default)]
    pub exclusive: BTreeMap<String, ExclusiveCpus>,
    /// Soft limits on open files, by container; 1,024 where none is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub open_files: BTreeMap<String, u64>,
    /// What a container does when files of a volume that it has mounted as a whole were replaced, by container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reload: BTreeMap<String, ReloadHook>,
    /// NetworkFunctions of its namespace: it is started once each has an instance that is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// IPv4 networks behind the pod (`10.45.0.0/16`): pods of its namespace reach them by it, and it sends from their addresses. At
    /// most 16, none of the node's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// All-or-nothing group.
    #[serde(default)]
    pub group: Option<String>,
    /// How it drains.
    #[serde(default)]
    pub drain: Drain,
}

/// What a container does when its files were replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReloadHook {
    /// A signal to its first process: number as in `signal(7)`.
    Signal(u32),
    /// A command in it.
    Exec(Vec<String>),
}

/// Exclusive CPUs of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExclusiveCpus {
    /// How many logical CPUs.
    pub count: u32,
    /// SMT siblings.
    #[serde(default)]
    pub smt: Smt,
}

/// How far the drain of a pod is, as JSON in the annotation `gantry.dev/drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainState {
    /// Step.
    pub phase: DrainPhase,
    /// Sessions when it began.
    pub sessions_before: u64,
    /// When this phase began, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Since when every node has had in force what this phase needs, milliseconds since the Unix epoch.
    #[serde(default)]
    pub in_force_since_ms: Option<u64>,
}

/// Steps of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainPhase {
    /// Takes no new flows; sessions end by themselves.
    #[default]
    Draining,
    /// No sessions; its flows are gone; quiet for a while to be sure.
    Quiescing,
    /// Being stopped.
    Stopping,
}
