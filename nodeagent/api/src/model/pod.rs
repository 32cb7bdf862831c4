//! A pod as it has to be, exactly.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gantry_topology::{CpuSet, NumaId};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{ClaimId, Hook, PodNames, Probe, SessionProbe, Volume};

/// Whether a pod is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodDesired {
    /// Run it.
    #[default]
    Run,
    /// Stop it (SIGTERM, grace, SIGKILL) and release what it holds. Absent from the configuration means the same.
    Stop,
    /// It has ended for good: it holds nothing but its logs and the record of its end, and never runs again.
    Keep,
}

/// One pod, exactly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodConfig {
    /// Namespace.
    pub namespace: String,
    /// Name; the pod's host name.
    pub name: String,
    /// Who has made the namespace; empty: the administrator.
    #[serde(default)]
    pub requester: String,
    /// Labels, for logs and metrics.
    pub labels: BTreeMap<String, String>,
    /// Run or stop.
    pub desired: PodDesired,
    /// Address on the pod network.
    pub address: Option<Ipv4Addr>,
    /// True: the pod uses the host's network namespace.
    pub host_network: bool,
    /// When containers start again.
    pub restart_policy: RestartPolicy,
    /// Seconds between SIGTERM and SIGKILL.
    pub termination_grace_s: u32,
    /// NUMA nodes whose memory may be used (cpuset.mems); empty means all.
    pub numa_nodes: Vec<NumaId>,
    /// Containers, in start order: those of the roles init and sidecar before the others.
    pub containers: Vec<ContainerConfig>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Identity and kernel parameters of all its containers.
    #[serde(default)]
    pub security: PodSecurity,
    /// How it is called, and how it asks for others.
    #[serde(default)]
    pub names: PodNames,
    /// Where the number of live sessions is read, if the function tells it.
    pub sessions: Option<SessionProbe>,
    /// When it is stopped if it has not ended before, and counts as failed; milliseconds since the Unix epoch.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// What its containers are worth where memory runs out.
    #[serde(default)]
    pub qos: QosClass,
    /// Networks behind it: pods of its namespace reach them by it, and it sends from their addresses. The longest prefix counts.
    #[serde(default)]
    pub subnets: Vec<Ipv4Net>,
}

/// Those who have one share of what all use together: all namespaces that one person has made, or one namespace that nobody's
/// name is on.
pub fn share_group(requester: &str, namespace: &str) -> String {
    if requester.is_empty() {
        format!("namespace {namespace}")
    } else {
        format!("user {requester}")
    }
}

impl PodConfig {
    /// Whose share of what all use together it takes of.
    pub fn share_group(&self) -> String {
        share_group(&self.requester, &self.namespace)
    }

    /// The claims that its volumes are.
    pub fn claims(&self) -> impl Iterator<Item = &ClaimId> {
        self.volumes.values().filter_map(|v| v.claim().map(|(id, _)| id))
    }

    /// Whether a container of it can write to a claim.
    pub fn writes_claim(&self, id: &str) -> bool {
        let mut mounts = self.containers.iter().flat_map(|c| &c.mounts);
        mounts.any(|mount| {
            let claim = self.volumes.get(&mount.volume).and_then(Volume::claim);
            claim.is_some_and(|(its, read_only)| its == id && !read_only && !mount.read_only)
        })
    }

    /// What its containers may have of memory at once, in bytes; 0 if one of them has no limit.
    pub fn memory_limit_bytes(&self) -> u64 {
        let limits = self.containers.iter().map(|c| (c.role, c.resources.memory_bytes));
        memory_at_once(limits)
    }
}

/// Quality of service (Kubernetes' `status.qosClass`), made by the sizes of all containers; it never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum QosClass {
    /// Every container has limits, and they are its requests.
    Guaranteed,
    /// Some container asks for something. Also a pod of a configuration that does not say.
    #[default]
    Burstable,
    /// Nothing is asked for.
    BestEffort,
}

/// When the agent starts a container again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestartPolicy {
    /// Whatever the exit code, with back-off.
    #[default]
    Always,
    /// Only after a non-zero exit.
    OnFailure,
    /// Never.
    Never,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerConfig {
    /// Name within the pod.
    pub name: String,
    /// Image name or digest in the image store.
    pub image: String,
    /// Replaces the image's entrypoint if not empty. `$(VAR)` is already expanded.
    pub command: Vec<String>,
    /// Replaces the image's arguments if not empty (or if `command` is set).
    pub args: Vec<String>,
    /// Environment, added to the image's.
    pub env: Vec<(String, String)>,
    /// Working directory; empty means the image's.
    pub working_dir: String,
    /// CPU, memory, hugepages.
    pub resources: ContainerResources,
    /// The memory that it asks for in bytes; its limit is one of its resources.
    #[serde(default)]
    pub memory_request_bytes: u64,
    /// What it may leave on the node's disk: the writes to its root file system, and its logs.
    #[serde(default)]
    pub ephemeral_storage: EphemeralStorage,
    /// Mounts of the pod's volumes.
    pub mounts: Vec<Mount>,
    /// What it may do.
    pub security: Security,
    /// Soft limit on open files; `None`: 1,024. The hard limit is the host's.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// Gates traffic.
    pub readiness: Option<Probe>,
    /// Failing it restarts the container.
    pub liveness: Option<Probe>,
    /// Holds back the other two until it succeeded once.
    pub startup: Option<Probe>,
    /// Done when it has started; if that fails, it is restarted.
    #[serde(default)]
    pub post_start: Option<Hook>,
    /// Done before it is told to end, within the grace period.
    #[serde(default)]
    pub pre_stop: Option<Hook>,
    /// Done while it runs when files of a volume that it has mounted as a whole were replaced.
    #[serde(default)]
    pub reload: Option<Hook>,
    /// Its part in the pod's life.
    #[serde(default)]
    pub role: ContainerRole,
    /// Where its last words are.
    #[serde(default)]
    pub termination_message: TerminationMessage,
}

