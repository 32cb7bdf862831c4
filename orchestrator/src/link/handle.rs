//! What the shell and the API server hold of the link.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_nodeagent_api::{Hello, NodeConfig, NodeStatus, OpenSession, Refused, SessionKind};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::session::{Session, SessionRequest};

/// Events that may wait for the shell; then the agents' streams wait.
const EVENTS: usize = 256;
/// An agent has this long to open a session that it was asked for.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// What agents say.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// An agent is there. A second one without `Disconnected` between: it came back.
    Connected(Box<Hello>),
    /// All that a node sees.
    Status(String, Box<NodeStatus>),
    /// A node did not take a configuration.
    Refused(String, Refused),
    /// The stream of a node ended, or was silent for too long.
    Disconnected(String),
}

/// Why a session cannot be opened.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No stream.
    #[error("the agent of node {0} is not connected")]
    NotConnected(String),
    /// It did not answer.
    #[error("the agent of node {0} did not open the session in time")]
    Timeout(String),
}

/// One agent's stream.
pub(super) struct Attached {
    pub epoch: u64,
    pub sessions: mpsc::Sender<OpenSession>,
}

#[derive(Default)]
pub(super) struct Nodes {
    pub attached: HashMap<String, Attached>,
    /// The newest configuration of each node, whether it is connected or not.
    pub configs: HashMap<String, watch::Sender<Option<Arc<NodeConfig>>>>,
    pub waiting: HashMap<String, SessionRequest>,
    pub epoch: u64,
}

/// Somebody waits for a session; no longer when this is dropped.
struct Waiting<'a> {
    link: &'a LinkHandle,
    id: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.nodes().waiting.remove(self.id);
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct LinkHandle {
    nodes: Arc<Mutex<Nodes>>,
    events: mpsc::Sender<LinkEvent>,
    cluster: Arc<str>,
}

impl LinkHandle {
    /// A link without agents of a cluster, and the one receiver of its events.
    pub fn new(cluster: &str) -> (Self, mpsc::Receiver<LinkEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        (
            Self {
                nodes: Arc::default(),
                events,
                cluster: cluster.into(),
            },
            receiver,
        )
    }

    /// Refuses an agent that belongs to another cluster: nothing in this store is of its pods.
    pub(super) fn check_cluster(&self, node: &str, cluster: &str) -> Result<(), String> {
        if cluster.is_empty() || *cluster == *self.cluster {
            return Ok(());
        }
        Err(format!(
            "node {node} belongs to cluster {cluster}, and this is cluster {}; its pods go on. Give this control plane its own \
             store back (`gantry restore FILE`), or stop them with `gantry down` on the node",
            self.cluster
        ))
    }

    pub(super) fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the node has to be from now on. Never blocks; the newest wins; kept for a node that is away.
    pub fn send_config(&self, node: &str, config: NodeConfig) {
        self.nodes()
            .configs
            .entry(node.to_owned())
            .or_insert_with(|| watch::Sender::new(None))
            .send_replace(Some(Arc::new(config)));
    }

    /// Forgets a node that was deleted; not one whose agent has come back just now.
    pub fn forget(&self, node: &str) {
        let mut nodes = self.nodes();
        if !nodes.attached.contains_key(node) {
            nodes.configs.remove(node);
        }
    }

    /// Ends all streams; the agents keep their pods and dial in again later.
    pub fn close(&self) {
        let mut nodes = self.nodes();
        nodes.attached.clear();
        nodes.waiting.clear();
    }

    /// Tells the shell what a stream said, while it is still the node's current one. False if it is not, or nobody listens any
    /// more. Under the lock, so that nothing of an older stream comes after the newer one's `Connected`.
    pub(super) async fn tell(&self, node: &str, epoch: u64, event: LinkEvent) -> bool {
        let Ok(permit) = self.events.reserve().await else {
            return false;
        };
        let mut nodes = self.nodes();
        let current = nodes.attached.get(node).is_some_and(|a| a.epoch == epoch);
        if current {
            if matches!(event, LinkEvent::Disconnected(_)) {
                nodes.attached.remove(node);
            }
            permit.send(event);
        }
        current
    }

    /// Asks the agent for logs, a command in a container or a port; returns when the agent has answered.
    pub async fn open_session(&self, node: &str, kind: SessionKind) -> Result<Session, LinkError> {
        let gone = || LinkError::NotConnected(node.to_owned());
        let id = uuid::Uuid::new_v4().to_string();
        let (request, opened) = oneshot::channel();
        let sender = {
            let mut nodes = self.nodes();
            let sender = nodes.attached.get(node).ok_or_else(gone)?.sessions.clone();
            nodes.waiting.insert(
                id.clone(),
                SessionRequest {
                    node: node.to_owned(),
                    answer: request,
                },
            );
            sender
        };
        // The caller may go away at any await.
        let _waiting = Waiting { link: self, id: &id };
        let asked = async {
            sender
                .send(OpenSession { id: id.clone(), kind })
                .await
                .map_err(|_| gone())?;
            opened.await.map_err(|_| gone())
        };
        let answer = tokio::time::timeout(SESSION_TIMEOUT, asked).await;
        answer.map_err(|_| LinkError::Timeout(node.to_owned()))?
    }

    /// A new stream of a node: its number, and the configurations to send on it.
    pub(super) fn attach(
        &self,
        node: &str,
        sessions: mpsc::Sender<OpenSession>,
    ) -> (u64, watch::Receiver<Option<Arc<NodeConfig>>>) {
        let mut nodes = self.nodes();
        nodes.epoch += 1;
        let epoch = nodes.epoch;
        // An older stream of the node ends here, with the receiver of its sessions.
        nodes
            .attached
            .insert(node.to_owned(), Attached { epoch, sessions });
        let configs = nodes
            .configs
            .entry(node.to_owned())
            .or_insert_with(|| watch::Sender::new(None));
        let mut receiver = configs.subscribe();
        receiver.mark_changed();
        (epoch, receiver)
    }

    pub(super) fn take_waiting(&self, id: &str, node: &str) -> Option<oneshot::Sender<Session>> {
        let mut nodes = self.nodes();
        if nodes.waiting.get(id)?.node != node {
            return None;
        }
        nodes.waiting.remove(id).map(|request| request.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_stream_has_nothing_more_to_say() {
        let (link, mut events) = LinkHandle::new("c");
        let gone = || LinkEvent::Disconnected("a".to_owned());
        let (old, _) = link.attach("a", mpsc::channel(1).0);
        let (new, _) = link.attach("a", mpsc::channel(1).0);
        assert!(!link.tell("a", old, gone()).await);
        assert!(events.try_recv().is_err());
        assert!(link.nodes().attached.contains_key("a"));
        assert!(link.tell("a", new, gone()).await);
        assert!(events.try_recv().is_ok());
        assert!(link.nodes().attached.is_empty());
        assert!(!link.tell("a", new, gone()).await, "only once");
    }

    #[tokio::test]
    async fn who_goes_away_waits_no_longer() {
        let (link, _events) = LinkHandle::new("c");
        let (sender, _requests) = mpsc::channel(1);
        link.attach("a", sender);
        let kind = SessionKind::PortForward {
            pod: "p".to_owned(),
            port: 1,
        };
        let asking = link.open_session("a", kind);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), asking)
                .await
                .is_err()
        );
        assert!(link.nodes().waiting.is_empty());
    }
}
