//! `NfPackage`: one network function at one version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Drain, MilliCpu, Quantity, TemplateSyntax};

/// A network function at one version: what it runs, what it offers and needs, how it is resized and drained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfPackageSpec {
    /// Package name, for example `pcscf`. In a descriptor file it comes from the metadata.
    #[serde(default)]
    pub package: String,
    /// Version, `major.minor.patch`. In a descriptor file it comes from the metadata.
    #[serde(default)]
    pub version: String,
    /// Which core it belongs to.
    pub family: Family,
    /// The role as 3GPP names it, for example `P-CSCF`.
    pub role: String,
    /// What it carries.
    pub plane: Plane,
    /// One line for `gantry catalog ls`.
    #[serde(default)]
    pub description: String,
    /// Defaults of the template values; a NetworkFunction may override any of these and no other.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// Containers, in start order.
    pub containers: Vec<NfContainer>,
    /// Connection points.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Other functions that it talks to first.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Configuration files from templates.
    #[serde(default)]
    pub config: Vec<ConfigFile>,
    /// Files from Secrets: keys and passwords, which stand in no template and no argument.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretFile>,
    /// How tags are marked in the templates. A descriptor file that says nothing means `angle`; an object of the API without
    /// it is older than the choice, and means `jinja`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_syntax: Option<TemplateSyntax>,
    /// Template texts by name; filled from files beside the descriptor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, String>,
    /// How it takes a change of size.
    #[serde(default)]
    pub resize: Resize,
    /// How many instances it may have.
    #[serde(default)]
    pub scale: ScaleLimits,
    /// How it lets go of its work.
    #[serde(default)]
    pub drain: Drain,
    /// How it changes version.
    #[serde(default)]
    pub upgrade: Upgrade,
}

/// Which core a function belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// 4G core.
    Epc,
    /// IP Multimedia Subsystem.
    Ims,
    /// 5G core.
    #[serde(rename = "5gc")]
    FiveGc,
    /// Load generators, DNS, databases.
    #[default]
    Support,
}

/// What a function carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Control messages.
    #[default]
    Signalling,
    /// RTP.
    Media,
    /// User packets.
    Data,
}

/// One container of a function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfContainer {
    /// Name within the pod.
    pub name: String,
    /// Image name, normally one of the catalog's recipes.
    pub image: String,
    /// Replaces the image's entrypoint.
    #[serde(default)]
    pub command: Vec<String>,
    /// Arguments; `$(VAR)` expands from the environment, POD_IP, POD_NAME and POD_NAMESPACE included.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// CPU by default.
    pub cpu: Cpu,
    /// Memory by default: request and limit.
    pub memory: Quantity,
    /// Hugepages: page size (`2Mi`, `1Gi`) to amount.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hugepages: BTreeMap<String, Quantity>,
    /// Gates traffic. Kubernetes' shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<NfProbe>,
    /// Failing it restarts the container. Kubernetes' shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<NfProbe>,
    /// What it may do; least by default.
    #[serde(default)]
    pub security: NfSecurity,
    /// Files and sockets that it may have open before it raises its limit itself; 1,024 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u32>,
    /// Directories with a tmpfs.
    #[serde(default)]
    pub scratch: Vec<String>,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value; `$(VAR)` expands from earlier ones.
    pub value: String,
}

/// Shared or exclusive CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "mode", deny_unknown_fields)]
pub enum Cpu {
    /// A share of the shared pool.
    Shared {
        /// Guaranteed.
        request: MilliCpu,
        /// Ceiling, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<MilliCpu>,
    },
    /// Whole logical CPUs by exact id.
    Exclusive {
        /// How many.
        count: u32,
        /// What SMT siblings may be.
        #[serde(default)]
        smt: Smt,
    },
}

impl Default for Cpu {
    fn default() -> Self {
        Self::Shared {
            request: MilliCpu(100),
            limit: None,
        }
    }
}

/// What SMT siblings of an exclusive CPU may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Smt {
    /// Whole physical cores.
    #[default]
    Full,
    /// Any logical CPU.
    Any,
}

/// A probe in Kubernetes' shape; exactly one of the three actions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfProbe {
    /// HTTP GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// TCP connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    /// Command in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Seconds before the first.
    #[serde(default)]
    pub initial_delay_seconds: u32,
    /// Seconds between two.
    #[serde(default = "default_period")]
    pub period_seconds: u32,
    /// Seconds until one counts as failed.
    #[serde(default = "one")]
    pub timeout_seconds: u32,
    /// Failures in a row that count.
    #[serde(default = "three")]
    pub failure_threshold: u32,
}

fn default_period() -> u32 {
    10
}
fn one() -> u32 {
    1
}
fn three() -> u32 {
    3
}

/// HTTP GET of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpGet {
    /// Path.
    pub path: String,
    /// Port.
    pub port: u16,
}

/// TCP connect of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpSocket {
    /// Port.
    pub port: u16,
}

/// Command of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// argv.
    pub command: Vec<String>,
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NfSecurity {
    /// Numeric user, 0 to 2147483647; the image's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Numeric group, 0 to 2147483647; the image's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Capabilities without `CAP_`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Root file system without writes.
    #[serde(default)]
    pub read_only_root_filesystem: bool,
}

/// A connection point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interface {
    /// Name, for example `sip`, `n4`.
    pub name: String,
    /// Application protocol, for example `SIP`, `PFCP`.
    pub protocol: String,
    /// Transport.
    pub transport: Transport,
    /// Port.
    pub port: u16,
    /// Network (segment); `pod` is the pod network.
    #[serde(default = "pod_network")]
    pub network: String,
    /// True: reachable by a virtual address that spreads new flows over the instances.
    #[serde(default)]
    pub service: bool,
}

fn pod_network() -> String {
    "pod".to_owned()
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A function that must be there first. In templates: `peers.<function>.vip`, `.port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Need {
    /// Name of the peer in templates and in `peers` of a NetworkFunction.
    pub function: String,
    /// Role it must have.
    pub role: String,
    /// Its interface whose virtual address is used.
    pub interface: String,
}

/// A configuration file from a template (minijinja; `values`, `peers`, `self`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigFile {
    /// File beside the descriptor.
    pub template: String,
    /// Absolute path in every container.
    pub path: String,
}

/// A file from a Secret. Its pods wait until that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretFile {
    /// Name of the Secret, in the function's namespace.
    pub secret: String,
    /// Key within.
    pub key: String,
    /// Absolute path in every container.
    pub path: String,
}

/// How a function takes a change of size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resize {
    /// CPU.
    #[serde(default)]
    pub cpu: ResizeClass,
    /// Memory.
    #[serde(default)]
    pub memory: ResizeClass,
}

/// What a change of size needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeClass {
    /// Nothing: the cgroup changes.
    #[default]
    Elastic,
    /// The function is told and answers.
    Cooperative,
    /// A new instance of the new size, and a drain.
    Fixed,
}

/// Bounds on the number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleLimits {
    /// Fewest.
    #[serde(default)]
    pub min: u32,
    /// Most.
    #[serde(default = "default_max")]
    pub max: u32,
}

fn default_max() -> u32 {
    100
}

impl Default for ScaleLimits {
    fn default() -> Self {
        Self {
            min: 0,
            max: default_max(),
        }
    }
}

/// How a function changes version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upgrade {
    /// The way.
    #[serde(default)]
    pub strategy: UpgradeStrategy,
}

/// The way of an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeStrategy {
    /// New instance first, then the old one drains.
    #[default]
    Surge,
    /// The old one goes first.
    Replace,
}
