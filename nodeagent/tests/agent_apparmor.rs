//! AppArmor profiles of the node on real containers. Where the kernel has no AppArmor, what asks for a profile is refused, and the rest
//! says `SKIPPED` (`REQUIRE=apparmor` makes that a failure).

mod agent_support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use agent_support::orchestrator::Orchestrator;
use agent_support::{Agent, cni_or_skip};
use gantry_nodeagent_api::*;

/// All may be done, but one file may not be written.
const RULES: &str =
    "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, deny /tmp/x w,";
const TRY: &str = "exec 2>&1; cat /proc/self/attr/current; echo >/tmp/x && echo x; echo >/tmp/y && echo y";

/// A profile that the kernel has, until it is dropped.
struct Profile(String);

impl Profile {
    fn load() -> Self {
        let profile = Self(format!("gantry-test-{}", std::process::id()));
        profile.parse("--replace");
        profile
    }

    fn parse(&self, how: &str) {
        let mut parser = Command::new("apparmor_parser");
        parser.args([how, "--skip-cache"]).stdin(Stdio::piped());
        let mut parser = parser.spawn().unwrap();
        let text = format!("profile {} flags=(attach_disconnected) {{ {RULES} }}", self.0);
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success());
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parse("--remove");
    }
}

/// Whether the kernel has it; if not, that is said.
fn has_apparmor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let has = enabled.is_ok_and(|text| text.starts_with('Y'));
    if !has {
        eprintln!("SKIPPED: this kernel has no AppArmor; only refusals are tried");
        let required = std::env::var("REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|area| area == "apparmor"), "no AppArmor");
    }
    has
}

fn pod(agent: &Agent, last: u8, own_ids: bool, profile: &str) -> PodConfig {
    let container = ContainerConfig {
        name: "c".to_owned(),
        image: "busybox:1".to_owned(),
        args: vec![format!("mkdir /tmp; {TRY}; echo >/tmp/up; sleep 1000")],
        resources: ContainerResources {
            cpu_request_milli: 100,
            memory_bytes: 32 << 20,
            ..Default::default()
        },
        security: Security {
            apparmor_profile: Some(profile.to_owned()),
            ..Security::default()
        },
        readiness: Some(Probe {
            action: ProbeAction::Exec {
                command: ["/bin/sh", "-c", "test -e /tmp/up"].map(str::to_owned).to_vec(),
            },
            initial_delay_ms: 0,
            period_ms: 200,
            timeout_ms: 5000,
            failure_threshold: 1,
            success_threshold: 1,
            termination_grace_s: None,
        }),
        ..ContainerConfig::default()
    };
    PodConfig {
        namespace: "core".to_owned(),
        name: format!("p{last}"),
        address: Some([10, 191, agent.third, last].into()),
        termination_grace_s: 1,
        containers: vec![container],
        security: PodSecurity {
            own_ids,
            ..PodSecurity::default()
        },
        ..PodConfig::default()
    }
}

async fn stdout(orchestrator: &Orchestrator, kind: SessionKind) -> String {
    let mut text = Vec::new();
    for frame in orchestrator.session(kind, vec![]).await {
        if let SessionFrame::Stdout(data) = frame {
            text.extend_from_slice(&data);
        }
    }
    String::from_utf8(text).unwrap()
}

fn log(uid: &str) -> SessionKind {
    SessionKind::Logs {
        pod: uid.to_owned(),
        container: "c".to_owned(),
        follow: false,
        tail_lines: None,
        previous: false,
        since_ms: None,
        stream: None,
        timestamps: false,
    }
}

fn command(uid: &str) -> SessionKind {
    SessionKind::Exec {
        pod: uid.to_owned(),
        container: "c".to_owned(),
        argv: ["/bin/sh", "-c", TRY].map(str::to_owned).to_vec(),
        tty: false,
        stdin: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_of_the_node_is_in_force_or_refused() {
    let Some(cni) = cni_or_skip() else { return };
    let profile = has_apparmor().then(Profile::load);
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let mut pods = vec![("u-unknown", pod(&agent, 2, false, "gantry-no-such"))];
    if let Some(Profile(name)) = &profile {
        pods.push(("u-host", pod(&agent, 3, false, name)));
        pods.push(("u-own", pod(&agent, 4, true, name)));
        pods.push(("u-free", pod(&agent, 5, false, "unconfined")));
    }
    orchestrator.wants(&agent.config(pods));
    agent.start(&orchestrator);
    let why = match &profile {
        Some(_) => "AppArmor profile `gantry-no-such` cannot be put in force: it is not loaded on this node",
        None => {
            "AppArmor profile `gantry-no-such` cannot be put in force: the kernel of this node has no AppArmor"
        }
    };
    let refused = |s: &NodeStatus| {
        let container = s.pods.get("u-unknown").map(|pod| &pod.containers[0]);
        container.is_some_and(|c| !c.running && c.pid.is_none() && c.message.contains(why))
    };
    orchestrator.until(why, refused).await;
    let Some(Profile(name)) = &profile else { return };
    let ready = |s: &NodeStatus| s.pods.values().filter(|pod| pod.ready).count() == 3;
    orchestrator.until("three pods", ready).await;
    let confined = format!("{name} (enforce)\n/bin/sh: can't create /tmp/x: Permission denied\ny\n");
    let cases = [
        ("u-host", confined.as_str()),
        ("u-own", &confined),
        ("u-free", "unconfined\nx\ny\n"),
    ];
    for (uid, expected) in cases {
        for (what, kind) in [("container", log(uid)), ("command", command(uid))] {
            assert_eq!(stdout(&orchestrator, kind).await, expected, "{what} of {uid}");
        }
    }
}
