//! The gRPC service that agents call.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use gantry_nodeagent_api::proto::node_service_server::{NodeService, NodeServiceServer};
use gantry_nodeagent_api::{
    AgentMessage, Hello, MAX_MESSAGE_BYTES, NodeConfig, OpenSession, OrchestratorMessage, SessionFrame, proto,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::handle::{LinkEvent, LinkHandle};
use super::session::Session;

/// Requests for sessions that may wait for a node.
const REQUESTS: usize = 64;
/// Frames that may wait in either direction of a session; a client makes them as large as it may, and has many sessions.
const SESSION_FRAMES: usize = 4;

/// The node that a connection's client certificate names; put into the request's extensions by the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity(pub String);

/// The service; clone of the handle inside.
#[derive(Clone)]
pub struct NodeLink {
    handle: LinkHandle,
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl NodeLink {
    /// A service that feeds the handle.
    pub fn new(handle: LinkHandle) -> Self {
        Self { handle }
    }

    /// As a tonic service, with the message limits set.
    pub fn into_service(self) -> NodeServiceServer<Self> {
        NodeServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

fn identity<T>(request: &Request<T>) -> Result<String, Status> {
    request
        .extensions()
        .get::<NodeIdentity>()
        .map(|identity| identity.0.clone())
        .ok_or_else(|| Status::permission_denied("the client certificate is not a node's"))
}

fn invalid(error: gantry_nodeagent_api::InvalidMessage) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl NodeService for NodeLink {
    type AttachStream = Outgoing<proto::OrchestratorMessage>;
    type SessionStream = Outgoing<proto::SessionFrame>;

    async fn attach(
        &self,
        request: Request<Streaming<proto::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let node = identity(&request)?;
        let mut incoming = request.into_inner();
        let hello = match incoming.message().await?.map(AgentMessage::try_from) {
            Some(Ok(AgentMessage::Hello(hello))) => hello,
            Some(Err(error)) => return Err(invalid(error)),
            _ => return Err(Status::invalid_argument("the first message must be Hello")),
        };
        if hello.node != node {
            return Err(Status::permission_denied(format!(
                "the certificate is of node {node}, Hello of node {}",
                hello.node
            )));
        }
        if let Err(problem) = self.handle.check_cluster(&node, &hello.cluster) {
            tracing::error!(node, problem, "an agent is refused");
            return Err(Status::failed_precondition(problem));
        }
        let (sender, sessions) = mpsc::channel(REQUESTS);
        let (epoch, config) = self.handle.attach(&node, sender);
        tokio::spawn(receive(self.handle.clone(), hello, epoch, incoming));
        Ok(Response::new(Box::pin(outgoing(config, sessions))))
    }

    async fn session(
        &self,
        request: Request<Streaming<proto::SessionFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = identity(&request)?;
        let mut incoming = request.into_inner();
        let id = match incoming.message().await?.map(SessionFrame::try_from) {
            Some(Ok(SessionFrame::Open(id))) => id,
            Some(Err(error)) => return Err(invalid(error)),
            _ => return Err(Status::invalid_argument("the first frame must be Open")),
        };
        let answer = self
            .handle
            .take_waiting(&id, &node)
            .ok_or_else(|| Status::not_found(format!("nobody waits for session {id} of node {node}")))?;
        let (input, to_agent) = mpsc::channel(SESSION_FRAMES);
        let (from_agent, output) = mpsc::channel(SESSION_FRAMES);
        if answer.send(Session { input, output }).is_err() {
            return Err(Status::cancelled("the client went away"));
        }
        tokio::spawn(forward(incoming, from_agent));
        let frames = ReceiverStream::new(to_agent).map(|frame: SessionFrame| Ok(frame.into()));
        Ok(Response::new(Box::pin(frames)))
    }
}

/// Reads one agent's stream to its end.
async fn receive(handle: LinkHandle, hello: Hello, epoch: u64, mut incoming: Streaming<proto::AgentMessage>) {
    let node = hello.node.clone();
    tracing::info!(node, kernel = hello.kernel_version, "agent connected");
    let mut event = LinkEvent::Connected(Box::new(hello));
    loop {
        // Replaced by a newer stream, or the orchestrator ends.
        if !handle.tell(&node, epoch, event).await {
            return;
        }
        event = match incoming.message().await {
            Ok(Some(message)) => match AgentMessage::try_from(message) {
                Ok(AgentMessage::Status(status)) => LinkEvent::Status(node.clone(), Box::new(status)),
                Ok(AgentMessage::Refused(refused)) => LinkEvent::Refused(node.clone(), refused),
                Ok(AgentMessage::Hello(hello)) if hello.node == node => LinkEvent::Connected(Box::new(hello)),
                Ok(AgentMessage::Hello(_)) => break,
                Err(error) => {
                    tracing::error!(node, %error, "message of an agent is invalid");
                    break;
                }
            },
            Ok(None) => break,
            Err(status) => {
                tracing::warn!(node, error = status.message(), "stream of an agent broke");
                break;
            }
        };
    }
    if handle
        .tell(&node, epoch, LinkEvent::Disconnected(node.clone()))
        .await
    {
        tracing::info!(node, "agent disconnected");
    }
}

/// Whole configurations, newest only, and session requests; ends when a newer stream of the node replaces this one.
fn outgoing(
    config: watch::Receiver<Option<Arc<NodeConfig>>>,
    sessions: mpsc::Receiver<OpenSession>,
) -> impl Stream<Item = Result<proto::OrchestratorMessage, Status>> + Send {
    futures::stream::unfold((config, sessions), |(mut config, mut sessions)| async move {
        loop {
            // Both arms are cancel-safe: a watch and an mpsc receiver.
            let message = tokio::select! {
                changed = config.changed() => {
                    changed.ok()?;
                    let Some(config) = config.borrow_and_update().clone() else { continue };
                    OrchestratorMessage::Config((*config).clone())
                }
                request = sessions.recv() => OrchestratorMessage::OpenSession(request?),
            };
            return Some((Ok(proto::OrchestratorMessage::from(&message)), (config, sessions)));
        }
    })
}

/// From the agent to whoever opened the session.
async fn forward(mut incoming: Streaming<proto::SessionFrame>, to: mpsc::Sender<SessionFrame>) {
    loop {
        // Cancel-safe: nothing is lost that anybody still wants when the reader is gone.
        let frame = tokio::select! {
            frame = incoming.message() => frame,
            () = to.closed() => return,
        };
        let frame = match frame {
            Ok(Some(frame)) => {
                SessionFrame::try_from(frame).unwrap_or_else(|e| SessionFrame::Error(e.to_string()))
            }
            Ok(None) => return,
            Err(status) => SessionFrame::Error(format!("the agent's stream broke: {}", status.message())),
        };
        let last = matches!(frame, SessionFrame::Error(_) | SessionFrame::Exit(_));
        if to.send(frame).await.is_err() || last {
            return;
        }
    }
}
