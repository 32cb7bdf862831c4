//! A node's connections as the other end sees them: over TCP.

use std::net::Ipv4Addr;
use std::time::Duration;

use gantry_lab_diameter::codes::{application, avp, command, result};
use gantry_lab_diameter::{Application, Avp, Avps, Identity, Message, Node, Peer, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);
const USER_DATA: usize = 100 << 10;

/// Answers at length.
struct Long;

impl Service for Long {
    async fn answer(&self, request: Message, _from: &Peer) -> Message {
        request.answer(vec![Avp::octets(avp::USER_DATA, vec![0; USER_DATA])])
    }
}

fn identity(host: &str) -> Identity {
    Identity {
        host: host.to_owned(),
        realm: "ims.lab".to_owned(),
        address: Ipv4Addr::LOCALHOST,
        product: "test",
        applications: vec![Application {
            id: application::CX,
            vendor: 0,
        }],
    }
}

struct Server {
    node: Node<Long>,
    port: u16,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (node, stop) = (Node::new(identity("hss.ims.lab"), Long), CancellationToken::new());
        let (other, until) = (node.clone(), stop.clone());
        let ended = tokio::spawn(async move { other.serve(listener, until).await });
        Self {
            node,
            port,
            stop,
            ended,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// With capabilities exchanged.
    async fn peer(&self) -> TcpStream {
        let mut stream = self.connect().await;
        let mut avps = identity("peer.ims.lab").origin();
        avps.push(Avp::number(avp::AUTH_APPLICATION_ID, application::CX));
        say(&mut stream, command::CAPABILITIES_EXCHANGE, avps).await;
        let answer = hear(&mut stream).await.unwrap();
        assert_eq!(answer.result(), Some(result::SUCCESS));
        stream
    }

    async fn stopped(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.ended).await;
        ended.expect("it does not stop").unwrap();
        assert!(self.node.connected().is_empty(), "a connection stays");
    }
}

async fn say(stream: &mut TcpStream, command: u32, avps: Vec<Avp>) {
    let request = Message::request(application::BASE, command, avps);
    stream.write_all(&request.encode()).await.unwrap();
}

/// The next message, or that the connection has ended.
async fn hear(stream: &mut TcpStream) -> Option<Message> {
    let heard = async {
        let mut bytes = vec![0; 4];
        stream.read_exact(&mut bytes).await.ok()?;
        let length = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]);
        bytes.resize(length as usize, 0);
        stream.read_exact(&mut bytes[4..]).await.ok()?;
        Some(Message::decode(&bytes).unwrap())
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("it is silent")
}

#[tokio::test]
async fn a_farewell_is_answered_after_what_was_asked_before() {
    let server = Server::start().await;
    for _ in 0..20 {
        let mut peer = server.peer().await;
        say(
            &mut peer,
            command::DISCONNECT_PEER,
            identity("peer.ims.lab").origin(),
        )
        .await;
        let answer = hear(&mut peer).await.expect("the farewell is not answered");
        assert_eq!(answer.header.command, command::DISCONNECT_PEER);
        assert_eq!(answer.result(), Some(result::SUCCESS));
    }
    server.stopped().await;
}

#[tokio::test]
async fn whoever_stops_says_farewell_first_and_waits_until_it_is_heard() {
    let server = Server::start().await;
    let mut peer = server.peer().await;
    let stopped = tokio::spawn(server.stopped());
    let farewell = hear(&mut peer).await.expect("no farewell");
    assert_eq!(farewell.header.command, command::DISCONNECT_PEER);
    assert_eq!(farewell.avps.number(avp::DISCONNECT_CAUSE), Some(0));
    assert!(!stopped.is_finished());
    peer.write_all(&farewell.answer(identity("peer.ims.lab").done()).encode())
        .await
        .unwrap();
    stopped.await.unwrap();
    assert_eq!(hear(&mut peer).await, None);
}

#[tokio::test]
async fn a_peer_that_does_not_read_keeps_nobody_from_stopping() {
    let server = Server::start().await;
    let mut peer = server.peer().await;
    let asking = async {
        loop {
            say(&mut peer, command::LOCATION_INFO, vec![]).await;
        }
    };
    // Until nothing more is taken of it.
    let _ = tokio::time::timeout(Duration::from_secs(1), asking).await;
    server.stopped().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused_and_taken_again_later() {
    let server = Server::start().await;
    let mut peers = Vec::new();
    for _ in 0..64 {
        peers.push(server.peer().await);
    }
    let mut one_too_many = server.connect().await;
    let heard = tokio::time::timeout(Duration::from_secs(1), hear(&mut one_too_many)).await;
    assert_eq!(heard, Ok(None));
    drop(peers.pop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.peer().await;
    server.stopped().await;
}
