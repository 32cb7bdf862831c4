//! What one client can take of the server.

mod common;

use std::time::{Duration, Instant};

use common::Server;
use common::agent::{channel, send, tls};
use futures::StreamExt;
use gantry_orchestrator::apiserver::{ArrivingLimits, ConnectionLimits, Limits, ShareLimits, WriteOptions};
use gantry_orchestrator::kinds::named;
use gantry_orchestrator::pki;
use http_body_util::{BodyExt, StreamBody};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// An HTTP/1.1 connection of the administrator.
async fn plain(server: &Server) -> TlsStream<TcpStream> {
    let connector = tls(server.dir.path(), "admin", b"http/1.1");
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, tcp).await.unwrap()
}

/// All that comes until the server closes; fails after 20 s.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    // A connection may be reset as well as closed.
    let _ = tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("the server closes the connection");
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_patch_that_doubles_is_refused() {
    let server = Server::start();
    runtime().block_on(async {
        let map = json!({"metadata": {"name": "bomb"}, "data": {"a": "x".repeat(1000)}}).to_string();
        let made = send(&server, "POST", MAPS, "application/json", map).await;
        assert_eq!(made.status(), 201);
        let copies: Vec<Value> = (0..40)
            .map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/b{i}")}))
            .collect();
        let path = format!("{MAPS}/bomb");
        let patch = json!(copies).to_string();
        let reply = send(&server, "PATCH", &path, "application/json-patch+json", patch).await;
        assert_eq!(reply.status(), 413);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&status["kind"], &status["reason"]),
            (&json!("Status"), &json!("RequestEntityTooLarge"))
        );
        // Nor does a body that nobody could read again come in.
        for text in [
            "[".repeat(120) + &"]".repeat(120),
            format!("[{}0]", "0,".repeat(200_000)),
        ] {
            let body = format!("{{\"metadata\":{{\"name\":\"x\"}},\"data\":{text}}}");
            let reply = send(&server, "POST", MAPS, "application/json", body).await;
            assert_eq!(reply.status(), 413);
        }
    });
}

#[test]
fn a_client_that_still_sends_gets_to_know_that_it_is_too_much() {
    let server = Server::start();
    runtime().block_on(async {
        for head in ["Content-Length: 12000000", "Transfer-Encoding: chunked"] {
            let (mut read, mut write) = tokio::io::split(plain(&server).await);
            let start = format!("POST {MAPS} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n");
            let chunk = if head.starts_with('C') {
                vec![b'x'; 1000]
            } else {
                [&b"3E8\r\n"[..], &[b'x'; 1000], b"\r\n"].concat()
            };
            // All of it is taken: whoever sends first and reads then is not cut off before.
            write.write_all(start.as_bytes()).await.unwrap();
            for _ in 0..12_000 {
                write.write_all(&chunk).await.unwrap();
            }
            let mut answer = vec![0; 4096];
            let length = read.read(&mut answer).await.unwrap();
            let text = String::from_utf8_lossy(&answer[..length]);
            assert!(
                text.starts_with("HTTP/1.1 413") && text.contains("\"kind\":\"Status\""),
                "{text}"
            );
        }
    });
}

fn hasty() -> Limits {
    let short = Duration::from_millis(500);
    let default = Limits::default();
    Limits {
        body_time: short,
        connections: ConnectionLimits {
            head: short,
            idle: short,
            handshakes: 4,
            ..default.connections
        },
        ..default
    }
}

#[test]
fn what_is_half_sent_or_idle_is_closed() {
    let server = Server::limited(hasty());
    runtime().block_on(async {
        let mut head = plain(&server).await;
        head.write_all(b"GET /api HTTP/1.1\r\nHost: lo").await.unwrap();
        let mut body = plain(&server).await;
        let request = format!("POST {MAPS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{");
        body.write_all(request.as_bytes()).await.unwrap();
        let mut idle = plain(&server).await;
        let text = rest(&mut body).await;
        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
        rest(&mut head).await;
        rest(&mut idle).await;
        // HTTP/2, with its preface and nothing more.
        rest(&mut preface(&server).await).await;
    });
}

/// An HTTP/2 connection of the administrator, with the preface and settings sent.
async fn preface(server: &Server) -> TlsStream<TcpStream> {
    let connector = tls(server.dir.path(), "admin", b"h2");
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, tcp).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    stream
}

