//! The link against a real server on the loopback with mutual TLS, and DNS over real sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gantry_nodeagent_api::proto::node_service_server::{NodeService, NodeServiceServer};
use gantry_nodeagent_api::*;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Orchestrator;
use super::dns::{Bounds, Rate, Server, Table};
use super::link::Link;
use crate::core::Event;

const PATIENCE: Duration = Duration::from_secs(20);

/// Passes on what agents say, and gives each of them one configuration.
struct Fake {
    heard: mpsc::Sender<AgentMessage>,
    config: NodeConfig,
    gone: CancellationToken,
}

type Out<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for Fake {
    type AttachStream = Out<proto::OrchestratorMessage>;
    type SessionStream = Out<proto::SessionFrame>;

    async fn attach(
        &self,
        request: Request<Streaming<proto::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut inbound = request.into_inner();
        let (heard, gone, (out, stream)) = (self.heard.clone(), self.gone.clone(), mpsc::channel(4));
        let config = OrchestratorMessage::Config(self.config.clone());
        out.try_send(Ok((&config).into()))
            .map_err(|_| Status::internal("full"))?;
        tokio::spawn(async move {
            let listen = async {
                while let Ok(Some(message)) = inbound.message().await {
                    let message = AgentMessage::try_from(message).unwrap();
                    if heard.send(message).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = listen => {}
                () = gone.cancelled() => {}
            }
            drop(out);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn session(
        &self,
        _: Request<Streaming<proto::SessionFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

/// A certificate authority, and files of an agent's identity in `dir`.
fn identities(dir: &Path) -> (Arc<rustls::ServerConfig>, Orchestrator) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &ca)
            .unwrap();
        (cert, key)
    };
    let (cert, key) = issue("node-a");
    let file = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let to = Orchestrator {
        host: "127.0.0.1".to_owned(),
        port: 0,
        ca: file("ca.pem", ca.pem()),
        cert: file("cert.pem", cert.pem()),
        key: file("key.pem", key.serialize_pem()),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (cert, key) = issue("127.0.0.1");
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (Arc::new(config), to)
}

/// Serves `fake` on `address` until cancelled; returns the address.
async fn serve(
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    fake: Fake,
    cancel: CancellationToken,
) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, connections) = mpsc::channel(4);
    let accepting = cancel.clone();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let stream = acceptor.accept(accepted.unwrap().0).await.map(TlsConnection);
                    if sender.send(stream).await.is_err() {
                        return;
                    }
                }
                () = accepting.cancelled() => return,
            }
        }
    });
    let server = tonic::transport::Server::builder().add_service(NodeServiceServer::new(fake));
    tokio::spawn(async move {
        tokio::select! {
            ended = server.serve_with_incoming(ReceiverStream::new(connections)) => ended.unwrap(),
            () = cancel.cancelled() => {}
        }
    });
    address
}

/// tonic wants to know about its connections.
struct TlsConnection(tokio_rustls::server::TlsStream<tokio::net::TcpStream>);

impl tonic::transport::server::Connected for TlsConnection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn next<T>(from: &mut mpsc::Receiver<T>) -> T {
    tokio::time::timeout(PATIENCE, from.recv())
        .await
        .expect("in time")
        .expect("not closed")
}

fn hello() -> Hello {
    Hello {
        node: "node-a".to_owned(),
        boot_id: String::new(),
        agent_version: String::new(),
        kernel_version: String::new(),
        address: "127.0.0.1".parse().unwrap(),
        topology: Default::default(),
        reserved: Default::default(),
        reserved_memory_bytes: 0,
        storage: Default::default(),
        generation: Generation(0),
        cluster: String::new(),
    }
}

