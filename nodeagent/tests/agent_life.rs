//! The real agent, and pods that end, fail, start again: what is seen of them, and what is left.

mod agent_support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use agent_support::orchestrator::Orchestrator;
use agent_support::{Agent, cni_or_skip};
use gantry_nodeagent_api::*;

/// A pod of one container that runs a script.
fn pod(agent: &Agent, last: u8, name: &str, policy: RestartPolicy, script: &str) -> PodConfig {
    let container = ContainerConfig {
        name: "c".to_owned(),
        image: "busybox:1".to_owned(),
        args: vec![script.to_owned()],
        resources: ContainerResources {
            cpu_request_milli: 100,
            memory_bytes: 16 << 20,
            ..Default::default()
        },
        memory_request_bytes: 16 << 20,
        ..ContainerConfig::default()
    };
    PodConfig {
        namespace: "core".to_owned(),
        name: name.to_owned(),
        address: Some(Ipv4Addr::new(10, 191, agent.third, last)),
        termination_grace_s: 1,
        restart_policy: policy,
        containers: vec![container],
        ..PodConfig::default()
    }
}

async fn log(orchestrator: &Orchestrator, uid: &str, follow: bool) -> String {
    let kind = SessionKind::Logs {
        pod: uid.to_owned(),
        container: "c".to_owned(),
        follow,
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_says_how_and_holds_nothing() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let mut done = pod(&agent, 2, "done", RestartPolicy::Never, "echo last words; exit 0");
    done.containers[0].resources.cpus = "1".parse().unwrap();
    let eaten = pod(
        &agent,
        3,
        "eaten",
        RestartPolicy::OnFailure,
        "exec busybox tail /dev/zero",
    );
    let script =
        "test -e /pid && { echo refused; exit 1; }; echo started; echo >/pid; echo x >>/v/runs; exit 1";
    let mut clean = pod(&agent, 4, "clean", RestartPolicy::Always, script);
    clean
        .volumes
        .insert("v".to_owned(), Volume::Scratch { size_bytes: 1 << 20 });
    clean.containers[0].mounts.push(Mount {
        volume: "v".to_owned(),
        path: "/v".to_owned(),
        sub_path: None,
        read_only: false,
    });
    let mut wrong = pod(&agent, 5, "wrong", RestartPolicy::Never, "");
    wrong.containers[0].command = vec!["/no/such".to_owned()];
    let mut missing = pod(&agent, 6, "missing", RestartPolicy::Never, "");
    missing.containers[0].image = "nowhere:1".to_owned();
    let mut bare = pod(&agent, 7, "bare", RestartPolicy::Never, "");
    bare.containers[0].image = "bare:1".to_owned();
    bare.containers[0].args.clear();
    let pods = [
        ("u-done", done),
        ("u-eaten", eaten),
        ("u-clean", clean),
        ("u-wrong", wrong),
        ("u-missing", missing),
        ("u-bare", bare),
    ];
    let mut wanted = agent.config(pods);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);

    let over = |uid: &'static str, phase| {
        move |s: &NodeStatus| {
            let free = |p: &PodStatus| p.cpus.is_empty() && p.memory_bytes == 0 && p.address.is_none();
            s.pods.get(uid).is_some_and(|p| p.phase == phase && free(p))
        }
    };
    let end = |s: &NodeStatus, uid: &str| s.pods[uid].containers[0].ended.clone().unwrap();
    let status = orchestrator
        .until("done", over("u-done", PodPhase::Succeeded))
        .await;
    let how = end(&status, "u-done");
    assert_eq!((how.reason, how.exit_code), (EndReason::Completed, 0));
    assert!(how.started_at_ms > 0 && how.finished_at_ms >= how.started_at_ms);
    assert_eq!(log(&orchestrator, "u-done", false).await, "last words\n");
    assert_eq!(
        log(&orchestrator, "u-done", true).await,
        "last words\n",
        "it comes to its end"
    );
    let status = orchestrator
        .until("wrong", over("u-wrong", PodPhase::Failed))
        .await;
    let how = end(&status, "u-wrong");
    assert_eq!((how.reason, how.exit_code), (EndReason::StartError, 128));
    assert!(how.message.contains("/no/such"), "{how:?}");

    let eaten = |s: &NodeStatus| {
        let last = s.pods["u-eaten"].containers[0].last_ended.as_ref();
        last.is_some_and(|e| (e.reason, e.exit_code, e.signal) == (EndReason::OomKilled, 137, Some(9)))
    };
    orchestrator.until("out of memory", eaten).await;
    let no_image =
        |s: &NodeStatus| s.pods["u-missing"].containers[0].waiting == Some(WaitingReason::ImagePullBackOff);
    orchestrator.until("no image", no_image).await;
    let no_command = |s: &NodeStatus| {
        s.pods["u-bare"].containers[0]
            .message
            .contains("no command specified")
    };
    let status = orchestrator.until("no command", no_command).await;
    let waiting = status.pods["u-bare"].containers[0].waiting;
    assert_eq!(waiting, Some(WaitingReason::CreateContainerConfigError));

    let thrice = |s: &NodeStatus| s.pods["u-clean"].containers[0].restarts >= 3;
    let status = orchestrator.until("three restarts", thrice).await;
    assert_eq!(log(&orchestrator, "u-clean", false).await, "started\n");
    let runs = agent.data.path().join("agent/pods/u-clean/volumes/v/runs");
    assert!(
        std::fs::read_to_string(runs).unwrap().lines().count() >= 4,
        "volumes outlive a run"
    );
    assert_eq!(status.pods["u-clean"].phase, PodPhase::Running);

    // A new agent knows of the end, and what the pod held is another's.
    agent.stop(true);
    orchestrator.heard.lock().unwrap().clear();
    wanted.generation = Generation(2);
    wanted.pods.get_mut("u-done").unwrap().desired = PodDesired::Keep;
    let mut heir = pod(&agent, 2, "heir", RestartPolicy::Always, "sleep 1000");
    heir.containers[0].resources.cpus = "1".parse().unwrap();
    wanted.pods.insert("u-heir".to_owned(), heir);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);
    let ready = |s: &NodeStatus| s.pods.get("u-heir").is_some_and(|p| p.ready);
    let status = orchestrator.until("the heir", ready).await;
    assert!(
        over("u-done", PodPhase::Succeeded)(&status),
        "{:?}",
        status.pods["u-done"]
    );
    assert_eq!(log(&orchestrator, "u-done", false).await, "last words\n");
    wanted.generation = Generation(3);
    wanted.pods.remove("u-done");
    orchestrator.wants(&wanted);
    orchestrator
        .until("nothing of it", |s| !s.pods.contains_key("u-done"))
        .await;
    assert!(!agent.data.path().join("agent/pods/u-done").exists());
    let pods = list(&agent.data.path().join("agent/pods"));
    let roots = pods.iter().flat_map(|pod| list(&pod.join("rootfs")));
    let mounted = roots.filter(|root| root.join("merged").exists()).count();
    let leases = list(&agent.data.path().join("images/leases")).len();
    assert_eq!(leases, mounted, "only what is mounted needs layers");
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Init container, sidecar and main container share a volume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_containers_and_sidecars_have_their_turn() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let main = "test -e /v/made && test -e /v/side && echo all there; exit 0";
    let mut job = pod(&agent, 7, "job", RestartPolicy::Never, main);
    job.volumes
        .insert("v".to_owned(), Volume::Scratch { size_bytes: 1 << 20 });
    job.containers[0].mounts.push(Mount {
        volume: "v".to_owned(),
        path: "/v".to_owned(),
        sub_path: None,
        read_only: false,
    });
    for (at, name, role, script) in [
        (0, "make", ContainerRole::Init, "echo >/v/made"),
        (1, "side", ContainerRole::Sidecar, "echo >/v/side; sleep 1000"),
        (
            2,
            "wait",
            ContainerRole::Init,
            "until test -e /v/side; do sleep 0.05; done",
        ),
    ] {
        let container = ContainerConfig {
            name: name.to_owned(),
            role,
            args: vec![script.to_owned()],
            ..job.containers.last().unwrap().clone()
        };
        job.containers.insert(at, container);
    }
    orchestrator.wants(&agent.config([("u-job", job)]));
    agent.start(&orchestrator);
    let over = |s: &NodeStatus| {
        s.pods
            .get("u-job")
            .is_some_and(|p| p.phase == PodPhase::Succeeded)
    };
    let status = orchestrator.until("the end", over).await;
    let reasons = status.pods["u-job"].containers.iter();
    let reasons: Vec<_> = reasons.map(|c| c.ended.as_ref().map(|e| e.reason)).collect();
    let well = Some(EndReason::Completed);
    assert_eq!((reasons[0], reasons[2], reasons[3]), (well, well, well));
    assert_eq!(log(&orchestrator, "u-job", false).await, "all there\n");
}

