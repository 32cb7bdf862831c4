//! The PCRF as a PGW sees it: over TCP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use gantry_lab_diameter::codes::{application, avp, command, result};
use gantry_lab_diameter::{Application, Avp, Identity, Message, Node, Peer, Service, VENDOR_3GPP};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Pgw(Identity);

impl Service for Pgw {
    async fn answer(&self, request: Message, _from: &Peer) -> Message {
        request.unknown(&self.0)
    }
}

fn identity() -> Identity {
    Identity {
        host: "pgw1.epc.lab".to_owned(),
        realm: "epc.lab".to_owned(),
        address: Ipv4Addr::LOCALHOST,
        product: "test",
        applications: vec![Application {
            id: application::GX,
            vendor: VENDOR_3GPP,
        }],
    }
}

fn page(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The PCRF, its ports for peers and for metrics, and where its configuration is. It may open so many files.
fn start(files: u32) -> (Server, [u16; 2], tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let free = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [port, metrics] = free
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().port());
    drop(free);
    let config = place.path().join("pcrf.yaml");
    let text = format!("host: pcrf.epc.lab\nrealm: epc.lab\nport: {port}\nmetricsPort: {metrics}\n");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh"]);
    command.args([
        env!("CARGO_BIN_EXE_lab-pcrf"),
        "--address",
        "127.0.0.1",
        "--config",
    ]);
    let server = Server(command.arg(&config).spawn().unwrap());
    (server, [port, metrics], place)
}

/// A PGW that is connected.
async fn connected(port: u16) -> Node<Pgw> {
    let node = Node::new(identity(), Pgw(identity()));
    let other = node.clone();
    tokio::spawn(async move {
        let to = format!("127.0.0.1:{port}");
        other.keep_connected(&to, &CancellationToken::new()).await;
    });
    let begun = Instant::now();
    while node.connected() != ["pcrf.epc.lab"] {
        assert!(begun.elapsed() < PATIENCE, "the PCRF is not there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_nobody_is_taken_and_with_them_everybody_again() {
    let (_server, [port, _], _place) = start(32);
    connected(port).await;
    let many: Vec<_> = (0..60).map(|_| TcpStream::connect(("127.0.0.1", port))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(many);
    connected(port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_come_and_go() {
    let (_server, [port, metrics], _place) = start(1024);
    let node = connected(port).await;
    let ask = async |session: &str, kind: u32| {
        let mut avps = vec![Avp::text(avp::SESSION_ID, session)];
        avps.extend(identity().origin());
        avps.push(Avp::text(avp::DESTINATION_REALM, "epc.lab"));
        avps.push(Avp::number(avp::CC_REQUEST_TYPE, kind));
        avps.push(Avp::number(avp::CC_REQUEST_NUMBER, 0));
        let request = Message::request(application::GX, command::CREDIT_CONTROL, avps);
        node.request(request).await.unwrap().result()
    };
    assert_eq!(ask("a", 1).await, Some(result::SUCCESS));
    assert_eq!(ask("b", 1).await, Some(result::SUCCESS));
    assert_eq!(ask("a", 3).await, Some(result::SUCCESS));
    assert_eq!(ask("never", 3).await, Some(result::SUCCESS));
    let (text, health) = (page(metrics, "/metrics"), page(metrics, "/healthz"));
    assert!(
        text.contains("pcrf_sessions_at{pgw=\"pgw1.epc.lab\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("pcrf_unknown_sessions_total{command=\"CCR-T\"} 1\n"),
        "{text}"
    );
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
}