#[test]
fn who_sends_control_frames_without_end_is_cut_off_and_who_reads_much_is_not() {
    let server = Server::start();
    runtime().block_on(async {
        // Headers (RFC 9113, section 4.1) with payload: SETTINGS, PING, WINDOW_UPDATE, one that nobody knows.
        for frame in [
            &b"\0\0\0\x04\0\0\0\0\0"[..],
            b"\0\0\x08\x06\0\0\0\0\0 a ping ",
            b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
            b"\0\0\x01\xc8\0\0\0\0\0?",
        ] {
            let (mut read, mut write) = tokio::io::split(preface(&server).await);
            let flood = frame.repeat(100);
            // What it is answered is read all the time: it is not cut off for that.
            let flooding = async { while write.write_all(&flood).await.is_ok() {} };
            let reading = async {
                let mut answers = [0; 1 << 16];
                while read.read(&mut answers).await.is_ok_and(|length| length > 0) {}
            };
            let flooded = async {
                // Cancel-safe: the connection is of no use afterwards.
                tokio::select! {
                    () = flooding => {}
                    () = reading => {}
                }
            };
            let cut_off = tokio::time::timeout(Duration::from_secs(20), flooded).await;
            assert!(cut_off.is_ok(), "{frame:?} may be sent for ever");
        }
        maps(&server, 500).await;
        let client = channel(&server, "admin").await;
        for _ in 0..50 {
            let request = http::Request::get(format!("http://localhost{MAPS}"))
                .body(tonic::body::Body::empty())
                .unwrap();
            let reply = client.clone().oneshot(request).await.unwrap();
            reply.into_body().collect().await.expect("on one connection");
        }
    });
}

#[test]
fn strangers_that_say_nothing_do_not_keep_others_out() {
    let server = Server::limited(hasty());
    runtime().block_on(async {
        let mut strangers = Vec::new();
        for _ in 0..20 {
            strangers.push(TcpStream::connect(server.address).await.unwrap());
        }
        let reply = send(&server, "GET", MAPS, "", String::new()).await;
        assert_eq!(reply.status(), 200);
        rest(&mut strangers[0]).await;
    });
}

