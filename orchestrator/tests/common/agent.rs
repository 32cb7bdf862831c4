//! A stand-in for a node agent: the real gRPC client over mutual TLS, with answers from the test.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use gantry_nodeagent_api::proto::{self, node_service_client::NodeServiceClient};
use gantry_nodeagent_api::{AgentMessage, Hello, NodeStatus, OpenSession, OrchestratorMessage, SessionFrame};
use gantry_topology::{Cpu, NumaNode, Topology};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tower::ServiceExt;

use super::Server;

/// TLS of a client with the certificate `name` of the server's authority.
pub fn tls(dir: &Path, name: &str, alpn: &[u8]) -> tokio_rustls::TlsConnector {
    let file = |suffix: &str| dir.join("pki").join(suffix);
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(file("ca.crt")).unwrap())
        .unwrap();
    let certificate = CertificateDer::from_pem_file(file(&format!("{name}.crt"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// A channel with a certificate of the server's authority.
pub async fn channel(server: &Server, name: &str) -> Channel {
    channel_to(server.dir.path(), server.address, name).await.unwrap()
}

/// The same to a server that is another process, and may not be there.
pub async fn channel_to(
    dir: &Path,
    address: std::net::SocketAddr,
    name: &str,
) -> Result<Channel, tonic::transport::Error> {
    let tls = tls(dir, name, b"h2");
    let connector = tower::service_fn(move |_: http::Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let stream = tls
                .connect(ServerName::try_from("localhost").unwrap(), tcp)
                .await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
}

pub type Reply = http::Response<tonic::body::Body>;

/// An HTTP request as the administrator.
pub async fn send(server: &Server, method: &str, path: &str, kind: &str, body: String) -> Reply {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .header("content-type", kind)
        .body(tonic::body::Body::new(Full::from(body)))
        .unwrap();
    channel(server, "admin").await.oneshot(request).await.unwrap()
}

/// A machine of four CPUs and 4 GiB.
fn topology() -> Topology {
    let cpu = |id| Cpu {
        id,
        core: id,
        l3: 0,
        numa: 0,
        socket: 0,
    };
    let memory = NumaNode {
        id: 0,
        memory_bytes: 4 << 30,
        hugepages: Default::default(),
        distances: Default::default(),
    };
    Topology {
        cpus: (0..4).map(cpu).collect(),
        numa_nodes: vec![memory],
    }
}

/// What an agent says first.
pub fn hello(node: &str) -> Hello {
    Hello {
        node: node.to_owned(),
        boot_id: "b".to_owned(),
        agent_version: "0".to_owned(),
        kernel_version: "6".to_owned(),
        address: "127.0.0.1".parse().unwrap(),
        topology: topology(),
        reserved: Default::default(),
        reserved_memory_bytes: 0,
        storage: Default::default(),
        generation: Default::default(),
        cluster: String::new(),
    }
}

/// An attached agent.
pub struct Agent {
    pub client: NodeServiceClient<Channel>,
    pub up: mpsc::Sender<proto::AgentMessage>,
    pub down: Streaming<proto::OrchestratorMessage>,
}

impl Agent {
    /// Dials in with the certificate `file` and says it is `node`.
    pub async fn attach(server: &Server, file: &str, node: &str) -> Result<Self, Status> {
        let mut client = NodeServiceClient::new(channel(server, file).await);
        let (up, messages) = mpsc::channel(16);
        up.send(proto::AgentMessage::from(&AgentMessage::Hello(hello(node))))
            .await
            .unwrap();
        let down = client.attach(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { client, up, down })
    }

    /// Tells the orchestrator how the node is.
    pub async fn report(&self, status: NodeStatus) {
        let message = AgentMessage::Status(status);
        self.up.send(proto::AgentMessage::from(&message)).await.unwrap();
    }

    pub async fn next(&mut self) -> OrchestratorMessage {
        self.down
            .message()
            .await
            .unwrap()
            .expect("a message")
            .try_into()
            .unwrap()
    }

    pub async fn next_session(&mut self) -> OpenSession {
        loop {
            if let OrchestratorMessage::OpenSession(session) = self.next().await {
                return session;
            }
        }
    }

    /// Opens the session that was asked for: frames to the orchestrator, frames from it.
    pub async fn open(
        &mut self,
        id: &str,
    ) -> (
        mpsc::Sender<proto::SessionFrame>,
        impl futures::Stream<Item = SessionFrame> + Unpin + use<>,
    ) {
        let (up, frames) = mpsc::channel(16);
        up.send(SessionFrame::Open(id.to_owned()).into()).await.unwrap();
        let down = self
            .client
            .session(ReceiverStream::new(frames))
            .await
            .unwrap()
            .into_inner();
        let frames = down.filter_map(|frame| async { SessionFrame::try_from(frame.ok()?).ok() });
        (up, Box::pin(frames))
    }
}
