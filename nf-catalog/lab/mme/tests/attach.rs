//! The MME between an HSS, an SGW and an eNB that are this test's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gantry_lab_aka::{Key, Seen, Sqn};
use gantry_lab_diameter::codes::{application, avp, command};
use gantry_lab_diameter::{
    Application, Avp, Identity, Message as Diameter, Node, Peer, Service, VENDOR_3GPP,
};
use gantry_lab_gtp::{Message, kind};
use gantry_lab_radio::{Bytes, Down, Tunnel, Up, line, read};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
const IMSI: &str = "001010000000001";
/// A Create Session Response: accepted, S11 F-TEID 7, address 10.45.0.2, S1-U F-TEID 8 at 10.0.0.2.
const CREATED: &str = "020002001000 570009008b000000070a000002 4f000500010a2d0002 5d0012004900010005570009008100000008 0a000002";
const ACCEPTED: &str = "020002001000";
const CONTEXT_NOT_FOUND: &str = "020002004000";

fn key() -> Key {
    Key::new([1; 16], [2; 16])
}

/// Knows one subscriber, and counts from 1.
struct Hss(Mutex<u64>);

impl Service for Hss {
    async fn answer(&self, request: Diameter, _from: &Peer) -> Diameter {
        let mut avps = identity().done();
        if request.header.command == command::AUTHENTICATION_INFORMATION {
            let mut number = self.0.lock().unwrap();
            *number += 1;
            let vector = key().eps_vector([7; 16], Sqn::new(*number << 5));
            let parts = [
                Avp::octets(avp::RAND, vector.rand),
                Avp::octets(avp::XRES, vector.xres),
                Avp::octets(avp::AUTN, vector.autn),
            ];
            let vector = Avp::group(avp::E_UTRAN_VECTOR, &parts);
            avps.push(Avp::group(avp::AUTHENTICATION_INFO, &[vector]));
        }
        request.answer(avps)
    }
}

fn identity() -> Identity {
    Identity {
        host: "hss.epc.lab".to_owned(),
        realm: "epc.lab".to_owned(),
        address: Ipv4Addr::LOCALHOST,
        product: "test",
        applications: vec![Application {
            id: application::S6A,
            vendor: VENDOR_3GPP,
        }],
    }
}

/// Answers everything, the first of each kind only when it is repeated; the kinds that were asked. It knows nothing of the first session
/// that is to be deleted, and does not answer at all about the second.
fn sgw(socket: UdpSocket) -> std::sync::mpsc::Receiver<u8> {
    let (asked, kinds) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut bytes = [0; 2048];
        let mut deleted = Vec::new();
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let request = Message::decode(&bytes[..length]).unwrap();
            if !seen.contains(&request.kind) {
                seen.push(request.kind);
                continue;
            }
            if request.kind == kind::DELETE_SESSION_REQUEST && !deleted.contains(&request.sequence) {
                deleted.push(request.sequence);
            }
            let body = match (request.kind, deleted.len()) {
                (kind::CREATE_SESSION_REQUEST, _) => CREATED,
                (kind::DELETE_SESSION_REQUEST, 1) => CONTEXT_NOT_FOUND,
                (kind::DELETE_SESSION_REQUEST, 2) => continue,
                _ => ACCEPTED,
            };
            let header = Message {
                kind: request.kind + 1,
                ..request.clone()
            };
            let header = Message {
                elements: vec![],
                ..header
            }
            .encode();
            let body = hex(body);
            let mut answer = [&header[..], &body].concat();
            answer[3] = u8::try_from(answer.len() - 4).unwrap();
            socket.send_to(&answer, from).unwrap();
            if asked.send(request.kind).is_err() {
                return;
            }
        }
    });
    kinds
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Enb(BufReader<TcpStream>);

impl Enb {
    fn say(&mut self, message: &Up) {
        self.0.get_mut().write_all(line(message).as_bytes()).unwrap();
    }

    fn hear(&mut self) -> Down {
        let mut text = String::new();
        self.0.read_line(&mut text).unwrap();
        read(&text).unwrap()
    }

