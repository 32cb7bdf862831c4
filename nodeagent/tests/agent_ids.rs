//! Pods with ids of their own (`hostUsers: false`) under the real agent: what they see, what the host sees, and what is left.

mod agent_support;
#[path = "agent_ids/parts.rs"]
mod parts;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agent_support::orchestrator::Orchestrator;
use agent_support::{Agent, cni_or_skip};
use gantry_nodeagent_api::*;

const IDS: u32 = 65_536;

/// Tells what it is and what it sees, a word and a value a line.
const TELL: &str = "busybox stat -L -c '%n %u:%g' / /bin/busybox /etc/hosts /files/a /secret/b /disk /memory /host /dev/null /proc/sys; \
    echo >/disk/mine; echo >/host/mine; echo >/made; busybox chown 7:8 /made /host/mine; busybox mkdir -m 711 /deep; \
    busybox cp /bin/busybox /setuid; busybox chmod 4755 /setuid; echo no >/files/a || echo files are kept; \
    busybox stat -c '%n %u:%g' /made /host/mine /disk/mine /disk/by-init; echo groups $(busybox id -G); \
    test $(busybox readlink /proc/self/ns/user) = $(cat /disk/by-init) && echo shared with the init container; \
    busybox tunctl -t tun7; busybox ip address add 192.0.2.7/32 dev lo && echo the network is its own; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced; \
    echo >/proc/sys/kernel/core_pattern || echo the kernel is not; echo map $(cat /proc/self/uid_map); \
    mkdir -p /www; echo $HOSTNAME >/www/name; echo up; exec httpd -f -p 8080 -h /www";

fn mount(volume: &str) -> Mount {
    Mount {
        volume: volume.to_owned(),
        path: format!("/{volume}"),
        sub_path: None,
        read_only: false,
    }
}

fn exec_probe() -> Probe {
    Probe {
        action: ProbeAction::Exec {
            command: ["/bin/sh", "-c", "test -e /www/name && echo >/dev/stderr"]
                .map(str::to_owned)
                .to_vec(),
        },
        initial_delay_ms: 0,
        period_ms: 200,
        timeout_ms: 5000,
        failure_threshold: 1,
        success_threshold: 1,
        termination_grace_s: None,
    }
}

fn pod(agent: &Agent, last: u8, host: &Path) -> PodConfig {
    let volumes = BTreeMap::from([
        (
            "files".to_owned(),
            Volume::Files([("a".to_owned(), "text".into())].into()),
        ),
        (
            "secret".to_owned(),
            Volume::SecretFiles([("b".to_owned(), "text".into())].into()),
        ),
        ("disk".to_owned(), Volume::EmptyDir { limit_bytes: 0 }),
        ("memory".to_owned(), Volume::Scratch { size_bytes: 1 << 20 }),
        (
            "host".to_owned(),
            Volume::HostPath {
                path: host.to_str().unwrap().to_owned(),
                kind: HostPathType::Directory,
            },
        ),
    ]);
    let security = Security {
        capabilities: vec!["NET_ADMIN".to_owned()],
        root_capabilities: ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]
            .map(str::to_owned)
            .to_vec(),
        allow_privilege_escalation: true,
        ..Security::default()
    };
    let main = ContainerConfig {
        name: "c".to_owned(),
        image: "busybox:1".to_owned(),
        args: vec![TELL.to_owned()],
        resources: ContainerResources {
            cpu_request_milli: 100,
            memory_bytes: 32 << 20,
            ..Default::default()
        },
        mounts: volumes.keys().map(|name| mount(name)).collect(),
        security,
        readiness: Some(exec_probe()),
        ..ContainerConfig::default()
    };
    let init = ContainerConfig {
        name: "first".to_owned(),
        role: ContainerRole::Init,
        args: vec!["busybox readlink /proc/self/ns/user >/disk/by-init".to_owned()],
        readiness: None,
        ..main.clone()
    };
    PodConfig {
        namespace: "core".to_owned(),
        name: format!("own{last}"),
        address: Some(Ipv4Addr::new(10, 191, agent.third, last)),
        termination_grace_s: 1,
        containers: vec![init, main],
        volumes,
        security: PodSecurity {
            own_ids: true,
            fs_group: Some(2000),
            sysctls: [("net.ipv4.ip_forward", "1"), ("kernel.shm_rmid_forced", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..PodSecurity::default()
        },
        ..PodConfig::default()
    }
}

async fn said(orchestrator: &Orchestrator, kind: SessionKind) -> String {
    let mut text = Vec::new();
    for frame in orchestrator.session(kind, vec![]).await {
        match frame {
            SessionFrame::Stdout(data) | SessionFrame::Stderr(data) => text.extend_from_slice(&data),
            SessionFrame::Error(reason) => text.extend_from_slice(reason.as_bytes()),
            _ => {}
        }
    }
    String::from_utf8(text).unwrap()
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
    said(orchestrator, kind).await
}

async fn exec(orchestrator: &Orchestrator, uid: &str, script: &str, tty: bool) -> String {
    let kind = SessionKind::Exec {
        pod: uid.to_owned(),
        container: "c".to_owned(),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        tty,
        stdin: tty,
    };
    said(orchestrator, kind).await.replace('\r', "")
}

/// The host's ids of a process: real, effective, saved, of the file system.
fn ids_of(pid: u32, row: &str) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(row)).unwrap();
    line.split_whitespace()
        .skip(1)
        .map(|id| id.parse().unwrap())
        .collect()
}

