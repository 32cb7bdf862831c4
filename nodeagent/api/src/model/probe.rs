//! How a container is asked how it is.

use serde::{Deserialize, Serialize};

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
    /// Seconds between SIGTERM and SIGKILL for a container that is restarted for it; `None` means the pod's.
    #[serde(default)]
    pub termination_grace_s: Option<u32>,
}

/// What is done when a container has started, when its files were replaced, or before it is told to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hook {
    /// HTTP GET on the pod's address; below 400 is success.
    HttpGet(HttpGet),
    /// A command in the container; exit code 0 is success.
    Exec {
        /// argv.
        command: Vec<String>,
    },
    /// Nothing, for a while.
    Sleep {
        /// Seconds.
        seconds: u32,
    },
    /// A signal to the container's first process.
    Signal {
        /// Number as in `signal(7)`.
        signal: u32,
    },
}

/// How a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeAction {
    /// HTTP GET on the pod's address; 200-399 is success.
    HttpGet(HttpGet),
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

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Port.
    pub port: u16,
    /// Path with query.
    pub path: String,
    /// Names and values, in order. A `Host` takes the place of the pod's address.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
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
