//! The frames of the two streams: what agent and orchestrator may say, and sessions into a pod.

use crate::{Generation, Hello, NodeConfig, NodeStatus, PodUid};

/// From the agent, on `Attach`.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentMessage {
    /// First on every stream.
    Hello(Hello),
    /// The whole status.
    Status(NodeStatus),
    /// A configuration was not taken.
    Refused(Refused),
}

/// The agent did not take a configuration; what it had before stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The configuration's generation.
    pub generation: Generation,
    /// Why, for people.
    pub reason: String,
}

/// From the orchestrator, on `Attach`.
#[derive(Clone, Debug, PartialEq)]
pub enum OrchestratorMessage {
    /// The whole configuration.
    Config(NodeConfig),
    /// Open a `Session` stream.
    OpenSession(OpenSession),
}

/// Asks the agent for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// Echoed in the first frame of the session.
    pub id: String,
    /// What kind.
    pub kind: SessionKind,
}

/// A way into a pod, or a question about all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Reads a container's log.
    Logs {
        /// Pod.
        pod: PodUid,
        /// Container name; empty means the only or first one.
        container: String,
        /// Stay and send new lines.
        follow: bool,
        /// Only that many lines from the end.
        tail_lines: Option<u64>,
        /// The run before the current one.
        previous: bool,
        /// Only lines written since then, milliseconds since the Unix epoch.
        since_ms: Option<u64>,
        /// `stdout` or `stderr`: only what was written there.
        stream: Option<String>,
        /// RFC 3339 time in front of every line.
        timestamps: bool,
    },
    /// Runs a command in a container.
    Exec {
        /// Pod.
        pod: PodUid,
        /// Container name; empty means the only or first one.
        container: String,
        /// Command and arguments.
        argv: Vec<String>,
        /// With a terminal.
        tty: bool,
        /// With standard input.
        stdin: bool,
    },
    /// One TCP connection to a port in the pod's network namespace.
    PortForward {
        /// Pod.
        pod: PodUid,
        /// Port on the loopback or the pod's address.
        port: u16,
    },
    /// What the node's pods take, as the JSON of a [`crate::NodeMetrics`].
    Usage,
}

/// One frame of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionFrame {
    /// First frame, from the agent: the id of the [`OpenSession`].
    Open(String),
    /// Towards the process or the port.
    Stdin(bytes::Bytes),
    /// No more of it.
    StdinEof,
    /// From the process, the log or the port.
    Stdout(bytes::Bytes),
    /// From the process.
    Stderr(bytes::Bytes),
    /// New terminal size.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// The session failed. Last frame.
    Error(String),
    /// The process ended with this code (128 + signal when killed); 0 for logs and ports. Last frame.
    Exit(i32),
}
