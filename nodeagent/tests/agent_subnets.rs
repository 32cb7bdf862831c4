//! What is behind a pod, with the real agent: reached from a neighbour, kept over restarts of the agent, handed on when its pod goes.

mod agent_support;

use std::net::Ipv4Addr;

use agent_support::orchestrator::Orchestrator;
use agent_support::{Agent, cni_or_skip};
use gantry_nodeagent_api::*;

const DEVICE: &str = "10.45.0.7";

/// A pod that the pool is to be behind; it has the device's address itself, and answers HTTP there with its name.
fn pod(agent: &Agent, name: &str, last: u8) -> PodConfig {
    let script = format!(
        "ip address add {DEVICE}/32 dev lo; mkdir /www; echo $HOSTNAME >/www/name; exec httpd -f -p 8080 -h /www"
    );
    let container = ContainerConfig {
        name: "c".to_owned(),
        image: "busybox:1".to_owned(),
        args: vec![script],
        resources: ContainerResources {
            cpu_request_milli: 100,
            memory_bytes: 64 << 20,
            ..Default::default()
        },
        memory_request_bytes: 64 << 20,
        readiness: Some(Probe {
            action: ProbeAction::TcpSocket { port: 8080 },
            initial_delay_ms: 0,
            period_ms: 200,
            timeout_ms: 1000,
            failure_threshold: 1,
            success_threshold: 1,
            termination_grace_s: None,
        }),
        security: Security {
            capabilities: vec!["NET_ADMIN".to_owned()],
            ..Security::default()
        },
        ..ContainerConfig::default()
    };
    PodConfig {
        namespace: "core".to_owned(),
        name: name.to_owned(),
        address: Some(Ipv4Addr::new(10, 191, agent.third, last)),
        termination_grace_s: 1,
        containers: vec![container],
        subnets: vec!["10.45.0.0/16".parse().unwrap()],
        ..PodConfig::default()
    }
}

/// Who answers at the device's address, asked in this pod.
async fn answers(orchestrator: &Orchestrator, uid: &str) -> String {
    let fetch = format!("timeout 3 wget -q -O - http://{DEVICE}:8080/name");
    let exec = SessionKind::Exec {
        pod: uid.to_owned(),
        container: "c".to_owned(),
        argv: ["/bin/sh", "-c", &fetch].map(str::to_owned).to_vec(),
        tty: false,
        stdin: false,
    };
    let mut text = Vec::new();
    for frame in orchestrator.session(exec, vec![]).await {
        if let SessionFrame::Stdout(data) = frame {
            text.extend_from_slice(&data);
        }
    }
    String::from_utf8(text).unwrap().trim().to_owned()
}

fn trouble<'a>(status: &'a NodeStatus, uid: &str) -> Option<&'a str> {
    let troubles = &status.pods.get(uid)?.troubles;
    troubles.get(&Trouble::SubnetNotRouted).map(String::as_str)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_leads_to_one_pod_of_its_namespace_at_a_time() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let asker = PodConfig {
        subnets: Vec::new(),
        ..pod(&agent, "asker", 4)
    };
    let asker = {
        let mut asker = asker;
        asker.containers[0].args = vec!["exec httpd -f -p 8080".to_owned()];
        asker
    };
    let stranger = PodConfig {
        namespace: "elsewhere".to_owned(),
        ..PodConfig {
            address: Some(Ipv4Addr::new(10, 191, agent.third, 5)),
            name: "stranger".to_owned(),
            ..asker.clone()
        }
    };
    let mut wanted = agent.config([
        ("u-first", pod(&agent, "first", 2)),
        ("u-asker", asker),
        ("u-stranger", stranger),
    ]);
    wanted.generation = Generation(1);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);
    let ready = |s: &NodeStatus, count| s.pods.len() == count && s.pods.values().all(|pod| pod.ready);
    orchestrator.until("three ready pods", |s| ready(s, 3)).await;
    assert_eq!(answers(&orchestrator, "u-asker").await, "first");
    assert_eq!(answers(&orchestrator, "u-stranger").await, "");

    // Before the first by its uid, and yet the second to want it.
    wanted.generation = Generation(2);
    wanted
        .pods
        .insert("u-another".to_owned(), pod(&agent, "another", 3));
    orchestrator.wants(&wanted);
    let told = |s: &NodeStatus| trouble(s, "u-another").is_some();
    let status = orchestrator
        .until("the second is told", |s| ready(s, 4) && told(s))
        .await;
    assert_eq!(
        trouble(&status, "u-another"),
        Some("subnet 10.45.0.0/16 is behind pod first already")
    );
    for kill in [false, true] {
        agent.stop(kill);
        assert!(ready(&orchestrator.status().unwrap(), 4));
        orchestrator.heard.lock().unwrap().clear();
        agent.start(&orchestrator);
        orchestrator
            .until("the second is told again", |s| ready(s, 4) && told(s))
            .await;
        assert_eq!(answers(&orchestrator, "u-asker").await, "first");
    }

    wanted.generation = Generation(3);
    wanted.pods.remove("u-first");
    orchestrator.wants(&wanted);
    orchestrator
        .until("it is the second's", |s| ready(s, 3) && !told(s))
        .await;
    assert_eq!(answers(&orchestrator, "u-asker").await, "another");
    agent.stop(false);
    assert!(agent.purge().status.success());
}
