//! The containers of a function.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{MilliCpu, Quantity};

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
    /// Holds the others back until it has passed once: asks often what a command costs dearly later. Kubernetes' shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<NfProbe>,
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
