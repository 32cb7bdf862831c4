//! One session with a pod: its logs, a command in it, a port of it.

use gantry_nodeagent_api::SessionFrame;
use tokio::sync::{mpsc, oneshot};

/// An open session; dropping it ends it.
#[derive(Debug)]
pub struct Session {
    /// Towards the pod; waits when the agent is slow.
    pub input: mpsc::Sender<SessionFrame>,
    /// From the pod; ends after `Error` or `Exit`.
    pub output: mpsc::Receiver<SessionFrame>,
}

/// Somebody waits for an agent to open a session.
pub(super) struct SessionRequest {
    pub node: String,
    pub answer: oneshot::Sender<Session>,
}
