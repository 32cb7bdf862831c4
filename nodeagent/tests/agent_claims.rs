//! Claims under the real agent: what is in one outlives pods and agents, has a bound, and goes with it.

mod agent_support;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_support::orchestrator::Orchestrator;
use agent_support::{Agent, cni_or_skip};
use gantry_nodeagent_api::*;

const MI: u64 = 1 << 20;
const USER: u32 = 1000;
const GROUP: u32 = 1234;

/// A pod of an ordinary user that has the claim at `/v` and runs a script once.
fn pod(agent: &Agent, last: u8, name: &str, script: &str) -> PodConfig {
    let container = ContainerConfig {
        name: "c".to_owned(),
        image: "busybox:1".to_owned(),
        args: vec![script.to_owned()],
        resources: ContainerResources {
            cpu_request_milli: 100,
            memory_bytes: 64 * MI,
            ..Default::default()
        },
        memory_request_bytes: 64 * MI,
        security: Security {
            user: Some(USER),
            group: Some(USER),
            ..Security::default()
        },
        mounts: vec![Mount {
            volume: "v".to_owned(),
            path: "/v".to_owned(),
            sub_path: None,
            read_only: false,
        }],
        ..ContainerConfig::default()
    };
    let claim = Volume::Claim {
        id: "the-claim".to_owned(),
        read_only: false,
    };
    PodConfig {
        namespace: "core".to_owned(),
        name: name.to_owned(),
        address: Some(Ipv4Addr::new(10, 191, agent.third, last)),
        termination_grace_s: 1,
        restart_policy: RestartPolicy::Never,
        containers: vec![container],
        volumes: [("v".to_owned(), claim)].into(),
        security: PodSecurity {
            fs_group: Some(GROUP),
            ..PodSecurity::default()
        },
        ..PodConfig::default()
    }
}

/// The node's configuration with these pods and a claim of a size, if there is to be one.
fn config(agent: &Agent, generation: u64, pods: Vec<PodConfig>, size_bytes: Option<u64>) -> NodeConfig {
    let claim = |size_bytes| ClaimConfig {
        namespace: "core".to_owned(),
        name: "data".to_owned(),
        size_bytes,
    };
    let pods = pods.into_iter().map(|pod| (format!("u-{}", pod.name), pod));
    NodeConfig {
        generation: Generation(generation),
        claims: Some(
            size_bytes
                .map(|size| ("the-claim".to_owned(), claim(size)))
                .into_iter()
                .collect(),
        ),
        ..agent.config(pods)
    }
}

async fn log(orchestrator: &Orchestrator, uid: &str) -> String {
    let kind = SessionKind::Logs {
        pod: uid.to_owned(),
        container: "c".to_owned(),
        follow: false,
        tail_lines: None,
        previous: false,
        since_ms: None,
        stream: None,
        timestamps: false,
    };
    let mut text = Vec::new();
    for frame in orchestrator.session(kind, vec![]).await {
        if let SessionFrame::Stdout(data) = frame {
            text.extend_from_slice(&data);
        }
    }
    String::from_utf8(text).unwrap()
}

fn ended(uid: &'static str) -> impl Fn(&NodeStatus) -> bool {
    move |s| s.pods.get(uid).is_some_and(|p| p.phase == PodPhase::Succeeded)
}

