//! Pods on this node as the agent sees them: one shim process a pod, reached by a socket in the pod's directory.
//!
//! Everything here blocks: call it from `spawn_blocking`. What is where, under the agent's directory:
//! `pods/<uid>/` is a [`PodDir`]; in it `shim.sock` (0600), `shim.pid`, `shim.log`, `c/<name>/` (state of the last
//! attempt of a container, its bundle) and what [`volumes`] writes and mounts (`files/`, `volumes/`, `subpaths/`).
//!
//! Life of a pod, in calls:
//! 1. [`RuntimeDir::create_pod`], [`volumes::prepare`], [`volumes::write_network_files`]
//! 2. [`crate::host::cgroup::Cgroups::create`] for each container
//! 3. [`ShimHandle::spawn`], [`ShimHandle::events`], [`ShimHandle::start_container`] for each container
//! 4. restart: the same `start_container` with `attempt + 1`; resize: [`crate::host::cgroup::Cgroups::apply_resources`]
//! 5. stop: [`ShimHandle::signal`], wait for the event, [`ShimHandle::shutdown`], [`volumes::unmount`],
//!    [`crate::host::cgroup::Cgroups::remove_pod`], [`PodDir::remove`]
//!
//! A new agent finds pods by [`RuntimeDir::pods`] and calls [`ShimHandle::connect`]. [`RuntimeError::ShimGone`] means that the
//! shim is dead; its containers died with it (their first process gets SIGKILL when the shim ends), so the agent makes sure
//! with [`crate::host::cgroup::Cgroups::kill_pod`] and treats what [`PodDir::states`] calls running as exited.

mod claims;
mod client;
mod dir;
mod files;
mod fsgroup;
mod hostpath;
mod identity;
pub mod ids;
mod mounts;
pub mod names;
pub mod namespaces;
pub mod oom;
mod protocol;
mod purge;
pub mod quota;
pub mod root;
pub mod sealed;
mod subpath;
pub mod termination;
mod unnamed;
mod usage;
pub mod volumes;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use gantry_nodeagent_api::{EndReason, MAX_ID, Security};
use serde::{Deserialize, Serialize};

use crate::guard;

pub use claims::ClaimsDir;
pub use client::{Events, EventsCloser, ShimHandle, own_executable};
pub use dir::{PodDir, RuntimeDir};
pub use identity::{NoCommand, merge_argv, resolve_user};
pub(crate) use protocol::{Reply, Request, read_line, write_line};
pub(crate) use purge::identity_of_self;
pub use purge::{PurgeError, PurgeReport, purge};
pub use unnamed::Running;
pub use usage::{Usage, Walk};

/// Default size in bytes at which a container's log is rotated (one older file, `<log>.1`, is kept).
pub const LOG_MAX_BYTES: u64 = 10 << 20;

/// Everything that a container needs to run, resolved: no image, no volume name, no variable is left to look up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStart {
    /// Name within the pod (lower-case DNS label).
    pub name: String,
    /// 0 for the first start, then one more each time; must be above the attempt before.
    pub attempt: u32,
    /// The mounted root file system.
    pub rootfs: PathBuf,
    /// Network namespace to join (a bind-mounted nsfs file); `None` means the host's.
    pub netns: Option<PathBuf>,
    /// User namespace to join, to which `netns` belongs; `None` means the host's ids. `rootfs` has its ids already; what is in
    /// `mounts` has those of the disk, and is mapped.
    #[serde(default)]
    pub userns: Option<UserNamespace>,
    /// Host name of the UTS namespace.
    pub hostname: String,
    /// Program and arguments; a program without `/` is looked up in `PATH` of `env`.
    pub argv: Vec<String>,
    /// Environment. Where a name occurs twice the last one counts. `PATH` and `HOSTNAME` have defaults.
    pub env: Vec<(String, String)>,
    /// Absolute working directory; empty means `/`.
    pub cwd: String,
    /// Directories that the image wants to have, made where they are missing.
    #[serde(default)]
    pub image_volumes: Vec<String>,
    /// Who the process is.
    pub user: ContainerUser,
    /// Bind mounts in order, after proc, sys, dev and so on.
    pub mounts: Vec<BindMount>,
    /// Capabilities and so on; `user`, `group`, `run_as_non_root` and `seccomp` in it are not read: they are resolved.
    pub security: Security,
    /// Which system calls it may make.
    #[serde(default)]
    pub seccomp: SeccompProfile,
    /// Parameters of its namespaces.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Soft limit on open files, if not the usual.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// Who is killed first where memory runs out (see [`oom`]).
    #[serde(default)]
    pub oom_score_adj: i32,
    /// Path of the container's cgroup below each controller's mount (see [`crate::host::cgroup::Cgroups::container_path`]).
    pub cgroup: String,
    /// Log file in CRI format; its directory must exist.
    pub log_path: PathBuf,
    /// Size in bytes at which the log is rotated.
    pub log_max_bytes: u64,
    /// The file of its cgroup in which the kernel counts those that it killed for want of memory.
    #[serde(default)]
    pub oom_events: Option<PathBuf>,
    /// Where its last words are.
    #[serde(default)]
    pub last_words: LastWords,
}

