//! An orchestrator of paper: real TLS, real gRPC; tells one agent what it is told to, and keeps what it hears.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gantry_nodeagent_api::proto::node_service_server::{NodeService, NodeServiceServer};
use gantry_nodeagent_api::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub const PATIENCE: Duration = Duration::from_secs(180);

/// What is said and what was heard.
#[derive(Clone)]
pub struct Orchestrator {
    pub port: u16,
    pub dir: PathBuf,
    config: Arc<watch::Sender<NodeConfig>>,
    opens: Arc<Mutex<Option<mpsc::Sender<OrchestratorMessage>>>>,
    pub heard: Arc<Mutex<Vec<AgentMessage>>>,
    sessions: Arc<Mutex<Vec<SessionFrame>>>,
    stdin: Arc<Mutex<Vec<SessionFrame>>>,
}

type Out<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for Orchestrator {
    type AttachStream = Out<proto::OrchestratorMessage>;
    type SessionStream = Out<proto::SessionFrame>;

    async fn attach(
        &self,
        request: Request<Streaming<proto::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut inbound = request.into_inner();
        let (heard, mut config) = (self.heard.clone(), self.config.subscribe());
        let (out, stream) = mpsc::channel(4);
        let (opens, mut open) = mpsc::channel(4);
        *self.opens.lock().unwrap() = Some(opens);
        tokio::spawn(async move {
            config.mark_changed();
            loop {
                let message = tokio::select! {
                    message = inbound.message() => {
                        let Ok(Some(message)) = message else { return };
                        heard.lock().unwrap().push(AgentMessage::try_from(message).unwrap());
                        continue;
                    }
                    changed = config.changed() => {
                        if changed.is_err() { return }
                        OrchestratorMessage::Config(config.borrow_and_update().clone())
                    }
                    Some(message) = open.recv() => message,
                };
                if out.send(Ok((&message).into())).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn session(
        &self,
        request: Request<Streaming<proto::SessionFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut inbound = request.into_inner();
        let frames = self.sessions.clone();
        let (out, stream) = mpsc::channel(16);
        for frame in self.stdin.lock().unwrap().drain(..) {
            out.try_send(Ok(frame.into())).unwrap();
        }
        tokio::spawn(async move {
            while let Ok(Some(frame)) = inbound.message().await {
                frames
                    .lock()
                    .unwrap()
                    .push(SessionFrame::try_from(frame).unwrap());
            }
            drop(out);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Orchestrator {
    /// Listens on a free port of the loopback; the agent's files are put in `dir`.
    pub async fn start(dir: &Path) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            (
                CertificateParams::new(vec![name.to_owned()])
                    .unwrap()
                    .signed_by(&key, &ca)
                    .unwrap(),
                key,
            )
        };
        let (cert, key) = issue("node-a");
        std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (cert, key) = issue("127.0.0.1");
        let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = Self {
            port: listener.local_addr().unwrap().port(),
            dir: dir.to_owned(),
            config: Arc::new(watch::channel(NodeConfig::default()).0),
            opens: Arc::default(),
            heard: Arc::default(),
            sessions: Arc::default(),
            stdin: Arc::default(),
        };
        let (sender, connections) = mpsc::channel(4);
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                // The server wants a type that tells about its connection: a duplex pipe of tokio does.
                let (near, mut far) = tokio::io::duplex(64 << 10);
                let mut stream = stream;
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
                if sender.send(Ok::<_, std::io::Error>(near)).await.is_err() {
                    return;
                }
            }
        });
        let server = tonic::transport::Server::builder().add_service(NodeServiceServer::new(own.clone()));
        tokio::spawn(async move {
            server
                .serve_with_incoming(ReceiverStream::new(connections))
                .await
                .unwrap()
        });
        own
    }

    pub fn wants(&self, config: &NodeConfig) {
        self.config.send_replace(config.clone());
    }

    /// The newest status.
    pub fn status(&self) -> Option<NodeStatus> {
        self.heard.lock().unwrap().iter().rev().find_map(|m| match m {
            AgentMessage::Status(status) => Some(status.clone()),
            _ => None,
        })
    }

    /// Waits for a status that `is` so.
    pub async fn until(&self, what: &str, is: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.status().filter(|status| is(status)) {
                return status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{what} never came: {:#?}",
                self.status()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Opens a session and waits for its end; all frames but the first.
    pub async fn session(&self, kind: SessionKind, stdin: Vec<SessionFrame>) -> Vec<SessionFrame> {
        self.sessions.lock().unwrap().clear();
        *self.stdin.lock().unwrap() = stdin;
        let open = OpenSession {
            id: "s1".to_owned(),
            kind,
        };
        let opens = self.opens.lock().unwrap().clone().unwrap();
        opens.send(OrchestratorMessage::OpenSession(open)).await.unwrap();
        let begun = Instant::now();
        loop {
            let frames = self.sessions.lock().unwrap().clone();
            if matches!(
                frames.last(),
                Some(SessionFrame::Exit(_) | SessionFrame::Error(_))
            ) {
                assert_eq!(frames[0], SessionFrame::Open("s1".to_owned()));
                return frames[1..].to_vec();
            }
            assert!(begun.elapsed() < PATIENCE, "the session never ends: {frames:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