/// Parameters of the kernel are set in the pod's own namespaces, and nowhere else; one that is not there is no start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sysctls_are_the_pods_own() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let names = [
        "net/ipv4/ip_forward",
        "net/ipv4/ip_unprivileged_port_start",
        "kernel/shm_rmid_forced",
    ];
    let of_host = || names.map(|name| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap());
    let before = of_host();
    let other = |value: &String| if value == "1\n" { "0" } else { "1" };
    let asked = before.each_ref().map(other);
    let script = format!("cd /proc/sys; exec cat {}", names.join(" "));
    let pod_with = |last, name, sysctls: BTreeMap<String, String>| {
        let mut pod = pod(&agent, last, name, RestartPolicy::Never, &script);
        pod.security.sysctls = sysctls;
        pod
    };
    let asks = names.map(|name| name.replace('/', ".")).into_iter();
    let asks = asks.zip(asked.map(str::to_owned)).collect();
    let missing = [("net.ipv4.no_such".to_owned(), "1".to_owned())].into();
    let pods = [
        ("u-asks", pod_with(2, "asks", asks)),
        ("u-plain", pod_with(3, "plain", BTreeMap::new())),
        ("u-wrong", pod_with(4, "wrong", missing)),
    ];
    let wanted = agent.config(pods);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);
    let ended = |s: &NodeStatus| {
        let phase = |uid: &str| s.pods.get(uid).map(|p| p.phase);
        let refused = |c: &ContainerStatus| c.pid.is_none() && c.message.contains("cannot start container");
        ["u-asks", "u-plain"]
            .iter()
            .all(|uid| phase(uid) == Some(PodPhase::Succeeded))
            && s.pods.get("u-wrong").is_some_and(|p| refused(&p.containers[0]))
    };
    orchestrator.until("two ends and a refusal", ended).await;
    let seen = log(&orchestrator, "u-asks", false).await;
    assert_eq!(seen.lines().collect::<Vec<_>>(), asked);
    assert_ne!(log(&orchestrator, "u-plain", false).await, seen);
    assert_eq!(of_host(), before);
}

