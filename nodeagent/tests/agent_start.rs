//! The real agent, and containers that cannot be made at first: what is asked is in force for each that is made after all.

mod agent_support;

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use agent_support::orchestrator::Orchestrator;
use agent_support::{Agent, cni_or_skip};
use gantry_nodeagent::host::cgroup::{Applied, Cgroups};
use gantry_nodeagent_api::*;

/// A container that is called, and limited, so.
fn container(name: &str, cpus: &str, memory_bytes: u64) -> ContainerConfig {
    ContainerConfig {
        name: name.to_owned(),
        image: "busybox:1".to_owned(),
        args: vec!["sleep 1000".to_owned()],
        resources: ContainerResources {
            cpus: cpus.parse().unwrap(),
            cpu_request_milli: 100,
            cpu_limit_milli: Some(500),
            memory_bytes,
            ..Default::default()
        },
        ..ContainerConfig::default()
    }
}

fn pod(agent: &Agent, last: u8, containers: Vec<ContainerConfig>) -> PodConfig {
    PodConfig {
        namespace: "core".to_owned(),
        name: format!("p{last}"),
        address: Some(Ipv4Addr::new(10, 191, agent.third, last)),
        termination_grace_s: 1,
        restart_policy: RestartPolicy::Always,
        containers,
        ..PodConfig::default()
    }
}

/// What the kernel shows is what was asked for, on these CPUs.
fn assert_confined(in_force: &Applied, wanted: &ContainerConfig, cpus: &str) {
    let asked = &wanted.resources;
    assert_eq!(in_force.cpus, cpus.parse().unwrap(), "{}", wanted.name);
    assert_eq!(
        (
            in_force.cpu_request_milli,
            in_force.cpu_limit_milli,
            in_force.memory_bytes
        ),
        (asked.cpu_request_milli, asked.cpu_limit_milli, asked.memory_bytes),
        "{}",
        wanted.name
    );
}

fn of<'a>(status: &'a NodeStatus, uid: &str, name: &str) -> Option<&'a ContainerStatus> {
    let mut containers = status.pods.get(uid)?.containers.iter();
    containers.find(|c| c.name == name)
}

fn runs(status: &NodeStatus, uid: &str, name: &str) -> bool {
    of(status, uid, name).is_some_and(|c| c.running)
}

/// How its last run ended: where it waits for the next one, that is told as the one before.
fn last_end<'a>(status: &'a NodeStatus, uid: &str, name: &str) -> Option<&'a RunEnd> {
    let container = of(status, uid, name)?;
    container.ended.as_ref().or(container.last_ended.as_ref())
}

/// A program on a volume, there only after the first tries: what could not be started leaves a group without limits, which
/// has the CPU of the container beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_comes_later_has_the_limits_of_its_container() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let late = |name: &str, role| {
        let mut late = container(name, "", 32 << 20);
        late.role = role;
        late.command = vec![format!("/v/{name}")];
        late.args.clear();
        late.mounts.push(Mount {
            volume: "v".to_owned(),
            path: "/v".to_owned(),
            sub_path: None,
            read_only: false,
        });
        late
    };
    let roles = [
        ("init", ContainerRole::Init),
        ("sidecar", ContainerRole::Sidecar),
        ("late", ContainerRole::Main),
    ];
    let late = roles.map(|(name, role)| late(name, role));
    let mut containers = vec![container("own", "1", 32 << 20)];
    containers.splice(0..0, late.clone());
    let mut wanted = pod(&agent, 2, containers);
    let volume = Volume::Scratch { size_bytes: 1 << 20 };
    wanted.volumes.insert("v".to_owned(), volume);
    orchestrator.wants(&agent.config([("u", wanted)]));
    agent.start(&orchestrator);

    let cgroups = Cgroups::detect(&agent.instance).unwrap();
    let volume = agent.data.path().join("agent/pods/u/volumes/v");
    for container in &late {
        let name = &container.name;
        let cannot = |s: &NodeStatus| {
            let end = last_end(s, "u", name);
            end.is_some_and(|end| end.reason == EndReason::StartError)
        };
        orchestrator.until("a failed start", cannot).await;
        put(
            &volume.join(name),
            "#!/bin/sh\nuntil test -e /v/go; do sleep 0.1; done\n",
        );
        orchestrator.until(name, |s| runs(s, "u", name)).await;
        assert_confined(&cgroups.in_force("u", name).unwrap(), container, "0");
        if container.role == ContainerRole::Init {
            put(&volume.join("go"), "");
            let done = |s: &NodeStatus| last_end(s, "u", "sidecar").is_some();
            orchestrator.until("the init container's end", done).await;
            fs::remove_file(volume.join("go")).unwrap();
        }
    }
    orchestrator.until("the other one", |s| runs(s, "u", "own")).await;
    let own = container("own", "1", 32 << 20);
    assert_confined(&cgroups.in_force("u", "own").unwrap(), &own, "1");
}

/// A program that is there all at once.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, Permissions::from_mode(0o755)).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// With too little memory a container cannot even be made, however often it is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_made_within_its_memory_never_runs_without_a_limit() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let small = container("c", "", 100 << 10);
    let mut wanted = agent.config([("u", pod(&agent, 2, vec![small.clone()]))]);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);

    let cgroups = Cgroups::detect(&agent.instance).unwrap();
    let fails = |s: &NodeStatus| {
        assert!(!runs(s, "u", "c"), "it runs in less memory than a start takes");
        of(s, "u", "c").is_some_and(|c| c.waiting == Some(WaitingReason::CreateContainerError))
    };
    orchestrator.until("a failed start", fails).await;
    // Three tries later; each is a line of the agent's log.
    let tries = || agent.log().matches("cannot start container").count();
    let begun = tries();
    let thrice = |s: &NodeStatus| fails(s) && tries() >= begun + 3;
    orchestrator.until("three more", thrice).await;
    // Between two tries.
    let asked = |_: &NodeStatus| {
        cgroups
            .in_force("u", "c")
            .is_ok_and(|now| now.memory_bytes == 100 << 10)
    };
    orchestrator.until("its limits are in force", asked).await;

    let enough = container("c", "", 32 << 20);
    wanted.generation = Generation(2);
    wanted.pods.get_mut("u").unwrap().containers[0] = enough.clone();
    orchestrator.wants(&wanted);
    orchestrator.until("it runs", |s| runs(s, "u", "c")).await;
    assert_confined(&cgroups.in_force("u", "c").unwrap(), &enough, "0");
}