#[tokio::test]
async fn the_link_says_hello_then_status_and_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, mut to) = identities(dir.path());
    let (heard, mut messages) = mpsc::channel(16);
    let config = NodeConfig {
        generation: Generation(7),
        ..NodeConfig::default()
    };
    let fake = |gone: &CancellationToken| Fake {
        heard: heard.clone(),
        config: config.clone(),
        gone: gone.clone(),
    };
    let first = CancellationToken::new();
    let address = serve(
        "127.0.0.1:0".parse().unwrap(),
        tls.clone(),
        fake(&first),
        first.clone(),
    )
    .await;
    to.port = address.port();

    let (status, statuses) = watch::channel(None);
    let (refusals, refused) = mpsc::channel(4);
    let (events_in, mut events) = mpsc::channel(16);
    let (sessions, _requests) = mpsc::channel(4);
    let link = Link {
        to,
        hello: hello(),
        status: statuses,
        refusals: refused,
        events: events_in,
        sessions,
    };
    let cancel = CancellationToken::new();
    let running = tokio::spawn(link.run(cancel.clone()));

    let own = Arc::new(NodeStatus {
        accepted: Generation(5),
        ..NodeStatus::default()
    });
    status.send_replace(Some(own.clone()));
    let AgentMessage::Hello(said) = next(&mut messages).await else {
        panic!("no hello")
    };
    assert_eq!((said.node.as_str(), said.generation), ("node-a", Generation(5)));
    assert_eq!(next(&mut messages).await, AgentMessage::Status((*own).clone()));
    assert_eq!(next(&mut events).await, Event::Connected);
    assert_eq!(next(&mut events).await, Event::Config(Box::new(config.clone())));
    let no = Refused {
        generation: Generation(7),
        reason: "no".to_owned(),
    };
    refusals.send(no.clone()).await.unwrap();
    assert_eq!(next(&mut messages).await, AgentMessage::Refused(no));

    // The orchestrator goes, and comes back at the same place.
    first.cancel();
    let second = CancellationToken::new();
    let begun = std::time::Instant::now();
    while std::net::TcpListener::bind(address).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the port stays in use");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    serve(address, tls, fake(&second), second.clone()).await;
    assert!(matches!(next(&mut messages).await, AgentMessage::Hello(_)));
    assert_eq!(next(&mut messages).await, AgentMessage::Status((*own).clone()));
    cancel.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    second.cancel();
}

/// A DNS server on the loopback, until it is dropped.
struct Dns {
    port: u16,
    refused: Arc<std::sync::atomic::AtomicU64>,
    _tables: watch::Sender<Option<Arc<Table>>>,
    _end: tokio_util::sync::DropGuard,
}