/// What leaves too much on the disk is evicted, wherever it leaves it; its neighbour does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fills_the_disk_is_evicted() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let filler = |last, name, script: &str| {
        let mut pod = pod(&agent, last, name, RestartPolicy::Always, script);
        pod.containers[0].resources.memory_bytes = 64 << 20;
        let volume = Volume::EmptyDir {
            limit_bytes: 10 << 20,
        };
        pod.volumes.insert("v".to_owned(), volume);
        pod.containers[0].mounts.push(Mount {
            volume: "v".to_owned(),
            path: "/v".to_owned(),
            sub_path: None,
            read_only: false,
        });
        pod
    };
    let write = |path: &str, mebi: u32| {
        format!(
            "busybox dd if=/dev/zero of={path} bs=64k count={}; sleep 1000",
            mebi * 16
        )
    };
    let bounded = |mut pod: PodConfig| {
        pod.containers[0].ephemeral_storage.limit_bytes = 10 << 20;
        pod
    };
    let of_pod = "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi.";
    let of_volume = "Usage of EmptyDir volume \"v\" exceeds the limit \"10Mi\".";
    let open = |path: &str| {
        let write = "busybox dd if=/dev/zero bs=64k count=320 >&5";
        format!("exec 5>{path}; busybox rm {path}; {write}; sleep 1000")
    };
    let logs = "busybox yes a line of a log | busybox head -c 15000000; sleep 1000";
    let pods = [
        ("u-root", bounded(filler(2, "root", &write("/big", 50)))),
        ("u-dir", filler(3, "dir", &write("/v/big", 50))),
        ("u-logs", bounded(filler(4, "logs", logs))),
        ("u-open", bounded(filler(6, "open", &open("/big")))),
        ("u-hidden", bounded(filler(7, "hidden", &open("/v/big")))),
        ("u-calm", bounded(filler(5, "calm", &write("/v/small", 5)))),
    ];
    let wanted = agent.config(pods);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);
    let evicted = |uid: &'static str, why: &'static str| {
        move |s: &NodeStatus| {
            s.pods.get(uid).is_some_and(|p| {
                let how = (p.phase, p.reason, p.message.as_str());
                how == (PodPhase::Failed, Some(PodReason::Evicted), why) && p.address.is_none()
            })
        }
    };
    let whys = [
        ("u-root", of_pod),
        ("u-dir", of_volume),
        ("u-logs", of_pod),
        ("u-open", of_pod),
        ("u-hidden", of_pod),
    ];
    for (uid, why) in whys {
        orchestrator.until(uid, evicted(uid, why)).await;
        let left = agent.data.path().join("agent/pods").join(uid);
        for what in ["rootfs", "volumes", "logs"] {
            assert!(!left.join(what).exists(), "{what} of {uid}");
        }
    }
    agent.stop(true);
    orchestrator.heard.lock().unwrap().clear();
    agent.start(&orchestrator);
    let calm = |s: &NodeStatus| {
        s.pods
            .get("u-calm")
            .is_some_and(|p| p.ready && p.containers[0].restarts == 0)
    };
    orchestrator.until("the neighbour", calm).await;
    orchestrator.until("what was", evicted("u-root", of_pod)).await;
}
