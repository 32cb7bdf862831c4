//! What an agent sees.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gantry_topology::CpuSet;
use serde::{Deserialize, Serialize};

use super::{ClaimId, ContainerResources, Generation, PodUid, ServiceFault};

/// Everything an agent sees, as a whole, on every change and at least every few seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The newest generation accepted into the ledger.
    pub accepted: Generation,
    /// The newest generation whose every change is done (pods may still be starting or stopping).
    pub applied: Generation,
    /// The newest generation whose services and names are in force, whatever its pods are at.
    #[serde(default)]
    pub served: Generation,
    /// The pods on the node, those that are going included, until they are gone without rest.
    pub pods: BTreeMap<PodUid, PodStatus>,
    /// Counters of the node's datapath.
    pub network: NetworkCounters,
    /// Why the node's addresses, services and names are not as configured; empty when they are.
    #[serde(default)]
    pub network_message: String,
    /// Why the node takes no new pods: its disk is short of space; empty when it is not.
    #[serde(default)]
    pub disk_pressure: String,
    /// What of services is not in force here, by `namespace/name`; all others are.
    #[serde(default)]
    pub services: BTreeMap<String, ServiceFault>,
    /// Claims that have more in them than they may, as last counted in bytes: no pod with one of them begins.
    #[serde(default)]
    pub full_claims: BTreeMap<ClaimId, u64>,
}

/// Life of a pod on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodPhase {
    /// Being prepared.
    #[default]
    Pending,
    /// All containers started at least once.
    Running,
    /// SIGTERM sent, or being taken down.
    Stopping,
    /// All containers ended, none starts again, all with code 0.
    Succeeded,
    /// All containers ended, none starts again, one with a code other than 0; or it could not be started.
    Failed,
}

/// One pod as seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Phase.
    pub phase: PodPhase,
    /// All containers run and are ready.
    pub ready: bool,
    /// Exclusive CPUs the pod holds in the kernel at this moment, all containers together.
    pub cpus: CpuSet,
    /// Memory in bytes that the pod was promised and may still use, all containers together: a smaller promise counts when its
    /// limit is in force.
    pub memory_bytes: u64,
    /// Address.
    pub address: Option<Ipv4Addr>,
    /// Milliseconds since the Unix epoch; 0 before the start.
    pub started_at_ms: u64,
    /// Containers, in order.
    pub containers: Vec<ContainerStatus>,
    /// Live sessions, if the function tells.
    pub sessions: Option<u64>,
    /// The last error in words; empty when all is well.
    pub message: String,
    /// Why the node has ended it, if it has.
    #[serde(default)]
    pub reason: Option<PodReason>,
    /// What is wrong with it while it goes on, each in words: what it takes beyond its bounds, what it does not answer.
    #[serde(default)]
    pub troubles: BTreeMap<Trouble, String>,
}

/// What a pod that goes on does wrong. The most telling comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trouble {
    /// It wanted more processes than a pod may have.
    PidsLimit,
    /// It writes its log faster than that is taken.
    LogRateLimit,
    /// It asks for names more often than is answered.
    DnsRateLimit,
    /// It has more connections by way of services than its share.
    FlowLimit,
    /// A subnet behind it does not lead to it.
    SubnetNotRouted,
    /// Its number of sessions cannot be read.
    SessionsUnknown,
    /// A hook after a start failed, or does not end.
    FailedPostStartHook,
    /// A hook before an end failed, or does not end.
    FailedPreStopHook,
    /// A probe fails.
    Unhealthy,
    /// A container is ended for what its probe or its hook after the start has said.
    Killing,
    /// It was not told, or did not take, that its files were replaced.
    FailedReload,
}