impl Dns {
    /// One of sixty addresses; addresses of the loopback are pods of these namespaces.
    fn start(pods: &[(&str, &str)], places: Bounds, resolv_conf: &Path) -> Self {
        let network = NodeNetwork {
            pod_cidr: "127.0.0.0/24".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            gateway: "127.0.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        };
        let pods = pods
            .iter()
            .map(|(at, namespace)| (at.parse().unwrap(), (*namespace).to_owned()));
        let addresses: Vec<IpAddr> = (0..60).map(|i| IpAddr::from([10, 86, 0, i])).collect();
        let table = Table::new(
            &network,
            pods.collect(),
            [("many.core.svc.cluster.local".to_owned(), addresses)].into(),
            BTreeMap::new(),
        );
        let (tables_in, tables) = watch::channel(Some(Arc::new(table)));
        let port = {
            let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            probe.local_addr().unwrap().port()
        };
        let cancel = CancellationToken::new();
        let server = Server {
            tables,
            port,
            resolv_conf: resolv_conf.to_owned(),
            rate: Rate::default(),
            places,
            refused: Arc::default(),
            events: mpsc::channel(1).0,
        };
        let refused = server.refused.clone();
        tokio::spawn(server.run(cancel.clone()));
        Self {
            port,
            refused,
            _tables: tables_in,
            _end: cancel.drop_guard(),
        }
    }

    fn refused(&self) -> u64 {
        self.refused.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn udp(&self, from: &str) -> tokio::net::UdpSocket {
        let udp = tokio::net::UdpSocket::bind((from, 0)).await.unwrap();
        udp.connect(("127.0.0.1", self.port)).await.unwrap();
        udp
    }

    /// As soon as it serves.
    async fn tcp(&self, from: &str) -> tokio::net::TcpStream {
        let begun = std::time::Instant::now();
        loop {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
            match socket
                .connect(SocketAddr::from(([127, 0, 0, 1], self.port)))
                .await
            {
                Ok(stream) => return stream,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

const MANY: &str = "many.core.svc.cluster.local.";

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut query = Message::new();
    query
        .set_id(id)
        .set_message_type(MessageType::Query)
        .set_op_code(OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query.to_vec().unwrap()
}

async fn answer(udp: &tokio::net::UdpSocket) -> Message {
    let mut buffer = vec![0; 4096];
    let length = tokio::time::timeout(PATIENCE, udp.recv(&mut buffer)).await;
    Message::from_vec(&buffer[..length.expect("it is answered").unwrap()]).unwrap()
}

/// Asks in one piece; what the first read of the answer has.
async fn ask(tcp: &mut tokio::net::TcpStream, message: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    tcp.write_all(&[&length, message].concat()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let length = tokio::time::timeout(PATIENCE, tcp.read(&mut buffer)).await;
    buffer.truncate(length.expect("it is answered").unwrap());
    buffer
}

#[tokio::test]
async fn dns_answers_over_udp_and_tcp() {
    let dns = Dns::start(&[], Bounds::default(), "/nonexistent".as_ref());
    let port = dns.port;
    let query = |name: &str| question(9, name);
    let udp = dns.udp("127.0.0.1").await;
    let mut buffer = vec![0; 4096];
    let answer = loop {
        let _ = udp.send(&query("many.core.svc.cluster.local.")).await;
        if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(200), udp.recv(&mut buffer)).await
        {
            break Message::from_vec(&buffer[..length]).unwrap();
        }
    };
    assert!(answer.truncated(), "sixty addresses do not fit 512 bytes");
    udp.send(&query("example.org.")).await.unwrap();
    let length = udp.recv(&mut buffer).await.unwrap();
    assert_eq!(
        Message::from_vec(&buffer[..length]).unwrap().response_code(),
        ResponseCode::ServFail
    );

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let bytes = query("many.core.svc.cluster.local.");
    tcp.write_u16(bytes.len() as u16).await.unwrap();
    tcp.write_all(&bytes).await.unwrap();
    let mut whole = vec![0; tcp.read_u16().await.unwrap().into()];
    tcp.read_exact(&mut whole).await.unwrap();
    assert_eq!(Message::from_vec(&whole).unwrap().answers().len(), 60);

    // Clients that connect and say nothing, more than there are places and room in the queue before them.
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    udp.send(&bytes).await.unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(5), udp.recv(&mut buffer)).await;
    answered.expect("they hold up nobody on UDP").unwrap();

    // One that floods, with questions and with what is none, is slowed down; its neighbour gets every answer.
    let stop = CancellationToken::new();
    let flood = std::thread::spawn({
        let (stop, bytes) = (stop.clone(), query("none.core.svc.cluster.local."));
        move || {
            let socket = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
            while !stop.is_cancelled() {
                let _ = socket.send_to(&bytes, ("127.0.0.1", port));
                let _ = socket.send_to(&bytes[..13], ("127.0.0.1", port));
            }
        }
    });
    for _ in 0..200 {
        udp.send(&bytes).await.unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(5), udp.recv(&mut buffer)).await;
        answered.expect("the neighbour's flood takes no answers").unwrap();
    }
    stop.cancel();
    flood.join().unwrap();
    assert!(dns.refused() > 0);
}

#[tokio::test]
async fn dns_over_tcp_answers_in_one_piece_for_as_long_as_it_is_asked() {
    use tokio::io::AsyncReadExt;
    let places = Bounds {
        idle: Duration::from_secs(1),
        ..Bounds::default()
    };
    let dns = Dns::start(&[], places, "/nonexistent".as_ref());
    let mut tcp = dns.tcp("127.0.0.1").await;
    let begun = std::time::Instant::now();
    let mut questions = 0;
    while begun.elapsed() < Duration::from_millis(2500) {
        let whole = ask(&mut tcp, &question(questions, MANY)).await;
        let message = Message::from_vec(&whole[2..]).expect("length and answer come together");
        assert_eq!((message.id(), message.answers().len()), (questions, 60));
        questions = questions.wrapping_add(1);
        // Far below the rate of a pod.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What is no question is answered so too, and a client that says nothing more is left.
    let malformed = ask(&mut tcp, &question(7, MANY)[..20]).await;
    let told = Message::from_vec(&malformed[2..]).unwrap();
    assert_eq!((told.id(), told.response_code()), (7, ResponseCode::FormErr));
    let end = tokio::time::timeout(PATIENCE, tcp.read_u8()).await;
    assert!(end.expect("it is idle").is_err());
    let udp = dns.udp("127.0.0.1").await;
    udp.send(&question(8, MANY)[..20]).await.unwrap();
    assert_eq!(answer(&udp).await.response_code(), ResponseCode::FormErr);
}

#[tokio::test]
async fn whoever_has_most_dns_connections_gives_way() {
    use tokio::io::AsyncReadExt;
    let places = Bounds {
        connections: (2, 4),
        ..Bounds::default()
    };
    let pods = [("127.0.0.2", "many"), ("127.0.0.3", "many"), ("127.0.0.4", "few")];
    let dns = Dns::start(&pods, places, "/nonexistent".as_ref());
    let mut held = Vec::new();
    for from in ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"] {
        let mut tcp = dns.tcp(from).await;
        ask(&mut tcp, &question(1, MANY)).await;
        held.push(tcp);
    }
    assert_eq!(dns.refused(), 0);
    let mut neighbour = dns.tcp("127.0.0.4").await;
    let answered = ask(&mut neighbour, &question(2, MANY)).await;
    assert!(answered.len() > 500, "the neighbour is answered");
    // The oldest of one of the two pods, and nobody else's.
    let (first, rest) = held.split_at_mut(2);
    let [one, two] = first else { panic!("four") };
    // Cancel-safe: a connection that has ended says so again.
    tokio::select! {
        ended = one.read_u8() => assert!(ended.is_err()),
        ended = two.read_u8() => assert!(ended.is_err()),
        () = tokio::time::sleep(PATIENCE) => panic!("nobody gave way"),
    }
    for tcp in rest {
        assert!(ask(tcp, &question(3, MANY)).await.len() > 500);
    }
    assert_eq!(dns.refused(), 1);
}

#[tokio::test]
async fn a_question_for_others_without_a_place_is_answered_at_once() {
    let places = |forwards| Bounds {
        forwards,
        ..Bounds::default()
    };
    let none = Dns::start(&[], places((0, 8)), "/nonexistent".as_ref());
    none.tcp("127.0.0.1").await;
    let udp = none.udp("127.0.0.1").await;
    udp.send(&question(1, "example.org.")).await.unwrap();
    assert_eq!(answer(&udp).await.response_code(), ResponseCode::ServFail);
    assert_eq!(none.refused(), 1);

    // A server that takes its time.
    let Ok(slow) = tokio::net::UdpSocket::bind("127.0.0.77:53").await else {
        println!("SKIPPED: port 53 cannot be had");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let resolv_conf = dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.77\n").unwrap();
    let pods = [("127.0.0.2", "many"), ("127.0.0.3", "few")];
    let dns = Dns::start(&pods, places((8, 2)), &resolv_conf);
    dns.tcp("127.0.0.1").await;
    let (many, few) = (dns.udp("127.0.0.2").await, dns.udp("127.0.0.3").await);
    let mut asked = Vec::new();
    for (id, from) in [(1, &many), (2, &many), (3, &few)] {
        from.send(&question(id, "example.org.")).await.unwrap();
        let mut buffer = vec![0; 512];
        let (length, to) = tokio::time::timeout(PATIENCE, slow.recv_from(&mut buffer))
            .await
            .expect("it is passed on")
            .unwrap();
        buffer.truncate(length);
        asked.push((buffer, to));
    }
    let gave_way = answer(&many).await;
    assert_eq!(
        (gave_way.id(), gave_way.response_code()),
        (1, ResponseCode::ServFail)
    );
    for (mut message, to) in asked.into_iter().skip(1) {
        // An answer, and no error.
        message[2] |= 0x80;
        slow.send_to(&message, to).await.unwrap();
    }
    for (id, from) in [(2, &many), (3, &few)] {
        let answered = answer(from).await;
        assert_eq!(
            (answered.id(), answered.response_code()),
            (id, ResponseCode::NoError)
        );
    }
}