fn owner(path: PathBuf) -> (u32, u32) {
    let found = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (found.uid(), found.gid())
}

fn all_ready(status: &NodeStatus, count: usize) -> bool {
    status.pods.len() == count && status.pods.values().all(|pod| pod.ready)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_of_the_pod_is_nobody_on_the_host() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let pods = [("u-a", 2), ("u-b", 3)].map(|(uid, last)| (uid.to_owned(), pod(&agent, last, host.path())));
    let mut wanted = agent.config(pods);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);
    let status = orchestrator.until("both pods", |s| all_ready(s, 2)).await;
    let pid = |status: &NodeStatus, uid: &str| status.pods[uid].containers[1].pid.unwrap();

    let text = log(&orchestrator, "u-a").await;
    let map = text.lines().find_map(|line| line.strip_prefix("map 0 ")).unwrap();
    let first: u32 = map.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(map, format!("{first} {IDS}"));
    for line in [
        "/ 0:0",
        "/bin/busybox 0:0",
        "/etc/hosts 0:0",
        "/files/a 0:2000",
        "/secret/b 0:2000",
        "/disk 0:2000",
        "/memory 0:2000",
        "/host 0:0",
        "/dev/null 0:0",
        "/made 7:8",
        "/host/mine 7:8",
        "/disk/mine 0:2000",
        "files are kept",
        "groups 0 2000",
        "shared with the init container",
        "the network is its own",
        "1\n1",
        "the kernel is not",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
    }

    if fs::File::open("/dev/net/tun").is_ok() {
        assert!(text.contains("tun7\n"), "{text}");
    }

    // On the host: nobody's ids, also of the files that it has written; those of the image are as they were.
    let main = pid(&status, "u-a");
    assert_eq!(ids_of(main, "Uid:"), [first; 4]);
    assert_eq!(ids_of(main, "Groups:"), [first + 2000]);
    let data = agent.data.path();
    let upper = data.join("agent/pods/u-a/rootfs/c/upper");
    for (file, id) in [("", 0), ("setuid", 0), ("www/name", 0), ("deep", 0), ("files", 0)] {
        assert_eq!(owner(upper.join(file)), (first + id, first + id), "{file}");
    }
    assert_eq!(owner(upper.join("made")), (first + 7, first + 8));
    assert_eq!(
        fs::metadata(upper.join("setuid")).unwrap().mode() & 0o7777,
        0o4755
    );
    for layer in fs::read_dir(data.join("images/layers")).unwrap() {
        assert_eq!(owner(layer.unwrap().path().join("bin/busybox")), (0, 0));
    }
    // A volume of the host is shared with others, and so has the ids that are seen.
    assert_eq!(owner(host.path().join("mine")), (7, 8));

    let other = ids_of(pid(&status, "u-b"), "Uid:")[0];
    assert!(other.abs_diff(first) >= IDS, "{first} and {other}");

    commands_are_in_the_namespace(&orchestrator, main).await;
    restarts_keep_it(&orchestrator, &mut agent, first).await;
    so_does_a_reboot(&orchestrator, &mut agent, first).await;

    wanted.generation = Generation(2);
    wanted.pods.remove("u-b");
    orchestrator.wants(&wanted);
    orchestrator.until("b to be gone", |s| s.pods.len() == 1).await;
    let agent_dir = agent.data.path().join("agent");
    assert!(!agent_dir.join("userns/u-b").exists() && !agent_dir.join("netns/u-b").exists());
    assert_eq!(fs::read_dir(agent_dir.join("ids")).unwrap().count(), 1);
}