fn kept(agent: &Agent) -> PathBuf {
    agent.data.path().join("agent/claims/kept/the-claim")
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// A new agent on the same node.
fn again(agent: &mut Agent, orchestrator: &Orchestrator, kill: bool) {
    agent.stop(kill);
    orchestrator.heard.lock().unwrap().clear();
    agent.start(orchestrator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_has_written_the_next_one_reads_until_the_claim_goes() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let writer = pod(
        &agent,
        2,
        "writer",
        "umask 007; echo text >/v/file && mkdir -p /v/part && exit 0",
    );
    orchestrator.wants(&config(&agent, 1, vec![writer], Some(10 * MI)));
    agent.start(&orchestrator);
    orchestrator.until("the writer", ended("u-writer")).await;
    // The pod goes, the agent dies, and is told nothing about claims for a while.
    let silent = NodeConfig {
        claims: None,
        ..config(&agent, 2, vec![], None)
    };
    orchestrator.wants(&silent);
    orchestrator
        .until("no pod", |s| s.accepted.0 == 2 && s.pods.is_empty())
        .await;
    again(&mut agent, &orchestrator, true);
    // Others read it by their group, one of them with ids of its own; what is only to be read stays as it is.
    let read = "cat /v/file; echo $(busybox stat -c '%u:%g' /v/file); echo no >/v/file; exit 0";
    let mut own = pod(&agent, 3, "own", read);
    own.security.own_ids = true;
    own.containers[0].security.user = Some(2000);
    let mut reader = pod(&agent, 4, "reader", read);
    let only_read = Volume::Claim {
        id: "the-claim".to_owned(),
        read_only: true,
    };
    reader.volumes.insert("v".to_owned(), only_read);
    let mut part = pod(&agent, 5, "part", "echo x >/p/inside; exit 0");
    part.containers[0].mounts = vec![Mount {
        volume: "v".to_owned(),
        path: "/p".to_owned(),
        sub_path: Some("part".to_owned()),
        read_only: false,
    }];
    orchestrator.wants(&config(&agent, 3, vec![reader, part], Some(10 * MI)));
    for uid in ["u-reader", "u-part"] {
        orchestrator.until(uid, ended(uid)).await;
    }
    let text = format!("text\n{USER}:{GROUP}\n");
    let said = log(&orchestrator, "u-reader").await;
    assert!(said.starts_with(&text) && said.contains("Read-only"), "{said}");
    assert_eq!(
        std::fs::read_to_string(kept(&agent).join("part/inside")).unwrap(),
        "x\n"
    );
    orchestrator.wants(&config(&agent, 4, vec![own], Some(10 * MI)));
    orchestrator.until("one with own ids", ended("u-own")).await;
    assert_eq!(log(&orchestrator, "u-own").await, text);
    assert_eq!(
        std::fs::read_to_string(kept(&agent).join("file")).unwrap(),
        "no\n"
    );

    orchestrator.wants(&config(&agent, 5, vec![], None));
    let begun = Instant::now();
    while kept(&agent).exists() || !is_empty(&agent.data.path().join("agent/claims/gone")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never goes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fills_it_is_evicted_and_nobody_begins_before_it_has_grown() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let script = "busybox dd if=/dev/zero of=/v/big bs=64k count=192; sleep 1000";
    let filler = pod(&agent, 2, "filler", script);
    orchestrator.wants(&config(&agent, 1, vec![filler], Some(10 * MI)));
    agent.start(&orchestrator);
    let evicted = |s: &NodeStatus| {
        s.pods.get("u-filler").is_some_and(|p| {
            p.reason == Some(PodReason::Evicted)
                && p.message == "Usage of PersistentVolumeClaim \"data\" exceeds its size \"10Mi\"."
        })
    };
    let status = orchestrator.until("the eviction", evicted).await;
    assert!(status.full_claims["the-claim"] >= 12 * MI);
    let heir = || pod(&agent, 3, "heir", "busybox rm /v/big; exit 0");
    let waiting = config(&agent, 2, vec![heir()], Some(10 * MI));
    let grown = config(&agent, 3, vec![heir()], Some(20 * MI));
    orchestrator.wants(&waiting);
    let waits = |s: &NodeStatus| {
        s.pods.get("u-heir").is_some_and(|p| {
            let says = p.message.contains("persistentvolumeclaim \"data\" is full");
            says && p.phase == PodPhase::Pending && p.containers.iter().all(|c| c.restarts == 0)
        })
    };
    orchestrator.until("who waits", waits).await;
    again(&mut agent, &orchestrator, false);
    orchestrator.until("who waits for a new agent", waits).await;
    orchestrator.wants(&grown);
    orchestrator.until("the heir", ended("u-heir")).await;
    assert!(is_empty(&kept(&agent)));
}
