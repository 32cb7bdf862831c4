//! Ways into a pod that the orchestrator asks for: logs, commands, ports; and what all pods take. One `Session` stream each.

mod exec;
mod forward;
mod logs;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use gantry_nodeagent_api::{SessionFrame, SessionKind, proto};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::link::SessionRequest;
use super::pods::Pods;

/// Sessions at once; and as many more that are told that they are too many.
const AT_ONCE: usize = 256;
/// Frames on their way.
const QUEUE: usize = 4;
/// The other side has this long to take the last frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest piece of data in one frame, in bytes.
const CHUNK_BYTES: usize = 32 << 10;

/// Opens sessions as they are asked for, until cancelled.
pub(super) async fn run(
    pods: Arc<Pods>,
    mut requests: mpsc::Receiver<SessionRequest>,
    cancel: CancellationToken,
) {
    let [seats, refusals] = [AT_ONCE; 2].map(|count| Arc::new(Semaphore::new(count)));
    loop {
        // Cancel-safe: a request stays in the channel.
        let request = tokio::select! {
            request = requests.recv() => request,
            () = cancel.cancelled() => return,
        };
        let Some(request) = request else { return };
        let seat = seats.clone().try_acquire_owned();
        let pods = seat.is_ok().then(|| pods.clone());
        let Ok(permit) = seat.or_else(|_| refusals.clone().try_acquire_owned()) else {
            tracing::warn!(id = request.open.id, "too many sessions at once: not opened");
            continue;
        };
        tokio::spawn(async move {
            let id = request.open.id.clone();
            if let Err(error) = session(pods, request).await {
                tracing::warn!(id, error = error.message(), "session broke");
            }
            drop(permit);
        });
    }
}

/// Both directions of one session.
struct Pipe {
    out: mpsc::Sender<proto::SessionFrame>,
    inbound: tonic::Streaming<proto::SessionFrame>,
}

impl Pipe {
    /// False when nobody listens any more.
    async fn send(&self, frame: SessionFrame) -> bool {
        self.out.send(frame.into()).await.is_ok()
    }

    /// Ends our side and waits until the other has taken everything: dropping the stream at once would cancel it, and lose
    /// the frames still on their way.
    async fn close(self) {
        let Self { out, mut inbound } = self;
        drop(out);
        let drained = async { while let Ok(Some(_)) = inbound.message().await {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, drained).await.is_err() {
            tracing::debug!("the other side keeps its half of a session open");
        }
    }

    /// The next frame from the other side; `None` when it is gone. Cancel-safe.
    async fn receive(&mut self) -> Option<SessionFrame> {
        SessionFrame::try_from(self.inbound.message().await.ok()??).ok()
    }

    /// Both directions, each on its own.
    fn split(
        &mut self,
    ) -> (
        &mpsc::Sender<proto::SessionFrame>,
        &mut tonic::Streaming<proto::SessionFrame>,
    ) {
        (&self.out, &mut self.inbound)
    }
}

/// Uids and container names become parts of paths.
fn is_part(name: &str) -> bool {
    !name.contains(['/', '\0']) && name != "." && name != ".."
}

/// Whether a session is about something that can be in a pod's directory.
fn is_proper(kind: &SessionKind) -> bool {
    match kind {
        SessionKind::Logs { pod, container, .. } | SessionKind::Exec { pod, container, .. } => {
            !pod.is_empty() && is_part(pod) && is_part(container)
        }
        SessionKind::PortForward { pod, .. } => !pod.is_empty() && is_part(pod),
        SessionKind::Usage => true,
    }
}

/// Does what the request asks for; without pods there is no seat for it, and it is told so.
async fn session(pods: Option<Arc<Pods>>, mut request: SessionRequest) -> Result<(), tonic::Status> {
    let (out, stream) = mpsc::channel(QUEUE);
    let first = SessionFrame::Open(request.open.id);
    out.try_send(first.into())
        .map_err(|_| tonic::Status::internal("a new channel is full"))?;
    let inbound = request
        .client
        .session(ReceiverStream::new(stream))
        .await?
        .into_inner();
    let mut pipe = Pipe { out, inbound };
    let last = match pods {
        Some(pods) => serve(&pods, request.open.kind, &mut pipe).await,
        None => SessionFrame::Error(format!(
            "{AT_ONCE} commands, logs and ports are open on this node already: end some, or try again later"
        )),
    };
    pipe.send(last).await;
    pipe.close().await;
    Ok(())
}

/// Returns the last frame.
async fn serve(pods: &Arc<Pods>, kind: SessionKind, pipe: &mut Pipe) -> SessionFrame {
    match kind {
        kind if !is_proper(&kind) => SessionFrame::Error("that is no pod or no container".to_owned()),
        SessionKind::Logs {
            pod,
            container,
            follow,
            tail_lines,
            previous,
            since_ms,
            stream,
            timestamps,
        } => {
            let wanted = logs::Wanted {
                follow,
                tail_lines,
                previous,
                since_ms,
                stream,
                timestamps,
            };
            let dir = pods.runtime.pod(&pod);
            logs::run(&dir, &container, wanted, pipe).await
        }
        SessionKind::Exec {
            pod,
            container,
            argv,
            tty,
            stdin,
        } => exec::run(pods, &pod, &container, &argv, tty, stdin, pipe).await,
        SessionKind::PortForward { pod, port } => forward::run(pods, pod, port, pipe).await,
        SessionKind::Usage => usage::run(pods, pipe).await,
    }
}

/// The named container, or the first that the pod has on disk.
fn container_of(dir: &crate::runtime::PodDir, name: &str) -> Result<String, String> {
    if !name.is_empty() {
        return Ok(name.to_owned());
    }
    let states = dir.states().map_err(|e| e.to_string())?;
    states
        .into_iter()
        .next()
        .map(|s| s.name)
        .ok_or_else(|| "the pod has no container that ever ran".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_in_the_pods_directory() {
        let forward = |pod: &str| SessionKind::PortForward {
            pod: pod.to_owned(),
            port: 1,
        };
        assert!(is_proper(&forward("6b2b5e4a-0000-4000-8000-000000000000")));
        for pod in ["", "..", "../other", "/etc"] {
            assert!(!is_proper(&forward(pod)), "{pod}");
        }
    }
}