    /// Answers a challenge with this key.
    fn show(&mut self, key: &Key, seen: &mut Seen) {
        let Down::Challenge { rand, autn, .. } = self.hear() else {
            panic!("a challenge was due")
        };
        let answer = key.answer(&rand.0, &autn.0, seen);
        let res = Bytes(answer.map_or([0; 8], |answer| answer.res));
        let imsi = IMSI.to_owned();
        self.say(&Up::Response { imsi, res });
    }
}

fn http(port: u16, request: &str) -> String {
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

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_device_attaches_and_is_ordered_out() {
    let hss = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hss_port = hss.local_addr().unwrap().port();
    let node = Node::new(identity(), Hss(Mutex::default()));
    tokio::spawn(async move { node.serve(hss, CancellationToken::new()).await });
    let gateway = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gateway_port = gateway.local_addr().unwrap().port();
    let asked = sgw(gateway);
    let free = [0; 4].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [enbs, gtp, metrics, control] = free
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().port());
    drop(free);
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("mme.yaml");
    let text = format!(
        "host: mme.epc.lab\nrealm: epc.lab\nconnect: [\"127.0.0.1:{hss_port}\"]\nplmn: \"00101\"\napn: internet\n\
         sgw: 127.0.0.1:{gateway_port}\npgw: 127.0.0.1\ns11: {{t3Ms: 200}}\nenbPort: {enbs}\ngtpPort: {gtp}\n\
         metricsPort: {metrics}\ncontrolPort: {control}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab-mme"));
    command.args(["--address", "127.0.0.1", "--config"]).arg(&config);
    let _server = Server(command.spawn().unwrap());
    tokio::task::block_in_place(|| {
        until("the MME is not there", || {
            TcpStream::connect(("127.0.0.1", metrics)).is_ok()
        });
        until("S6a is not open", || {
            http(metrics, "GET /healthz").starts_with("HTTP/1.1 200")
        });
        let stream = TcpStream::connect(("127.0.0.1", enbs)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        attach_and_leave(&mut Enb(BufReader::new(stream)), control);
    });
    let kinds: Vec<u8> = asked.try_iter().collect();
    let (create, modify) = (kind::CREATE_SESSION_REQUEST, kind::MODIFY_BEARER_REQUEST);
    let delete = kind::DELETE_SESSION_REQUEST;
    let expected = [create, modify, delete, create, modify, create, modify, delete];
    assert_eq!(kinds, expected);
    let text = http(metrics, "GET /metrics");
    for line in [
        "mme_attached 0",
        "mme_attaches_total 4",
        "mme_attach_failures_total{cause=\"wrong_answer\"} 1",
        "mme_other_failures_total{cause=\"gateway_silent\"} 1",
        "mme_s11_requests_total 9",
        "mme_s11_retransmissions_total 5",
        "mme_s6a_requests_total{command=\"AIR\"} 4",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
    }
}

fn attach_and_leave(enb: &mut Enb, control: u16) {
    let imsi = IMSI.to_owned();
    let mut seen = Seen::default();
    enb.say(&Up::Attach { imsi: imsi.clone() });
    enb.show(&Key::new([9; 16], [9; 16]), &mut seen);
    let rejected = Down::Rejected {
        imsi: imsi.clone(),
        cause: "wrong_answer".to_owned(),
    };
    assert_eq!(enb.hear(), rejected);
    // The second and third time the SGW no longer knows what was, or says nothing.
    for _ in 0..3 {
        attach(enb, &mut seen);
    }
    let answer = http(control, &format!("POST /reattach/{IMSI}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let order = Down::Detach { imsi, reattach: true };
    assert_eq!(enb.hear(), order);
}

fn attach(enb: &mut Enb, seen: &mut Seen) {
    let imsi = IMSI.to_owned();
    enb.say(&Up::Attach { imsi: imsi.clone() });
    enb.show(&key(), seen);
    let setup = Down::Setup {
        imsi: imsi.clone(),
        address: Ipv4Addr::new(10, 45, 0, 2),
        tunnel: Tunnel {
            address: Ipv4Addr::new(10, 0, 0, 2),
            teid: 8,
        },
    };
    assert_eq!(enb.hear(), setup);
    let tunnel = Tunnel {
        address: Ipv4Addr::LOCALHOST,
        teid: 1,
    };
    enb.say(&Up::Ready {
        imsi: imsi.clone(),
        tunnel,
    });
    assert_eq!(enb.hear(), Down::Accepted { imsi });
}