/// The ids of a pod that has its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserNamespace {
    /// A bind-mounted nsfs file.
    pub path: PathBuf,
    /// The host's id of user and group 0 in it.
    pub first: u32,
}

impl UserNamespace {
    /// The namespace itself.
    pub fn open(&self) -> Result<File, RuntimeError> {
        File::open(&self.path).map_err(|e| RuntimeError::io("open user namespace", &self.path, e))
    }
}

impl ContainerStart {
    /// Its user namespace, if that is not the host's.
    pub(crate) fn own_ids(&self) -> Option<&UserNamespace> {
        self.userns.as_ref().filter(|_| !guard::off("user-namespace"))
    }

    /// The host's id of user and group 0 of the container.
    pub(crate) fn first_id(&self) -> u32 {
        self.own_ids().map_or(0, |ids| ids.first)
    }
}

/// Where the message of a container that has ended comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastWords {
    /// The file of the host that the container writes it into.
    pub file: Option<PathBuf>,
    /// The end of its log instead, if it failed and that is empty.
    pub from_log: bool,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SeccompProfile {
    /// Those that programs usually need; all, if it is privileged.
    #[default]
    RuntimeDefault,
    /// All.
    Unconfined,
    /// Those of a profile in the format of the OCI runtime specification.
    Json(String),
}

/// Numeric identity of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub additional_gids: Vec<u32>,
}

impl ContainerUser {
    /// One that is none: the kernel would leave a process, or a file, root's.
    pub(crate) fn wrong_id(&self) -> Option<u32> {
        let all = [self.uid, self.gid].into_iter();
        let mut all = all.chain(self.additional_gids.iter().copied());
        all.find(|id| *id > MAX_ID)
    }
}

/// A file or directory of the host that a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindMount {
    /// Existing absolute path of the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// No writes.
    pub read_only: bool,
}

/// One container as its shim knows it: the last attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerState {
    /// Name within the pod.
    pub name: String,
    /// The attempt this is about.
    pub attempt: u32,
    /// Host pid of its first process (also after its end, when it means nothing any more).
    pub pid: u32,
    /// Start, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// How it ended; `None` while it runs.
    pub exit: Option<ContainerExit>,
    /// The attempt before, if it is known.
    #[serde(default)]
    pub before: Option<EndedAttempt>,
}

/// An attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedAttempt {
    /// Which.
    pub attempt: u32,
    /// Start, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// Its end.
    pub exit: ContainerExit,
}

impl ContainerState {
    /// True while it runs.
    pub fn running(&self) -> bool {
        self.exit.is_none()
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerExit {
    /// Exit code; 128 + signal when killed by one.
    pub code: i32,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The signal that killed it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Why; `None` in the record of a shim that did not know.
    #[serde(default)]
    pub reason: Option<EndReason>,
    /// What it left as its last words, or why its program could not be run.
    #[serde(default)]
    pub message: String,
}

/// A shim and its containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimStatus {
    /// Host pid of the shim.
    pub pid: u32,
    /// Version of the agent binary that it runs.
    pub version: String,
    /// The last attempt of each container.
    pub containers: Vec<ContainerState>,
}

/// What can go wrong between agent and shim.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No process listens on the pod's socket.
    #[error("the shim of pod directory {} is gone", dir.display())]
    ShimGone {
        /// The pod's directory.
        dir: PathBuf,
        /// What the socket said.
        #[source]
        source: std::io::Error,
    },
    /// The shim process could not be started.
    #[error("cannot start the shim of pod directory {}: {reason}", dir.display())]
    Spawn {
        /// The pod's directory.
        dir: PathBuf,
        /// What it said before it ended.
        reason: String,
    },
    /// The shim answered, and the answer is no.
    #[error("{0}")]
    Refused(String),
    /// The shim does not answer in time, or not in its language.
    #[error("the shim of pod directory {} gave no proper answer", dir.display())]
    Protocol {
        /// The pod's directory.
        dir: PathBuf,
        /// What was wrong.
        #[source]
        source: std::io::Error,
    },
    /// A file or directory of the pod.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl RuntimeError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io {
            operation,
            path: path.into(),
            source,
        }
    }
}