#[test]
fn what_one_user_sends_by_halves_is_bounded_and_others_find_room() {
    let default = Limits::default();
    let arriving = ArrivingLimits {
        per_user_bytes: 1 << 20,
        total_bytes: 5 << 18,
    };
    let server = Server::limited(Limits {
        body_pause: default.body_time,
        connections: ConnectionLimits {
            arriving,
            ..default.connections
        },
        ..default
    });
    let issuer = pki::Issuer::open(server.dir.path()).unwrap();
    issuer.user_kubeconfig("mallory", server.address).unwrap();
    runtime().block_on(async {
        let mallory = channel(&server, "user-mallory").await;
        let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
        let ask = || {
            let piece =
                Ok::<_, std::io::Error>(hyper::body::Frame::data(bytes::Bytes::from(vec![b' '; 60_000])));
            let body = futures::stream::iter([piece]).chain(futures::stream::pending());
            let request = http::Request::post(format!("http://localhost{MAPS}"))
                .body(tonic::body::Body::new(StreamBody::new(body)))
                .unwrap();
            let (mallory, answered) = (mallory.clone(), answered.clone());
            tokio::spawn(async move {
                let status = mallory
                    .oneshot(request)
                    .await
                    .map(|reply| reply.status().as_u16());
                let _ = answered.send(status.ok());
            })
        };
        let asked: Vec<_> = (0..60).map(|_| ask()).collect();
        // Each takes some 72 KiB: no more than 14 find room.
        for _ in 0..46 {
            let answer = tokio::time::timeout(Duration::from_secs(20), answers.recv()).await;
            assert_eq!(answer.unwrap(), Some(Some(429)));
        }
        // Whoever has most makes room for another.
        let map = json!({"metadata": {"name": "c"}, "data": {"a": "x".repeat(200_000)}}).to_string();
        let made = send(&server, "POST", MAPS, "application/json", map).await;
        assert_eq!(made.status(), 201);
        asked.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

async fn maps(server: &Server, count: usize) {
    let kind = named("ConfigMap").unwrap();
    for i in 0..count {
        let input = json!({"metadata": {"name": format!("c{i:04}")}, "data": {"x": "y".repeat(100)}});
        let options = WriteOptions::default();
        server
            .objects
            .create(kind, "default", input, options)
            .await
            .unwrap();
    }
}

#[test]
fn a_loop_of_big_lists_leaves_room_for_others() {
    let server = Server::start();
    runtime().block_on(async {
        maps(&server, 600).await;
        let greedy = channel(&server, "admin").await;
        let loops: Vec<_> = (0..40)
            .map(|_| {
                let greedy = greedy.clone();
                tokio::spawn(async move {
                    loop {
                        let request = http::Request::get(format!("http://localhost{MAPS}?labelSelector=a"))
                            .body(tonic::body::Body::empty())
                            .unwrap();
                        let reply = greedy.clone().oneshot(request).await.unwrap();
                        let _ = reply.into_body().collect().await;
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            let started = Instant::now();
            let reply = send(&server, "GET", &format!("{MAPS}/c0001"), "", String::new()).await;
            assert_eq!(reply.status(), 200);
            let list = send(&server, "GET", MAPS, "", String::new()).await;
            assert_eq!(list.status(), 200);
            list.into_body().collect().await.unwrap();
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "it waits for the loop"
            );
        }
        loops.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

#[test]
fn more_than_can_wait_is_sent_away_and_told_when_to_come_back() {
    let share = ShareLimits {
        heavy_seats: 0,
        waiting: 1,
        wait: Duration::from_millis(100),
        streams: 1,
        ..Limits::default().share
    };
    let server = Server::limited(Limits {
        share,
        ..Limits::default()
    });
    runtime().block_on(async {
        let busy = send(&server, "DELETE", MAPS, "", String::new()).await;
        assert_eq!(
            (busy.status().as_u16(), &busy.headers()["retry-after"]),
            (429, &"1".parse().unwrap())
        );
        let watch = format!("{MAPS}?watch=1");
        let first = send(&server, "GET", &watch, "", String::new()).await;
        assert_eq!(first.status(), 200);
        assert_eq!(
            send(&server, "GET", &watch, "", String::new()).await.status(),
            429
        );
        drop(first);
        let again = async || send(&server, "GET", &watch, "", String::new()).await.status();
        let deadline = Instant::now() + Duration::from_secs(20);
        while again().await != 200 {
            assert!(Instant::now() < deadline, "a watch that ended still counts");
        }
    });
}

#[test]
fn a_panic_is_the_answer_of_its_request_alone() {
    let server = Server::start();
    runtime().block_on(async {
        let client = channel(&server, "admin").await;
        let get = |path: String| {
            let request = http::Request::get(format!("http://localhost{path}"));
            let request = request.body(tonic::body::Body::empty()).unwrap();
            client.clone().oneshot(request)
        };
        let explain = format!("/gantry/v1/explain/default/{}", common::PANIC);
        let (failed, other) = tokio::join!(get(explain), get(MAPS.to_owned()));
        let failed = failed.unwrap();
        assert_eq!(failed.status(), 500);
        let body = failed.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status["reason"], "InternalError");
        assert_eq!(other.unwrap().status(), 200, "on the same connection");
        let made = json!({"metadata": {"name": "after"}}).to_string();
        assert_eq!(
            send(&server, "POST", MAPS, "application/json", made)
                .await
                .status(),
            201
        );
    });
}

#[test]
fn one_namespace_never_takes_all_service_addresses() {
    // 253 addresses: a quarter of them would be 63, and 64 is what anybody can have.
    let server = Server::configured(|config| config.service_cidr = "10.86.0.0/24".parse().unwrap());
    server.namespace("other");
    let make = |namespace: &str, name: String, address: &str| {
        let spec = json!({"ports": [{"port": 80}], "selector": {"a": "b"}, "clusterIP": address});
        let service = json!({"metadata": {"name": name}, "spec": spec});
        let kind = named("Service").unwrap();
        let made = server
            .objects
            .create(kind, namespace, service, WriteOptions::default());
        server.block_on(made).map_err(|e| (e.code.as_u16(), e.message))
    };
    for i in 0..64 {
        make("default", format!("s{i}"), "").unwrap();
    }
    for address in ["", "10.86.0.200"] {
        let (code, message) = make("default", "more".to_owned(), address).unwrap_err();
        assert_eq!(code, 403);
        assert!(
            message.contains(
                "namespace default has its share of the 253 service addresses of 10.86.0.0/24, which is 64"
            ),
            "{message}"
        );
    }
    make("default", "headless".to_owned(), "None").expect("it takes none");
    make("other", "s".to_owned(), "").expect("others have theirs");
}
