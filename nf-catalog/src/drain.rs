//! How a function lets go of its work.

use serde::{Deserialize, Serialize};

/// How a function lets go of its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// The way.
    #[serde(default)]
    pub method: DrainMethod,
    /// Where the sessions are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionMetric>,
    /// Seconds without sessions after its flows are gone, before it is stopped.
    #[serde(default = "default_quiet")]
    pub quiet_seconds: u32,
    /// Seconds of the client's silence after which a UDP flow to a draining instance carries no session any more: a packet
    /// after that counts as a new flow and goes to another instance.
    #[serde(default = "default_flow_idle")]
    pub flow_idle_seconds: u32,
}

fn default_quiet() -> u32 {
    5
}

fn default_flow_idle() -> u32 {
    300
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            method: DrainMethod::None,
            sessions: None,
            quiet_seconds: default_quiet(),
            flow_idle_seconds: default_flow_idle(),
        }
    }
}

/// The way a function is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainMethod {
    /// No new flows, wait until SIP dialogs are gone.
    SipDialogs,
    /// No new flows, wait until the session metric is 0.
    Sessions,
    /// Stop at once.
    #[default]
    None,
}

/// A Prometheus metric that counts live sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionMetric {
    /// Port on the pod.
    pub port: u16,
    /// Path.
    #[serde(default = "metrics_path")]
    pub path: String,
    /// Metric name; samples are summed.
    pub metric: String,
}

pub(crate) fn metrics_path() -> String {
    "/metrics".to_owned()
}
