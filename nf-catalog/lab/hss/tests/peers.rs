//! The server as its peers see it: over TCP, through restarts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gantry_lab_aka::{Key, Seen};
use gantry_lab_diameter::codes::{application, avp, command, result};
use gantry_lab_diameter::{Application, Avp, Avps, Identity, Message, Node, Peer, Service, VENDOR_3GPP};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
const SUBSCRIBERS: &str = "imsi,msisdn,k,opc\n\
    001010000000001,49001,01010101010101010101010101010101,02020202020202020202020202020202\n\
    001010000000002,49002,03030303030303030303030303030303,02020202020202020202020202020202\n";
const PRIVATE: &str = "001010000000001@ims.lab";
const PUBLIC: &str = "sip:001010000000001@ims.lab";
const S_CSCF: &str = "sip:scscf.ims.lab:5060";

struct Server {
    place: TempDir,
    ports: [u16; 3],
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file(place: &TempDir, name: &str) -> PathBuf {
    place.path().join(name)
}

fn command_line(place: &TempDir, ports: [u16; 3]) -> Command {
    let [port, metrics, control] = ports;
    let config = format!(
        "host: hss.ims.lab\nrealm: ims.lab\ndomain: ims.lab\nsubscribers: {}\nstate: {}\nsCscfs: [\"{S_CSCF}\"]\n\
         applicationServer: sip:as.ims.lab\nport: {port}\nmetricsPort: {metrics}\ncontrolPort: {control}\n",
        file(place, "subscribers.csv").display(),
        file(place, "hss.redb").display()
    );
    std::fs::write(file(place, "hss.yaml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab-hss"));
    command
        .args(["--address", "127.0.0.1", "--config"])
        .arg(file(place, "hss.yaml"));
    command
}

impl Server {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(file(&place, "subscribers.csv"), SUBSCRIBERS).unwrap();
        let free = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free
            .each_ref()
            .map(|listener| listener.local_addr().unwrap().port());
        drop(free);
        let child = command_line(&place, ports).spawn().unwrap();
        Self { place, ports, child }
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = command_line(&self.place, self.ports).spawn().unwrap();
    }

