//! Agents over the real listener: identity and configurations; and what is asked of their nodes.

#[path = "../common/mod.rs"]
mod common;
mod sessions;

use std::time::Duration;

use common::Server;
use common::agent::{Agent, channel, hello, send, tls};
use futures::StreamExt;
use gantry_nodeagent_api::proto::node_service_client::NodeServiceClient;
use gantry_nodeagent_api::{Generation, NodeConfig, NodeStatus, OrchestratorMessage, SessionKind};
use gantry_orchestrator::link::{LinkError, LinkEvent};
use gantry_orchestrator::pki;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("in time")
}

fn server_with_node(node: &str) -> Server {
    let server = Server::start();
    pki::Issuer::open(server.dir.path())
        .unwrap()
        .issue_node(node)
        .unwrap();
    server
}

fn config(generation: u64) -> NodeConfig {
    NodeConfig {
        generation: Generation(generation),
        ..Default::default()
    }
}

#[test]
fn configurations_go_down_newest_only_and_status_comes_up() {
    let mut server = server_with_node("n1");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for generation in 1..=1000 {
            server.link.send_config("n1", config(generation));
        }
        let mut agent = soon(Agent::attach(&server, "node-n1", "n1")).await.unwrap();
        assert_eq!(
            soon(agent.next()).await,
            OrchestratorMessage::Config(config(1000))
        );
        assert!(
            matches!(soon(server.events.recv()).await, Some(LinkEvent::Connected(h)) if *h == hello("n1"))
        );
        let status = NodeStatus {
            applied: Generation(1000),
            ..Default::default()
        };
        agent.report(status.clone()).await;
        match soon(server.events.recv()).await {
            Some(LinkEvent::Status(node, found)) => assert_eq!((node.as_str(), *found), ("n1", status)),
            other => panic!("{other:?}"),
        }
        // A second stream of the node takes over; the first ends without a `Disconnected`.
        let mut again = soon(Agent::attach(&server, "node-n1", "n1")).await.unwrap();
        assert!(matches!(
            soon(server.events.recv()).await,
            Some(LinkEvent::Connected(_))
        ));
        assert!(soon(agent.down.message()).await.unwrap().is_none());
        assert_eq!(
            soon(again.next()).await,
            OrchestratorMessage::Config(config(1000))
        );
        drop((agent, again));
        assert!(matches!(soon(server.events.recv()).await, Some(LinkEvent::Disconnected(n)) if n == "n1"));
        assert!(matches!(
            server
                .link
                .open_session(
                    "n1",
                    SessionKind::PortForward {
                        pod: "u".into(),
                        port: 1
                    }
                )
                .await,
            Err(LinkError::NotConnected(_))
        ));
    });
}

/// The status line of an HTTP/1.1 request with a certificate; empty if the handshake fails.
async fn status_line(server: &Server, certificate: &str, path: &str) -> String {
    let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let Ok(mut stream) = tls(server.dir.path(), certificate, b"http/1.1")
        .connect(name, tcp)
        .await
    else {
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        // A refused certificate shows as an error of the first read in TLS 1.3.
        let _ = stream.read_to_string(&mut answer).await;
    }
    answer.lines().next().unwrap_or_default().to_owned()
}

