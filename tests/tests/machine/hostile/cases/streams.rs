//! What stays open: commands in containers, watches.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Result;
use gantry_tests::busybox::IMAGE;
use serde_json::json;
use tempfile::TempDir;

use super::pods;
use super::{Case, Harm, Process, Tenant};

/// More commands than one user may have, and fewer than a node's agent opens.
const COMMANDS: usize = 120;
/// What all of them but a few come to.
const MANY_COMMANDS: usize = 110;
/// Commands whose output is not read.
const UNREAD: usize = 8;
/// Watches of one connection: no more wait for their turn.
const WATCHES: usize = 60;
/// Connections that make more watches than one user may have.
const CONNECTIONS: usize = 70;
/// What all of them but a few come to.
const MANY_WATCHES: usize = 4100;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "commands by the hundred",
        kind: "share of requests",
        protection: "sessions",
        attack: commands,
        told: "too many of your exec, attach and port-forward sessions are open",
        harm: Harm::Told("are open"),
    },
    Case {
        name: "what commands write and nobody reads",
        kind: "unread answers",
        protection: "windows",
        attack: unread,
        told: "another pod runs",
        harm: Harm::Memory(Process::Orchestrator, 60),
    },
    Case {
        name: "watches by the thousand",
        kind: "share of requests",
        protection: "share",
        attack: watches,
        told: "too many watches and logs are open",
        harm: Harm::Told("are open"),
    },
];

/// To a WebSocket (RFC 6455, 4.1; the key is the one of its example).
const UPGRADE: &[&str] = &[
    "--http1.1",
    "--header",
    "Connection: Upgrade",
    "--header",
    "Upgrade: websocket",
    "--header",
    "Sec-WebSocket-Version: 13",
    "--header",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "--header",
    "Sec-WebSocket-Protocol: v5.channel.k8s.io",
];

/// Requests whose answers do not end; they do when it is dropped.
struct Held {
    place: TempDir,
    clients: Vec<Child>,
}

impl Drop for Held {
    fn drop(&mut self) {
        for client in &mut self.clients {
            // One that has ended cannot be killed.
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

impl Held {
    fn new() -> Result<Self> {
        Ok(Self {
            place: tempfile::tempdir()?,
            clients: Vec::new(),
        })
    }

    /// One more client that asks, and stays for what comes.
    fn ask(&mut self, tenant: &Tenant<'_>, path: &str, options: &[&str]) -> Result<()> {
        let answers = File::options()
            .create(true)
            .append(true)
            .open(self.place.path().join("answers"))?;
        let client = tenant
            .api
            .from_afar()
            .command("GET", path, "")
            .args(["--no-buffer", "--no-progress-meter"])
            .args(["--max-time", "120"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(answers)
            .spawn()?;
        self.clients.push(client);
        Ok(())
    }

    /// Waits until an answer has this in it, or `many` begin so: what was answered, or how many are open.
    fn told_or(&self, tenant: &Tenant<'_>, told: &str, begin: &str, many: usize) -> Result<String> {
        let mut open = 0;
        let outcome = tenant.wait(told, || {
            let answers = fs::read(self.place.path().join("answers")).ok()?;
            let answers = String::from_utf8_lossy(&answers);
            if let Some(line) = answers.lines().find(|line| line.contains(told)) {
                return Some(line.to_owned());
            }
            open = answers.matches(begin).count();
            (open >= many).then(|| format!("{open} are open"))
        });
        outcome.map_err(|error| error.context(format!("{open} are open")))
    }
}

/// Each is a process in a pod.
fn commands(tenant: &Tenant<'_>) -> Result<String> {
    pods::run(tenant, "exec sleep 600")?;
    let path =
        tenant.path("pods/p/exec?command=sh&command=-c&command=echo+has+begun;exec+sleep+600&stdout=true");
    let mut held = Held::new()?;
    for _ in 0..COMMANDS {
        held.ask(tenant, &path, UPGRADE)?;
    }
    held.told_or(
        tenant,
        "port-forward sessions are open",
        "has begun",
        MANY_COMMANDS,
    )
}

/// All that a node says comes on one connection: whether another pod gets to run meanwhile.
fn unread(tenant: &Tenant<'_>) -> Result<String> {
    pods::run(tenant, "exec sleep 600")?;
    let path = tenant.path("pods/p/exec?command=busybox&command=yes&stdout=true");
    let mut held = Held::new()?;
    for _ in 0..UNREAD {
        held.ask(tenant, &path, &[UPGRADE, &["--limit-rate", "1k"]].concat())?;
    }
    // Long enough for everything on the way to be full.
    std::thread::sleep(Duration::from_secs(5));
    let container = json!({"name": "c", "image": IMAGE, "args": ["exec sleep 600"]});
    let pod = json!({"metadata": {"name": "another"}, "spec": {"containers": [container]}});
    tenant.make("pods", &pod)?;
    tenant.wait("that another pod runs", || {
        let phase = tenant.get("pods/another").ok()?["status"]["phase"].take();
        (phase == "Running").then(|| "another pod runs".to_owned())
    })
}

/// Many on each of many connections; curl makes one transfer of each number behind `#`, which the server does not see.
fn watches(tenant: &Tenant<'_>) -> Result<String> {
    // Each says at once that it has begun.
    let begin =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let path = format!("{}?{begin}#[1-{WATCHES}]", tenant.path("configmaps"));
    let mut held = Held::new()?;
    for _ in 0..CONNECTIONS {
        let parallel = WATCHES.to_string();
        held.ask(
            tenant,
            &path,
            &["--http2", "--parallel", "--parallel-max", &parallel],
        )?;
    }
    held.told_or(
        tenant,
        "watches and logs are open",
        "initial-events-end",
        MANY_WATCHES,
    )
}
