//! An orchestrator that is killed while it writes: whatever it has acknowledged is there when it is back.

mod common;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::agent::channel_to;
use common::{config, eventually};
use http_body_util::{BodyExt, Full};
use rand::Rng;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tower::ServiceExt;

/// Kills in the test command; `cargo xtask durability` sets more.
const KILLS: u32 = 5;
const WRITERS: usize = 4;
const DIR: &str = "GANTRY_KILLED_DIR";
const ADDRESS: &str = "GANTRY_KILLED_ADDRESS";
const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// The process that is killed: this program once more.
#[test]
#[ignore = "started by the other test of this file"]
fn server_process() {
    let (Some(dir), Ok(address)) = (std::env::var_os(DIR), std::env::var(ADDRESS)) else {
        return;
    };
    let config = config(dir.into(), address.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = gantry_orchestrator::controllers::run(config, CancellationToken::new());
    runtime.block_on(run).unwrap();
}

fn start(dir: &Path, address: SocketAddr) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server_process", "--ignored"])
        .env(DIR, dir)
        .env(ADDRESS, address.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn send(channel: &Channel, method: &str, path: &str, body: String) -> Option<(u16, Value)> {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/json")
        .body(tonic::body::Body::new(Full::from(body)))
        .unwrap();
    let answer = channel.clone().oneshot(request).await.ok()?;
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((code, serde_json::from_slice(&body).ok()?))
}

/// A connection, once the namespace is there.
async fn connect(dir: &Path, address: SocketAddr) -> Channel {
    let tried = async {
        loop {
            if dir.join("pki/admin.crt").exists()
                && let Ok(channel) = channel_to(dir, address, "admin").await
                && let Some((200, _)) =
                    send(&channel, "GET", "/api/v1/namespaces/default", String::new()).await
            {
                return channel;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), tried)
        .await
        .expect("the orchestrator comes back")
}

async fn write(channel: Channel, prefix: String, acknowledged: Arc<Mutex<BTreeSet<String>>>) {
    for number in 0.. {
        let name = format!("{prefix}-{number}");
        let object = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(number % 900)}});
        match send(&channel, "POST", PATH, object.to_string()).await {
            Some((201, _)) => acknowledged.lock().unwrap().insert(name),
            _ => return,
        };
    }
}

#[test]
fn acknowledged_writes_survive_kills() {
    let kills = std::env::var("GANTRY_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut total = 0;
    for kill in 0..=kills {
        let mut child = start(dir.path(), address);
        let channel = runtime.block_on(connect(dir.path(), address));
        let (code, list) = runtime
            .block_on(send(&channel, "GET", PATH, String::new()))
            .unwrap();
        assert_eq!(code, 200);
        let items = list["items"].as_array().unwrap();
        let found: BTreeSet<String> = items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        let lost: Vec<String> = acknowledged.lock().unwrap().difference(&found).cloned().collect();
        assert!(lost.is_empty(), "after kill {kill}, lost: {lost:?}");
        if kill < kills {
            acknowledged.lock().unwrap().clear();
            clear(&runtime, &channel);
            let writers: Vec<_> = (0..WRITERS)
                .map(|n| {
                    runtime.spawn(write(
                        channel.clone(),
                        format!("k{kill}-{n}"),
                        acknowledged.clone(),
                    ))
                })
                .collect();
            eventually("something is acknowledged", || {
                !acknowledged.lock().unwrap().is_empty()
            });
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..200)));
            child.kill().unwrap();
            writers
                .into_iter()
                .for_each(|writer| runtime.block_on(writer).unwrap());
            total += acknowledged.lock().unwrap().len();
        } else {
            child.kill().unwrap();
        }
        child.wait().unwrap();
    }
    eprintln!("{total} acknowledged writes, {kills} kills, none lost");
}

/// What is checked makes room.
fn clear(runtime: &tokio::runtime::Runtime, channel: &Channel) {
    let (code, _) = runtime
        .block_on(send(channel, "DELETE", PATH, String::new()))
        .unwrap();
    assert_eq!(code, 200);
}