/// A connection on which a request has been sent.
async fn ask(
    server: &Server,
    certificate: &str,
    path: &str,
    headers: &str,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let tls = tls(server.dir.path(), certificate, b"http/1.1");
    let mut stream = tls.connect(name, tcp).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[test]
fn whoever_is_revoked_is_served_no_more_and_nobody_else() {
    let server = server_with_node("n1");
    let pki = server.dir.path().join("pki");
    let issuer = pki::Issuer::open(server.dir.path()).unwrap();
    issuer.user_kubeconfig("alice", server.address).unwrap();
    issuer.user_kubeconfig("bob", server.address).unwrap();
    // What somebody else has got hold of.
    for (from, to) in [("user-alice", "lost"), ("node-n1", "lost-node")] {
        for suffix in ["crt", "key"] {
            let of = |name: &str| pki.join(format!("{name}.{suffix}"));
            std::fs::copy(of(from), of(to)).unwrap();
        }
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let watch = "/api/v1/pods?watch=true";
        let mut watches = Vec::new();
        for certificate in ["lost", "user-bob"] {
            let mut stream = ask(&server, certificate, watch, "").await;
            assert_ne!(soon(stream.read(&mut [0; 64])).await.unwrap(), 0);
            watches.push(stream);
        }
        let mut agent = soon(Agent::attach(&server, "lost-node", "n1")).await.unwrap();
        let names = ["user-alice", "node-n1"].map(str::to_owned);
        let unknown = [names[0].clone(), "user-carol".to_owned()];
        assert!(issuer.revoke(&unknown).is_err(), "all or none");
        issuer.revoke(&names).unwrap();
        let answer = send(
            &server,
            "POST",
            "/gantry/v1/certificates/reload",
            "application/json",
            String::new(),
        );
        assert_eq!(soon(answer).await.status(), 200);
        // Connections that were open come to an end, however that shows.
        let _ = soon(watches[0].read_to_end(&mut Vec::new())).await;
        while let Ok(Some(_)) = soon(agent.down.message()).await {}
        assert_eq!(
            soon(status_line(&server, "lost", "/healthz")).await,
            "HTTP/1.1 401 Unauthorized"
        );
        assert!(soon(Agent::attach(&server, "lost-node", "n1")).await.is_err());
        let mut rest = Vec::new();
        let over = tokio::time::timeout(Duration::from_secs(2), watches[1].read_to_end(&mut rest));
        assert!(over.await.is_err(), "bob's watch goes on");
        assert_eq!(
            soon(status_line(&server, "user-bob", "/healthz")).await,
            "HTTP/1.1 200 OK"
        );
        soon(Agent::attach(&server, "node-n1", "n1")).await.unwrap();
        let left = issuer.certificates().unwrap();
        let left: Vec<&str> = left.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(left, ["admin", "node-n1", "user-bob"]);
    });
}

#[test]
fn a_session_with_a_container_ends_when_its_certificate_is_revoked() {
    let server = server_with_node("n1");
    sessions::pod_on_node(&server);
    let issuer = pki::Issuer::open(server.dir.path()).unwrap();
    issuer.user_kubeconfig("alice", server.address).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut agent = soon(Agent::attach(&server, "node-n1", "n1")).await.unwrap();
        let session = "/api/v1/namespaces/default/pods/p";
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n";
        for path in ["exec?command=sh&stdout=true", "portforward?ports=80"] {
            let mut stream = ask(&server, "user-alice", &format!("{session}/{path}"), upgrade).await;
            let opened = soon(agent.next_session()).await;
            let (_up, mut down) = agent.open(&opened.id).await;
            let mut head = [0; 12];
            soon(stream.read_exact(&mut head)).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 101");
            issuer.revoke(&["user-alice".to_owned()]).unwrap();
            let reload = "/gantry/v1/certificates/reload";
            let answer = send(&server, "POST", reload, "application/json", String::new());
            assert_eq!(soon(answer).await.status(), 200);
            let mut last = Vec::new();
            let _ = soon(stream.read_to_end(&mut last)).await;
            let last = String::from_utf8_lossy(&last);
            let is_told = last.contains(r#""status":"Failure""#) && last.contains("revoked");
            assert!(
                is_told || path.starts_with('p'),
                "nobody takes it for success: {last}"
            );
            while soon(down.next()).await.is_some() {}
            issuer.user_kubeconfig("alice", server.address).unwrap();
        }
    });
}

#[test]
fn each_certificate_opens_its_own_door_only() {
    let server = server_with_node("n1");
    let stranger = tempfile::tempdir().unwrap();
    pki::ensure(stranger.path(), server.address, &[], "other").unwrap();
    for suffix in ["crt", "key"] {
        let from = stranger.path().join(format!("pki/admin.{suffix}"));
        std::fs::copy(from, server.dir.path().join(format!("pki/stranger.{suffix}"))).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let refused = soon(Agent::attach(&server, "node-n1", "n2"))
            .await
            .err()
            .expect("another node's name");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        let mut admin = NodeServiceClient::new(channel(&server, "admin").await);
        let refused = soon(admin.attach(tokio_stream::empty()))
            .await
            .expect_err("an administrator is no node");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert_eq!(
            soon(status_line(&server, "admin", "/api/v1/pods")).await,
            "HTTP/1.1 200 OK"
        );
        for path in ["/api/v1/pods", "/healthz", "/nothing"] {
            assert_eq!(
                soon(status_line(&server, "node-n1", path)).await,
                "HTTP/1.1 403 Forbidden",
                "{path}"
            );
        }
        assert_eq!(soon(status_line(&server, "stranger", "/healthz")).await, "");
    });
}