    fn http(&self, port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn metrics(&self) -> String {
        self.http(self.ports[1], "GET /metrics")
    }
}

/// An S-CSCF as far as the HSS asks it.
#[derive(Default)]
struct Cscf(Mutex<Vec<Message>>);

impl Service for Cscf {
    async fn answer(&self, request: Message, _from: &Peer) -> Message {
        let answer = request.answer(identity().done());
        self.0.lock().unwrap().push(request);
        answer
    }
}

fn identity() -> Identity {
    Identity {
        host: "scscf.ims.lab".to_owned(),
        realm: "ims.lab".to_owned(),
        address: Ipv4Addr::LOCALHOST,
        product: "test",
        applications: vec![Application {
            id: application::CX,
            vendor: VENDOR_3GPP,
        }],
    }
}

/// A node that is connected, and connects again.
async fn connected(server: &Server) -> (Node<Cscf>, CancellationToken) {
    let node = Node::new(identity(), Cscf::default());
    let stop = CancellationToken::new();
    let (other, until, to) = (
        node.clone(),
        stop.clone(),
        format!("127.0.0.1:{}", server.ports[0]),
    );
    tokio::spawn(async move { other.keep_connected(&to, &until).await });
    peer_is_there(&node).await;
    (node, stop)
}

async fn peer_is_there(node: &Node<Cscf>) {
    let begun = Instant::now();
    while node.connected() != ["hss.ims.lab"] {
        assert!(begun.elapsed() < PATIENCE, "the HSS is not there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn request(command: u32, more: Vec<Avp>) -> Message {
    let mut avps = vec![Avp::text(avp::SESSION_ID, format!("scscf.ims.lab;{command};1"))];
    avps.extend(identity().origin());
    avps.push(Avp::text(avp::DESTINATION_REALM, "ims.lab"));
    avps.push(Avp::text(avp::USER_NAME, PRIVATE));
    avps.push(Avp::text(avp::PUBLIC_IDENTITY, PUBLIC));
    avps.extend(more);
    Message::request(application::CX, command, avps)
}

fn auth_request() -> Message {
    let scheme = [Avp::text(avp::SIP_AUTHENTICATION_SCHEME, "Digest-AKAv1-MD5")];
    request(
        command::MULTIMEDIA_AUTH,
        vec![
            Avp::text(avp::SERVER_NAME, S_CSCF),
            Avp::group(avp::SIP_AUTH_DATA_ITEM, &scheme),
        ],
    )
}

/// RAND, AUTN and XRES of an answer.
fn vector(answer: &Message) -> ([u8; 16], [u8; 16], Vec<u8>) {
    let item = answer
        .avps
        .find(avp::SIP_AUTH_DATA_ITEM)
        .unwrap()
        .as_group()
        .unwrap();
    let challenge = &item.find(avp::SIP_AUTHENTICATE).unwrap().data;
    let (rand, autn) = challenge.split_at(16);
    let xres = item.find(avp::SIP_AUTHORIZATION).unwrap().data.clone();
    (rand.try_into().unwrap(), autn.try_into().unwrap(), xres)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_registered_found_and_remembered() {
    let mut server = Server::start();
    let (node, _stop) = connected(&server).await;
    let card = Key::new([1; 16], [2; 16]);
    let mut seen = Seen::default();
    let ask = async |request: Message| node.request(request).await.unwrap();

    let answer = ask(request(command::USER_AUTHORIZATION, vec![])).await;
    assert_eq!(answer.result(), Some(result::FIRST_REGISTRATION));
    assert_eq!(answer.text(avp::SERVER_NAME), S_CSCF);
    assert_eq!(answer.text(avp::SESSION_ID), "scscf.ims.lab;300;1");
    let answer = ask(request(command::LOCATION_INFO, vec![])).await;
    assert_eq!(answer.result(), Some(result::IDENTITY_NOT_REGISTERED));

    let (rand, autn, xres) = vector(&ask(auth_request()).await);
    let own = card
        .answer(&rand, &autn, &mut seen)
        .unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(own.res.as_slice(), xres);
    let assignment = vec![
        Avp::text(avp::SERVER_NAME, S_CSCF),
        Avp::number(avp::SERVER_ASSIGNMENT_TYPE, 1),
    ];
    let answer = ask(request(command::SERVER_ASSIGNMENT, assignment)).await;
    assert_eq!(answer.result(), Some(result::SUCCESS));
    let profile = answer.text(avp::USER_DATA);
    assert!(
        profile.contains("sip:as.ims.lab") && profile.contains("tel:+49001"),
        "{profile}"
    );

    server.restart();
    tokio::time::timeout(PATIENCE, async {
        while !node.connected().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    peer_is_there(&node).await;
    let answer = ask(request(command::LOCATION_INFO, vec![])).await;
    assert_eq!(
        (answer.result(), answer.text(avp::SERVER_NAME)),
        (Some(result::SUCCESS), S_CSCF)
    );
    let (rand, autn, _) = vector(&ask(auth_request()).await);
    assert!(
        card.answer(&rand, &autn, &mut seen).is_ok(),
        "a number came twice"
    );
    let metrics = server.metrics();
    assert!(
        metrics.contains("hss_registered 1\n") && metrics.contains("hss_requests_total{command=\"LIR\"} 1\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_moves_a_user_to_another_server() {
    let server = Server::start();
    let (node, _stop) = connected(&server).await;
    let assignment = vec![
        Avp::text(avp::SERVER_NAME, S_CSCF),
        Avp::number(avp::SERVER_ASSIGNMENT_TYPE, 1),
    ];
    node.request(request(command::SERVER_ASSIGNMENT, assignment))
        .await
        .unwrap();
    let order = |user: &str| server.http(server.ports[2], &format!("POST /release/{user}"));
    let answer = tokio::task::block_in_place(|| order(PRIVATE));
    assert!(answer.contains("scscf.ims.lab answered Some(2001)"), "{answer}");
    node.request(auth_request()).await.unwrap();
    let answer = tokio::task::block_in_place(|| order(PRIVATE));
    assert!(answer.contains("it did not serve it yet"), "{answer}");
    let asked = node.service().0.lock().unwrap();
    assert_eq!(asked.len(), 1, "nothing is ended where nothing was");
    let identities = asked[0]
        .avps
        .iter()
        .filter(|a| a.code == avp::PUBLIC_IDENTITY)
        .count();
    assert_eq!(
        (asked[0].header.command, identities),
        (command::REGISTRATION_TERMINATION, 3)
    );
    assert!(order("nobody").contains("404"), "an unknown user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_mistakes_get_an_answer_of_their_own() {
    let server = Server::start();
    let (node, _stop) = connected(&server).await;
    let ask = async |request: Message| node.request(request).await.unwrap().result();
    let mut unknown = request(command::USER_AUTHORIZATION, vec![]);
    unknown
        .avps
        .retain(|a| a.code != avp::USER_NAME && a.code != avp::PUBLIC_IDENTITY);
    assert_eq!(ask(unknown.clone()).await, Some(result::MISSING_AVP));
    unknown
        .avps
        .push(Avp::text(avp::PUBLIC_IDENTITY, "sip:stranger@ims.lab"));
    assert_eq!(ask(unknown.clone()).await, Some(result::USER_UNKNOWN));
    unknown
        .avps
        .push(Avp::text(avp::USER_NAME, "001010000000002@ims.lab"));
    unknown.avps.retain(|a| a.code != avp::PUBLIC_IDENTITY);
    unknown.avps.push(Avp::text(avp::PUBLIC_IDENTITY, PUBLIC));
    assert_eq!(ask(unknown).await, Some(result::IDENTITIES_DONT_MATCH));
    let other = Message::request(application::GX, command::CREDIT_CONTROL, vec![]);
    assert_eq!(ask(other).await, Some(result::COMMAND_UNSUPPORTED));
}

#[test]
fn a_wrong_file_is_told_with_its_place() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(file(&place, "subscribers.csv"), "imsi,msisdn,k,opc\n1,2,3,4\n").unwrap();
    let mut child = command_line(&place, [0; 3])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(!child.wait().unwrap().success());
    let text: Vec<String> = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .collect();
    let text = text.join("\n");
    assert!(
        text.contains("subscribers.csv") && text.contains("line 2, column 1: imsi must be 15 digits"),
        "{text}"
    );
}