/// What is told of a run that has ended, beside its code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationMessage {
    /// Absolute path of a file in the container, into which it may write; empty: none.
    pub path: String,
    /// The end of its log instead, if it failed and has written nothing.
    pub from_log: bool,
}

/// What part a container has in its pod's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerRole {
    /// What the pod is for.
    #[default]
    Main,
    /// Has to end well before any that come after it start.
    Init,
    /// Has to be up before any that come after it start, runs as long as the pod does, and ends after them.
    Sidecar,
}

/// The most that containers, in start order, ask for at once: an init container stands beside the sidecars before it only.
pub fn most_at_once(parts: impl IntoIterator<Item = (ContainerRole, u64)>) -> u64 {
    let (mut lasting, mut most) = (0u64, 0u64);
    for (role, amount) in parts {
        if role == ContainerRole::Init {
            most = most.max(lasting.saturating_add(amount));
        } else {
            lasting = lasting.saturating_add(amount);
        }
    }
    most.max(lasting)
}

/// The same of memory limits in bytes, of which 0 means none: then there is none at all, and it is 0.
pub fn memory_at_once(limits: impl IntoIterator<Item = (ContainerRole, u64)>) -> u64 {
    let limits: Vec<_> = limits.into_iter().collect();
    match limits.iter().any(|(_, bytes)| *bytes == 0) {
        true => 0,
        false => most_at_once(limits),
    }
}

/// Exact resources; every field may change on a live container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerResources {
    /// Exclusive CPUs; empty means the node's shared pool.
    pub cpus: CpuSet,
    /// CPU request in thousandths (cpu.shares / cpu.weight).
    pub cpu_request_milli: u32,
    /// CFS quota in thousandths of a CPU, if limited.
    pub cpu_limit_milli: Option<u32>,
    /// Memory limit in bytes; 0 means none.
    pub memory_bytes: u64,
    /// Hugepage limits: page size in bytes to bytes.
    pub hugepages: BTreeMap<u64, u64>,
}

/// Ephemeral storage of a container (Kubernetes' resource `ephemeral-storage`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralStorage {
    /// Who keeps within it is the last to be evicted, in bytes.
    pub request_bytes: u64,
    /// Above it the pod is evicted, in bytes; 0 means none.
    pub limit_bytes: u64,
}

/// A volume, or one file of it, mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Volume name.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// Only this file or directory of the volume.
    pub sub_path: Option<String>,
    /// No writes.
    pub read_only: bool,
}

/// What a container may do. The default is the least.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Security {
    /// Numeric user; `None` means the image's.
    pub user: Option<u32>,
    /// Numeric group; `None` means the image's.
    pub group: Option<u32>,
    /// Capabilities (without `CAP_`) that its processes have, whatever their user, for example `NET_ADMIN`; `ALL`: those that the
    /// agent has.
    pub capabilities: Vec<String>,
    /// Capabilities that processes of its root have besides.
    pub root_capabilities: Vec<String>,
    /// Everything allowed.
    pub privileged: bool,
    /// Root file system without writes.
    pub read_only_root: bool,
    /// A program may get more than the one that executes it has (setuid, capabilities of files): no `no_new_privs`.
    pub allow_privilege_escalation: bool,
    /// It does not start as root.
    pub run_as_non_root: bool,
    /// System calls that it may make.
    pub seccomp: Seccomp,
    /// AppArmor profile that the node has loaded; `None`: that of the agent.
    pub apparmor_profile: Option<String>,
}

/// Which system calls are let through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// Those that programs usually need.
    #[default]
    RuntimeDefault,
    /// All.
    Unconfined,
    /// Those of a profile of the node: a path below the agent's `seccomp` directory.
    Localhost(String),
}

/// What goes for all containers of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurity {
    /// Groups that every process has besides.
    pub supplemental_groups: Vec<u32>,
    /// Only those, none that the image's group file lists for the user.
    pub strict_groups: bool,
    /// The group of the pod's volumes; every process has it besides.
    pub fs_group: Option<u32>,
    /// Parameters of the pod's own namespaces (`sysctl(8)`), for example `net.ipv4.ip_forward`.
    pub sysctls: BTreeMap<String, String>,
    /// Its ids are not the host's: root in it is an ordinary user of the node (`user_namespaces(7)`). Not on the host's network.
    pub own_ids: bool,
}
