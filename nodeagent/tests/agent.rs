//! The real agent with real pods: image, cgroup, network, service, probes, restart, resize, sessions, purge.

mod agent_support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use agent_support::orchestrator::{Orchestrator, PATIENCE};
use agent_support::{Agent, cni_or_skip};
use gantry_nodeagent_api::*;

/// A pod that answers HTTP on port 8080 with its own name.
fn pod(agent: &Agent, name: &str, last: u8) -> PodConfig {
    let probe = Probe {
        action: ProbeAction::HttpGet(HttpGet {
            port: 8080,
            path: "/name".to_owned(),
            headers: vec![("X-Probe".to_owned(), "yes".to_owned())],
        }),
        initial_delay_ms: 0,
        period_ms: 200,
        timeout_ms: 1000,
        failure_threshold: 1,
        success_threshold: 1,
        termination_grace_s: None,
    };
    let script =
        "echo up $GREETING; mkdir -p /www; echo $HOSTNAME $FROM >/www/name; exec httpd -f -p 8080 -h /www";
    let container = ContainerConfig {
        name: "web".to_owned(),
        image: "busybox:1".to_owned(),
        args: vec![script.to_owned()],
        env: vec![("GREETING".to_owned(), "hello".to_owned())],
        resources: ContainerResources {
            cpu_request_milli: 100,
            memory_bytes: 64 << 20,
            ..Default::default()
        },
        memory_request_bytes: 64 << 20,
        readiness: Some(probe),
        ..ContainerConfig::default()
    };
    PodConfig {
        namespace: "core".to_owned(),
        name: name.to_owned(),
        address: Some(Ipv4Addr::new(10, 191, agent.third, last)),
        termination_grace_s: 1,
        containers: vec![container],
        ..PodConfig::default()
    }
}

fn config(agent: &Agent) -> NodeConfig {
    let backend = |uid: &str, last: u8| Backend {
        pod: uid.to_owned(),
        address: Ipv4Addr::new(10, 191, agent.third, last),
        port: 8080,
        weight: 1,
        draining: false,
        udp_idle_s: DEFAULT_UDP_IDLE_S,
    };
    let backends = vec![backend("u-a", 2), backend("u-b", 3)];
    let service = ServiceConfig {
        vip: vip(agent),
        ports: vec![ServicePort {
            port: 80,
            protocol: Protocol::Tcp,
            backends,
        }],
    };
    NodeConfig {
        generation: Generation(1),
        network: Some(agent.network()),
        shared_cpus: "0-1".parse().unwrap(),
        pods: [
            ("u-a".to_owned(), pod(agent, "a", 2)),
            ("u-b".to_owned(), pod(agent, "b", 3)),
        ]
        .into(),
        services: [("core/web".to_owned(), service)].into(),
        dns: [("web.core.svc.cluster.local".to_owned(), vec![vip(agent).into()])].into(),
        cluster: "c".to_owned(),
        srv: Default::default(),
        claims: Default::default(),
    }
}

fn vip(agent: &Agent) -> Ipv4Addr {
    Ipv4Addr::new(10, 192, agent.third, 10)
}

fn get(address: Ipv4Addr, port: u16) -> Option<String> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_millis(300)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"GET /name HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split(' ')
        .nth(1)
        .is_some_and(|code| code == "200")
        .then(|| text.lines().last().unwrap_or_default().to_owned())
}

fn all_ready(status: &NodeStatus, count: usize) -> bool {
    status.pods.len() == count && status.pods.values().all(|pod| pod.ready)
}