async fn commands_are_in_the_namespace(orchestrator: &Orchestrator, main: u32) {
    let namespace = fs::read_link(format!("/proc/{main}/ns/user")).unwrap();
    let namespace = namespace.to_str().unwrap();
    // Its streams are its own to open again, as shells do.
    let script = "busybox readlink /proc/self/ns/user; echo heard >/dev/stderr; busybox id -u; busybox kill -0 1 && echo it sees the others";
    for tty in [false, true] {
        let text = exec(orchestrator, "u-a", script, tty).await;
        for line in [namespace, "heard", "0", "it sees the others"] {
            assert!(text.lines().any(|l| l == line), "{line}, terminal {tty}: {text}");
        }
    }
    let forward = SessionKind::PortForward {
        pod: "u-a".to_owned(),
        port: 8080,
    };
    let request = vec![SessionFrame::Stdin("GET /name HTTP/1.0\r\n\r\n".into())];
    let frames = orchestrator.session(forward, request).await;
    let answered =
        |frame: &SessionFrame| matches!(frame, SessionFrame::Stdout(data) if data.ends_with(b"own2\n"));
    assert!(frames.iter().any(answered), "{frames:?}");
}

/// Neither a new agent nor a new run of the container changes the ids: what is on a volume stays the pod's.
async fn restarts_keep_it(orchestrator: &Orchestrator, agent: &mut Agent, first: u32) {
    agent.stop(true);
    orchestrator.heard.lock().unwrap().clear();
    agent.start(orchestrator);
    let status = orchestrator.until("both pods again", |s| all_ready(s, 2)).await;
    let before = &status.pods["u-a"].containers[1];
    assert_eq!(before.restarts, 0);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(before.pid.unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    let again = |s: &NodeStatus| s.pods["u-a"].containers[1].restarts == 1 && all_ready(s, 2);
    let status = orchestrator.until("another run", again).await;
    assert_eq!(
        ids_of(status.pods["u-a"].containers[1].pid.unwrap(), "Uid:")[0],
        first
    );
    let text = log(orchestrator, "u-a").await;
    assert!(
        text.contains("/disk/mine 0:2000\n") && text.contains("/bin/busybox 0:0\n"),
        "{text}"
    );
    let script = "busybox stat -c %u /disk/mine; test -e /host/mine && echo kept";
    assert_eq!(exec(orchestrator, "u-a", script, false).await, "0\nkept\n");
}

/// Without its shim, its namespaces and its mounts, but with its files and the agent's.
async fn so_does_a_reboot(orchestrator: &Orchestrator, agent: &mut Agent, first: u32) {
    agent.stop(true);
    let agent_dir = agent.data.path().join("agent");
    let shim = fs::read_to_string(agent_dir.join("pods/u-a/shim.pid")).unwrap();
    let shim = shim.split(' ').next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::SIGKILL).unwrap();
    for kind in ["netns", "userns"] {
        let path = agent_dir.join(kind).join("u-a");
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    for root in ["first", "c"] {
        let path = agent_dir.join("pods/u-a/rootfs").join(root).join("merged");
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    orchestrator.heard.lock().unwrap().clear();
    agent.start(orchestrator);
    let again = |s: &NodeStatus| all_ready(s, 2) && s.pods["u-a"].containers[1].restarts > 1;
    let status = orchestrator.until("the pod after a reboot", again).await;
    assert_eq!(
        ids_of(status.pods["u-a"].containers[1].pid.unwrap(), "Uid:")[0],
        first
    );
    let script = "busybox stat -c %u /disk/mine; busybox ip -4 address show eth0";
    let text = exec(orchestrator, "u-a", script, false).await;
    let address = format!("inet 10.191.{}.2/", agent.third);
    assert!(text.starts_with("0\n") && text.contains(&address), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_mapped_does_not_start() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let mut unmappable = pod(&agent, 2, Path::new("/sys/kernel"));
    unmappable.containers.remove(0);
    let mut stranger = pod(&agent, 3, Path::new("/tmp"));
    stranger.containers.remove(0);
    stranger.containers[0].security.user = Some(IDS);
    let pods = [("u-sys", unmappable), ("u-user", stranger)];
    let wanted = agent.config(pods);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);
    for (uid, why) in [
        (
            "u-sys",
            "/sys/kernel cannot be mounted at /host in a pod with `hostUsers: false`",
        ),
        (
            "u-user",
            "user or group 65536 does not exist in a pod with `hostUsers: false`",
        ),
    ] {
        let told = |s: &NodeStatus| {
            let container = s.pods.get(uid).map(|pod| &pod.containers[0]);
            container.is_some_and(|c| !c.running && c.pid.is_none() && c.message.contains(why))
        };
        orchestrator.until(why, told).await;
    }
}
