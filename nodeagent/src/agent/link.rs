//! The stream to the orchestrator: dialled for ever, status up, configurations and sessions down.

use std::sync::Arc;
use std::time::Duration;

use gantry_nodeagent_api::proto::node_service_client::NodeServiceClient;
use gantry_nodeagent_api::{
    AgentMessage, Generation, Hello, MAX_MESSAGE_BYTES, NodeStatus, OpenSession, OrchestratorMessage,
    Refused, proto,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::settings::Orchestrator;
use super::tls;
use crate::chain::chain;
use crate::core::Event;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_millis(1500);
/// Changes within this time go out as one status.
const COALESCE: Duration = Duration::from_millis(20);
const QUEUE: usize = 8;

/// A session that the orchestrator asked for, with the connection to answer on.
#[derive(Debug)]
pub(super) struct SessionRequest {
    pub(super) open: OpenSession,
    pub(super) client: NodeServiceClient<Channel>,
}

/// Keeps the stream up.
pub(super) struct Link {
    pub(super) to: Orchestrator,
    /// Everything but the generation.
    pub(super) hello: Hello,
    pub(super) status: watch::Receiver<Option<Arc<NodeStatus>>>,
    pub(super) refusals: mpsc::Receiver<Refused>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) sessions: mpsc::Sender<SessionRequest>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] tls::ConnectError),
    #[error("the orchestrator ended the stream")]
    Closed,
    #[error("the stream broke: {}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("the agent ends")]
    Shutdown,
}

impl Link {
    /// Connects, again and again, until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut wait = FIRST_WAIT;
        let mut told = false;
        loop {
            let mut up = false;
            // Cancel-safe: a stream that is dropped half-way is a broken one, which the orchestrator has to bear anyway.
            let ended = tokio::select! {
                ended = self.attach(&mut up) => ended,
                () = cancel.cancelled() => Ended::Shutdown,
            };
            if up {
                (wait, told) = (FIRST_WAIT, false);
            }
            match ended {
                Ended::Shutdown => return,
                error if told => tracing::debug!(error = chain(&error), "no orchestrator"),
                error => {
                    tracing::warn!(
                        error = chain(&error),
                        "no orchestrator; pods go on, it is tried again"
                    );
                    told = true;
                }
            }
            let jitter = rand::random_range(0.5..1.0);
            tokio::select! {
                () = tokio::time::sleep(wait.mul_f64(jitter)) => {}
                () = cancel.cancelled() => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn attach(&mut self, up: &mut bool) -> Ended {
        match self.stream(up).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn stream(&mut self, up: &mut bool) -> Result<std::convert::Infallible, Ended> {
        let channel = tls::connect(&self.to).await?;
        let mut client = NodeServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (out, stream) = mpsc::channel(QUEUE);
        // The core's first status tells the generation; before it there is nothing to say.
        let first = self
            .status
            .wait_for(Option::is_some)
            .await
            .map_err(|_| Ended::Shutdown)?
            .clone();
        let generation = first.map_or(Generation(0), |status| status.accepted);
        let hello = AgentMessage::Hello(Hello {
            generation,
            ..self.hello.clone()
        });
        out.try_send(wire(&hello)).map_err(|_| Ended::Closed)?;
        let mut inbound = client.attach(ReceiverStream::new(stream)).await?.into_inner();
        *up = true;
        tracing::info!(host = %self.to.host, port = self.to.port, "attached to the orchestrator");
        self.send(Event::Connected).await?;
        let mut due = Some(tokio::time::Instant::now());
        loop {
            // Every arm is cancel-safe: watch, mpsc, tonic streams and permits lose nothing when dropped.
            tokio::select! {
                changed = self.status.changed(), if due.is_none() => {
                    changed.map_err(|_| Ended::Shutdown)?;
                    due = Some(tokio::time::Instant::now() + COALESCE);
                }
                permit = ready(&out, due), if due.is_some() => {
                    let status = self.status.borrow_and_update().clone();
                    if let Some(status) = status {
                        permit.map_err(|_| Ended::Closed)?.send(wire(&AgentMessage::Status((*status).clone())));
                    }
                    due = None;
                }
                refused = self.refusals.recv() => {
                    let refused = refused.ok_or(Ended::Shutdown)?;
                    out.send(wire(&AgentMessage::Refused(refused))).await.map_err(|_| Ended::Closed)?;
                }
                message = inbound.message() => {
                    let message = message?.ok_or(Ended::Closed)?;
                    self.receive(message, &client, &out).await?;
                }
            }
        }
    }

    async fn receive(
        &self,
        message: proto::OrchestratorMessage,
        client: &NodeServiceClient<Channel>,
        out: &mpsc::Sender<proto::AgentMessage>,
    ) -> Result<(), Ended> {
        let generation = match &message.kind {
            Some(proto::orchestrator_message::Kind::Config(config)) => Some(Generation(config.generation)),
            _ => None,
        };
        match OrchestratorMessage::try_from(message) {
            Ok(OrchestratorMessage::Config(config)) => self.send(Event::Config(Box::new(config))).await,
            Ok(OrchestratorMessage::OpenSession(open)) => {
                let request = SessionRequest {
                    open,
                    client: client.clone(),
                };
                if self.sessions.try_send(request).is_err() {
                    tracing::warn!("too many sessions at once: one is not opened");
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the orchestrator sent a message that is none");
                let Some(generation) = generation else {
                    return Ok(());
                };
                let refused = AgentMessage::Refused(Refused {
                    generation,
                    reason: error.to_string(),
                });
                out.send(wire(&refused)).await.map_err(|_| Ended::Closed)
            }
        }
    }

    async fn send(&self, event: Event) -> Result<(), Ended> {
        self.events.send(event).await.map_err(|_| Ended::Shutdown)
    }
}

/// Room for one message, once it is due.
async fn ready(
    out: &mpsc::Sender<proto::AgentMessage>,
    due: Option<tokio::time::Instant>,
) -> Result<mpsc::Permit<'_, proto::AgentMessage>, mpsc::error::SendError<()>> {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
    out.reserve().await
}

fn wire(message: &AgentMessage) -> proto::AgentMessage {
    message.into()
}