fn output(frames: &[SessionFrame]) -> String {
    let mut text = Vec::new();
    for frame in frames {
        if let SessionFrame::Stdout(data) | SessionFrame::Stderr(data) = frame {
            text.extend_from_slice(data);
        }
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_serve_survive_change_and_go() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let mut wanted = config(&agent);
    orchestrator.wants(&wanted);
    let begun = Instant::now();
    agent.start(&orchestrator);
    let status = orchestrator
        .until("two ready pods", |s| {
            all_ready(s, 2) && s.applied == Generation(1)
        })
        .await;
    eprintln!("two pods ready after {} ms", begun.elapsed().as_millis());
    let a = Ipv4Addr::new(10, 191, agent.third, 2);
    assert_eq!(get(a, 8080).as_deref(), Some("a image"));
    assert!(matches!(
        get(vip(&agent), 80).as_deref(),
        Some("a image" | "b image")
    ));
    assert!(status.pods["u-a"].containers[0].image_id.starts_with("sha256:"));

    killed_container_answers_again(&orchestrator, &status, a).await;
    sessions(&orchestrator).await;
    restart_changes_nothing(&orchestrator, &mut agent).await;
    resize(&orchestrator, &mut wanted).await;

    wanted.generation = Generation(3);
    wanted.pods.remove("u-b");
    wanted.services.get_mut("core/web").unwrap().ports[0]
        .backends
        .pop();
    orchestrator.wants(&wanted);
    orchestrator
        .until("b to be gone", |s| {
            !s.pods.contains_key("u-b") && s.applied == Generation(3)
        })
        .await;
    assert_eq!(get(vip(&agent), 80).as_deref(), Some("a image"));

    agent.stop(false);
    assert_eq!(get(a, 8080).as_deref(), Some("a image"), "pods outlive the agent");
    let purged = agent.purge();
    assert!(
        purged.status.success(),
        "{}",
        String::from_utf8_lossy(&purged.stderr)
    );
    nothing_is_left(&agent);
}

/// An agent that is killed while configurations come in: it never forgets one that it has said to have accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_generations_survive_kills() {
    let Some(cni) = cni_or_skip() else { return };
    let kills = std::env::var("GANTRY_KILLS").map_or(5_u64, |kills| kills.parse().unwrap());
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let mut wanted = config(&agent);
    wanted.pods.clear();
    wanted.services.clear();
    orchestrator.wants(&wanted);
    for kill in 0..kills {
        let heard = orchestrator.heard.lock().unwrap().len();
        agent.start(&orchestrator);
        let since = |o: &Orchestrator| o.heard.lock().unwrap()[heard..].to_vec();
        let accepted = |m: &AgentMessage| match m {
            AgentMessage::Status(status) => Some(status.accepted),
            _ => None,
        };
        let (begun, writes) = (Instant::now(), 1 + kill % 7 * 5);
        loop {
            wanted.generation.0 += 1;
            let name = format!("n{}.core.svc.cluster.local", wanted.generation.0 % 50);
            wanted.dns.insert(name, vec![vip(&agent).into()]);
            orchestrator.wants(&wanted);
            tokio::time::sleep(Duration::from_millis(2)).await;
            let last = since(&orchestrator).iter().filter_map(accepted).max();
            if last > Some(Generation(0)) && begun.elapsed() > Duration::from_millis(writes * 10) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "nothing is accepted");
        }
        agent.stop(true);
        let told = since(&orchestrator)
            .iter()
            .filter_map(accepted)
            .max()
            .unwrap_or_default();
        let ledger = std::fs::read(agent.data.path().join("agent/ledger.json")).unwrap();
        let ledger: serde_json::Value = serde_json::from_slice(&ledger).unwrap();
        let kept = ledger["config"]["generation"].as_u64().unwrap();
        assert!(
            Generation(kept) >= told,
            "kill {kill}: {told:?} was acknowledged, {kept} is kept"
        );
    }
    eprintln!("{} generations, {kills} kills, none lost", wanted.generation.0);
}