impl Trouble {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::PidsLimit,
        Self::LogRateLimit,
        Self::DnsRateLimit,
        Self::FlowLimit,
        Self::SubnetNotRouted,
        Self::SessionsUnknown,
        Self::FailedPostStartHook,
        Self::FailedPreStopHook,
        Self::Unhealthy,
        Self::Killing,
        Self::FailedReload,
    ];

    /// As the reason of a condition or an Event; those that Kubernetes has are called as there.
    pub fn reason(self) -> &'static str {
        match self {
            Self::PidsLimit => "PidsLimit",
            Self::LogRateLimit => "LogRateLimit",
            Self::DnsRateLimit => "DNSRateLimit",
            Self::FlowLimit => "FlowLimit",
            Self::SubnetNotRouted => "SubnetNotRouted",
            Self::SessionsUnknown => "SessionsUnknown",
            Self::FailedPostStartHook => "FailedPostStartHook",
            Self::FailedPreStopHook => "FailedPreStopHook",
            Self::Unhealthy => "Unhealthy",
            Self::Killing => "Killing",
            Self::FailedReload => "FailedReload",
        }
    }
}

/// Why a node ends a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodReason {
    /// Its deadline came before its end.
    DeadlineExceeded,
    /// It left too much on the disk, or the disk was short of space; [`PodStatus::message`] says which.
    Evicted,
}

/// What the probes of a run say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Readiness {
    /// Not asked often enough yet, by an agent that has just started for one: what was known of the run before still counts.
    #[default]
    Unknown,
    /// It is ready.
    Passed,
    /// It is not.
    Failed,
}

/// One container as seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// Running now.
    pub running: bool,
    /// Runs, and passed its probes (or has none).
    pub ready: bool,
    /// What its probes say of this run.
    #[serde(default)]
    pub readiness: Readiness,
    /// Number of restarts.
    pub restarts: u32,
    /// Host pid while running.
    pub pid: Option<u32>,
    /// Milliseconds since the Unix epoch of the last start.
    pub started_at_ms: u64,
    /// Why it does not run, although it is going to.
    #[serde(default)]
    pub waiting: Option<WaitingReason>,
    /// How it ended, while it neither runs nor waits.
    #[serde(default)]
    pub ended: Option<RunEnd>,
    /// Runs, and has passed its startup probe if it has one.
    #[serde(default)]
    pub started: bool,
    /// How the run before the present one ended; of a container that waits, its last run.
    #[serde(default)]
    pub last_ended: Option<RunEnd>,
    /// Digest of the image in use.
    pub image_id: String,
    /// Resources in force in the kernel.
    pub resources: ContainerResources,
    /// Why its limits cannot be as configured; empty when they are, or will be.
    #[serde(default)]
    pub limits_message: String,
    /// What it waits for before its limits can be as configured.
    #[serde(default)]
    pub limits_wait: String,
    /// Why it does not run; empty when it does.
    pub message: String,
}

/// Why a container waits: the reasons of Kubernetes' container state `waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WaitingReason {
    /// It is being made.
    #[default]
    ContainerCreating,
    /// Containers before it have to end first, or to be up.
    PodInitializing,
    /// It ended again and again, and waits before the next run.
    CrashLoopBackOff,
    /// Its image is not to be had.
    ErrImagePull,
    /// The same, for a while.
    ImagePullBackOff,
    /// What it asks for makes no sense on this node.
    CreateContainerConfigError,
    /// It could not be made.
    CreateContainerError,
}

/// Why a run ended: the reasons of Kubernetes' container state `terminated`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndReason {
    /// With code 0.
    Completed,
    /// With another code, or killed.
    #[default]
    Error,
    /// The kernel killed a process of it for want of memory.
    OomKilled,
    /// Its program could not be run.
    StartError,
}

/// End of a container's run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunEnd {
    /// Number of the run; 0 for the first.
    pub attempt: u32,
    /// Exit code; 128 + signal when killed.
    pub exit_code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Why.
    pub reason: EndReason,
    /// What it left as its last words, or why it could not be run.
    pub message: String,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub finished_at_ms: u64,
}

/// Datapath counters since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkCounters {
    /// Packets seen.
    pub packets: u64,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// New flows by backend: `vip:port/protocol>address:port`.
    pub new_flows: BTreeMap<String, u64>,
}
