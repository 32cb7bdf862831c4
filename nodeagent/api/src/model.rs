//! The messages as plain types. Desired state flows down as a whole [`NodeConfig`]; observed state flows up as a whole [`NodeStatus`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use gantry_topology::{CpuSet, NumaId, Topology};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

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
    /// The newest generation in the agent's ledger (0: none).
    pub generation: Generation,
}

/// Everything one node has to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// Version. Same generation means same content.
    pub generation: Generation,
    /// Addresses and names; `None` only before the first real configuration.
    pub network: Option<NodeNetwork>,
    /// The CPUs that containers without exclusive ones run on.
    pub shared_cpus: CpuSet,
    /// The pods.
    pub pods: BTreeMap<PodUid, PodConfig>,
    /// The service addresses, by `namespace/name`.
    pub services: BTreeMap<String, ServiceConfig>,
    /// DNS: lower-case name without final dot to addresses.
    pub dns: BTreeMap<String, Vec<IpAddr>>,
}

/// The node's share of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetwork {
    /// Addresses of this node's pods.
    pub pod_cidr: Ipv4Net,
    /// Addresses of services.
    pub service_cidr: Ipv4Net,
    /// The node's own address in `pod_cidr`.
    pub gateway: Ipv4Addr,
    /// DNS domain, for example `cluster.local`.
    pub cluster_domain: String,
}

/// Whether a pod is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodDesired {
    /// Run it.
    #[default]
    Run,
    /// Stop it (SIGTERM, grace, SIGKILL) and release what it holds. Absent from the configuration means the same.
    Stop,
}

/// One pod, exactly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodConfig {
    /// Namespace.
    pub namespace: String,
    /// Name; the pod's host name.
    pub name: String,
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
    /// Containers, in start order.
    pub containers: Vec<ContainerConfig>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Where the number of live sessions is read, if the function tells it.
    pub sessions: Option<SessionProbe>,
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
    /// Mounts of the pod's volumes.
    pub mounts: Vec<Mount>,
    /// What it may do.
    pub security: Security,
    /// Gates traffic.
    pub readiness: Option<Probe>,
    /// Failing it restarts the container.
    pub liveness: Option<Probe>,
    /// Holds back the other two until it succeeded once.
    pub startup: Option<Probe>,
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

/// A volume of the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Volume {
    /// Files with given content (ConfigMap, Secret): file name to bytes (UTF-8 text).
    Files(BTreeMap<String, String>),
    /// A tmpfs with a size limit in bytes.
    #[serde(rename_all = "camelCase")]
    Scratch {
        /// 0 means the kernel's default, half of the node's memory.
        size_bytes: u64,
    },
    /// A path of the host.
    #[serde(rename_all = "camelCase")]
    HostPath {
        /// Absolute path.
        path: String,
    },
}

/// A volume, or one file of it, mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Volume name.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// Only this file of the volume.
    pub sub_path: Option<String>,
    /// No writes.
    pub read_only: bool,
}

/// What a container may do. The default is the least.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// Numeric user; `None` means the image's.
    pub user: Option<u32>,
    /// Numeric group; `None` means the image's.
    pub group: Option<u32>,
    /// Capabilities (without `CAP_`), for example `NET_ADMIN`.
    pub capabilities: Vec<String>,
    /// Everything allowed.
    pub privileged: bool,
    /// Root file system without writes.
    pub read_only_root: bool,
}

/// A periodic check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What is done.
    pub action: ProbeAction,
    /// Milliseconds before the first.
    pub initial_delay_ms: u64,
    /// Milliseconds between two.
    pub period_ms: u64,
    /// Milliseconds until one counts as failed.
    pub timeout_ms: u64,
    /// Failures in a row that count.
    pub failure_threshold: u32,
    /// Successes in a row that count.
    pub success_threshold: u32,
}

/// How a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeAction {
    /// HTTP GET on the pod's address; 200-399 is success.
    #[serde(rename_all = "camelCase")]
    HttpGet {
        /// Port.
        port: u16,
        /// Path with query.
        path: String,
    },
    /// A TCP connection to the pod's address.
    TcpSocket {
        /// Port.
        port: u16,
    },
    /// A command in the container; exit code 0 is success.
    Exec {
        /// argv.
        command: Vec<String>,
    },
}

/// Where a function tells how many sessions (dialogs, calls, contexts) it carries: Prometheus text on the pod's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionProbe {
    /// Port.
    pub port: u16,
    /// Path.
    pub path: String,
    /// Metric name; samples with different labels are summed.
    pub metric: String,
}

/// Transport protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A service address with its backends on all nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceConfig {
    /// The virtual address.
    pub vip: Ipv4Addr,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Port on the virtual address.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Who serves it.
    pub backends: Vec<Backend>,
}

/// One endpoint of a service port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The pod behind it.
    pub pod: PodUid,
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Share of new flows, relative to the others; at least 1.
    pub weight: u32,
    /// True: keeps established flows, takes no new ones.
    pub draining: bool,
    /// A UDP flow to it whose client was silent for longer, in seconds, is a new flow.
    #[serde(default = "default_udp_idle_s")]
    pub udp_idle_s: u32,
}

/// [`Backend::udp_idle_s`] where nobody knows better, in seconds.
pub const DEFAULT_UDP_IDLE_S: u32 = 300;

fn default_udp_idle_s() -> u32 {
    DEFAULT_UDP_IDLE_S
}

/// Everything an agent sees, as a whole, on every change and at least every few seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The newest generation accepted into the ledger.
    pub accepted: Generation,
    /// The newest generation whose every change is done (pods may still be starting or stopping).
    pub applied: Generation,
    /// The pods on the node, those that are going included, until they are gone without rest.
    pub pods: BTreeMap<PodUid, PodStatus>,
    /// Counters of the node's datapath.
    pub network: NetworkCounters,
    /// Why the node's addresses, services and names are not as configured; empty when they are.
    #[serde(default)]
    pub network_message: String,
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
    /// Memory limit in bytes in force at this moment, all containers together.
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
}

/// One container as seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// Running now.
    pub running: bool,
    /// Passed its readiness probe (or has none).
    pub ready: bool,
    /// Number of restarts.
    pub restarts: u32,
    /// Host pid while running.
    pub pid: Option<u32>,
    /// Milliseconds since the Unix epoch of the last start.
    pub started_at_ms: u64,
    /// Exit code of the last run; 128 + signal when killed.
    pub exit_code: Option<i32>,
    /// Digest of the image in use.
    pub image_id: String,
    /// Resources in force in the kernel.
    pub resources: ContainerResources,
    /// Why it does not run; empty when it does.
    pub message: String,
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