async fn killed_container_answers_again(orchestrator: &Orchestrator, status: &NodeStatus, address: Ipv4Addr) {
    let pid = status.pods["u-a"].containers[0].pid.unwrap();
    let begun = Instant::now();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    while get(address, 8080).is_none() || begun.elapsed() < Duration::from_millis(20) {
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "no answer within 2 s of kill -9"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    eprintln!("answers again {} ms after kill -9", begun.elapsed().as_millis());
    let restarted = |s: &NodeStatus| {
        let container = &s.pods["u-a"].containers[0];
        container.restarts == 1
            && container
                .last_ended
                .as_ref()
                .is_some_and(|end| end.exit_code == 137)
            && s.pods["u-a"].ready
    };
    orchestrator.until("the restart in the status", restarted).await;
}

async fn sessions(orchestrator: &Orchestrator) {
    let logs = |previous| SessionKind::Logs {
        pod: "u-a".to_owned(),
        container: String::new(),
        follow: false,
        tail_lines: Some(1),
        previous,
        since_ms: None,
        stream: None,
        timestamps: false,
    };
    for previous in [false, true] {
        let frames = orchestrator.session(logs(previous), vec![]).await;
        assert_eq!(
            (output(&frames).as_str(), frames.last()),
            ("up hello\n", Some(&SessionFrame::Exit(0)))
        );
    }
    let exec = |script: &str, tty, stdin| SessionKind::Exec {
        pod: "u-a".to_owned(),
        container: "web".to_owned(),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        tty,
        stdin,
    };
    let input = vec![
        SessionFrame::Stdin("from outside\n".into()),
        SessionFrame::StdinEof,
    ];
    let frames = orchestrator
        .session(exec("cat; cat /etc/resolv.conf; exit 7", false, true), input)
        .await;
    let text = output(&frames);
    assert!(text.starts_with("from outside\n"), "{frames:?}");
    assert!(
        text.contains("search core.svc.cluster.local svc.cluster.local cluster.local"),
        "{text}"
    );
    assert_eq!(frames.last(), Some(&SessionFrame::Exit(7)));
    let frames = orchestrator
        .session(exec("echo in a terminal; test -t 0", true, true), vec![])
        .await;
    assert!(output(&frames).contains("in a terminal"), "{frames:?}");
    assert_eq!(frames.last(), Some(&SessionFrame::Exit(0)));
    // Names: from inside the pod, by the agent's DNS, through the service's address.
    let fetch = "wget -q -O - http://web.core.svc.cluster.local/name";
    let frames = orchestrator.session(exec(fetch, false, false), vec![]).await;
    assert!(output(&frames).contains("image"), "{frames:?}");
    let forward = SessionKind::PortForward {
        pod: "u-a".to_owned(),
        port: 8080,
    };
    let request = vec![SessionFrame::Stdin("GET /name HTTP/1.0\r\n\r\n".into())];
    let frames = orchestrator.session(forward, request).await;
    assert!(output(&frames).ends_with("a image\n"), "{frames:?}");
}

async fn restart_changes_nothing(orchestrator: &Orchestrator, agent: &mut Agent) {
    for kill in [false, true] {
        let before = orchestrator.status().unwrap();
        agent.stop(kill);
        orchestrator.heard.lock().unwrap().clear();
        agent.start(orchestrator);
        let after = orchestrator.until("both pods again", |s| all_ready(s, 2)).await;
        for (uid, pod) in &before.pods {
            assert_eq!(
                pod.containers[0].pid, after.pods[uid].containers[0].pid,
                "{uid} was started again"
            );
        }
        let hello = orchestrator.heard.lock().unwrap()[0].clone();
        assert!(matches!(hello, AgentMessage::Hello(h) if h.generation == Generation(1)));
    }
}

/// One CPU of the pool becomes the pod's own, live.
async fn resize(orchestrator: &Orchestrator, wanted: &mut NodeConfig) {
    let before = orchestrator.status().unwrap().pods["u-a"].containers[0].pid;
    wanted.generation = Generation(2);
    wanted.shared_cpus = "0".parse().unwrap();
    let container = &mut wanted.pods.get_mut("u-a").unwrap().containers[0];
    container.resources.cpus = "1".parse().unwrap();
    container.resources.memory_bytes = 96 << 20;
    container.memory_request_bytes = 96 << 20;
    let begun = Instant::now();
    orchestrator.wants(wanted);
    let status = orchestrator
        .until("the resize", |s| s.applied == Generation(2))
        .await;
    eprintln!("resized after {} ms", begun.elapsed().as_millis());
    let pod = &status.pods["u-a"];
    assert_eq!(
        (pod.cpus.to_string(), pod.memory_bytes),
        ("1".to_owned(), 96 << 20)
    );
    assert_eq!(pod.containers[0].pid, before);
    let allowed = std::fs::read_to_string(format!("/proc/{}/status", before.unwrap())).unwrap();
    assert!(allowed.contains("Cpus_allowed_list:\t1\n"), "{allowed}");
}

fn nothing_is_left(agent: &Agent) {
    assert!(!agent.data.path().join("agent").exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(agent.data.path().to_str().unwrap()), "{mounts}");
    let begun = Instant::now();
    loop {
        let links = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        let own: Vec<_> = links
            .filter(|link| link.file_name().to_string_lossy().contains(&agent.instance))
            .map(|link| link.file_name())
            .collect();
        if own.is_empty() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{own:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        assert!(
            !controller.path().join("gantry").join(&agent.instance).exists(),
            "{controller:?}"
        );
    }
}
