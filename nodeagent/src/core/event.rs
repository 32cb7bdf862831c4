//! What the core is told.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gantry_nodeagent_api::{
    ClaimId, ContainerResources, EndReason, NetworkCounters, NodeConfig, PodUid, RunEnd, ServiceFault,
    Trouble,
};
use gantry_topology::CpuSet;
use serde::{Deserialize, Serialize};

use super::{PodDone, PodFailure, RequestId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// First of all: what was found on the node.
    Start(Observed),
    /// A stream to the orchestrator is up, and Hello was sent on it.
    Connected,
    /// A configuration came.
    Config(Box<NodeConfig>),
    /// Answer to [`super::Action::Persist`]; the error is for people.
    Persisted {
        /// Number.
        id: RequestId,
        /// How it went.
        result: Result<(), String>,
    },
    /// Answer to [`super::Action::SyncNetwork`].
    NetworkSynced {
        /// Number.
        id: RequestId,
        /// What of it is left out; or why nothing is in force.
        result: Result<NetworkFaults, String>,
    },
    /// Answer to [`super::Action::Pod`].
    PodDone {
        /// Number.
        id: RequestId,
        /// Which pod.
        uid: PodUid,
        /// How it went.
        result: Result<PodDone, PodFailure>,
    },
    /// A container started or ended. May come before or after the answer to the start, and again.
    Container {
        /// Which pod.
        uid: PodUid,
        /// Which container.
        container: String,
        /// What is known of its last run.
        run: Run,
    },
    /// A pod's shim ended, and its containers with it.
    ShimGone {
        /// Which pod.
        uid: PodUid,
    },
    /// Answer to [`super::Action::Probe`].
    Probed {
        /// Number.
        id: RequestId,
        /// Which pod.
        uid: PodUid,
        /// Which container.
        container: String,
        /// Success, or why not.
        result: Result<(), String>,
    },
    /// Answer to [`super::Action::Hook`].
    Hooked {
        /// Number.
        id: RequestId,
        /// Which pod.
        uid: PodUid,
        /// Which container.
        container: String,
        /// Success, or why not.
        result: Result<(), String>,
    },
    /// Answer to [`super::Action::ReadSessions`].
    Sessions {
        /// Number.
        id: RequestId,
        /// Which pod.
        uid: PodUid,
        /// How many, or why that is unknown.
        result: Result<u64, String>,
    },
    /// A pod does what it should not.
    Trouble {
        /// Which pod.
        pod: PodRef,
        /// What.
        trouble: Trouble,
        /// In words, without numbers that change all the time.
        message: String,
    },
    /// The disk that pods write to.
    DiskSpace(DiskSpace),
    /// What a pod has left on it.
    PodUsage {
        /// Which pod.
        uid: PodUid,
        /// What.
        usage: PodUsage,
    },
    /// What is in a claim.
    ClaimUsage {
        /// Which.
        claim: ClaimId,
        /// Bytes on the disk.
        bytes: u64,
        /// Files and directories; above [`super::MAX_ENTRIES`] when it was given up to count.
        entries: u64,
    },
    /// Answer to [`super::Action::RemoveClaim`].
    ClaimRemoved {
        /// Number.
        id: RequestId,
        /// How it went.
        result: Result<(), String>,
    },
    /// Answer to [`super::Action::ShedLayers`].
    LayersShed {
        /// Number.
        id: RequestId,
    },
    /// The datapath's counters.
    Counters(NetworkCounters),
    /// Time passed.
    Tick,
}

/// What is left out of a network that is in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkFaults {
    /// Services that are not or not wholly in force, by `namespace/name`.
    pub services: BTreeMap<String, ServiceFault>,
    /// Pods that a subnet does not lead to, and why.
    pub subnets: BTreeMap<PodUid, String>,
}

/// A pod, as whoever looks at it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodRef {
    /// By its uid.
    Uid(PodUid),
    /// By its address.
    Address(Ipv4Addr),
}

/// What is left of the disk that pods write to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Free for pods, in bytes.
    pub free_bytes: u64,
    /// With less it is short of space.
    pub kept_bytes: u64,
    /// Inodes that are free.
    pub free_entries: u64,
    /// With fewer it is short of them; 0 on a file system that does not count them.
    pub kept_entries: u64,
}

/// What a pod has left on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Bytes of each container's writes to its root file system, and of its logs.
    pub containers: BTreeMap<String, u64>,
    /// Bytes in each volume that is a directory on the disk.
    pub volumes: BTreeMap<String, u64>,
    /// Files and directories in all of them; above [`super::MAX_ENTRIES`] when it was given up to count.
    pub entries: u64,
}

impl PodUsage {
    pub(super) fn container(&self, name: &str) -> u64 {
        self.containers.get(name).copied().unwrap_or(0)
    }

    pub(super) fn volume(&self, name: &str) -> u64 {
        self.volumes.get(name).copied().unwrap_or(0)
    }
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Number of the run; rises.
    pub attempt: u32,
    /// Host pid of its first process.
    pub pid: u32,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// How it ended; `None` while it runs.
    pub exit: Option<Exit>,
}

impl Run {
    /// How it ended, if it has.
    pub(super) fn end(&self) -> Option<RunEnd> {
        let exit = self.exit.as_ref()?;
        Some(RunEnd {
            attempt: self.attempt,
            exit_code: exit.code,
            signal: exit.signal,
            reason: exit.reason,
            message: exit.message.clone(),
            started_at_ms: self.started_at_ms,
            finished_at_ms: exit.at_ms,
        })
    }
}

/// End of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Exit code; 128 + signal when killed.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Why.
    pub reason: EndReason,
    /// What it left as its last words, or why its program could not be run.
    pub message: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Exit {
    /// With a code and nothing else to say.
    pub fn with(code: i32, at_ms: u64) -> Self {
        Self {
            code,
            signal: None,
            reason: if code == 0 {
                EndReason::Completed
            } else {
                EndReason::Error
            },
            message: String::new(),
            at_ms,
        }
    }
}

/// What a starting agent finds on its node: everything that a former agent may have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every pod of which anything at all is left.
    pub pods: BTreeMap<PodUid, ObservedPod>,
}

/// One pod that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedPod {
    /// Its shim answers.
    pub shim: bool,
    /// It has ended, and nothing is left but its logs and records.
    pub released: bool,
    /// Its containers.
    pub containers: BTreeMap<String, ObservedContainer>,
}

/// One container that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedContainer {
    /// Its last run. Without a shim an unfinished one is over.
    pub run: Option<Run>,
    /// How the run before ended, if that is known.
    pub before: Option<RunEnd>,
    /// Limits in force, `cpus` being all that it may run on; `None` if it has no cgroup.
    pub limits: Option<(ContainerResources, CpuSet)>,
    /// Digest of its image, if known.
    pub image_id: String,
}
