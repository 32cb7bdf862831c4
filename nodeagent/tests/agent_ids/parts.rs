//! Parts of volumes, hooks, last words and changed files of a pod with ids of its own.

use std::fs;
use std::path::Path;

use gantry_nodeagent_api::*;

use super::agent_support::orchestrator::Orchestrator;
use super::agent_support::{Agent, cni_or_skip};
use super::{exec, mount, owner, pod};

/// Writes through each part, says goodbye, and waits.
const SCRIPT: &str = "until test -e /part/hook; do sleep 0.05; done; echo >/part/main; echo >/shared/main; \
    busybox stat -c '%n %u:%g' /part /part/hook /shared/main /one >/part/seen; \
    echo no >/one || echo kept >>/part/seen; echo ended >/dev/termination-log; until test -e /part/over; do sleep 0.05; done; exit 3";

fn part(volume: &str, sub_path: &str, path: &str) -> Mount {
    Mount {
        path: path.to_owned(),
        sub_path: Some(sub_path.to_owned()),
        ..mount(volume)
    }
}

fn hook(script: &str) -> Option<Hook> {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Some(Hook::Exec { command })
}

/// The pod of the other tests, with parts of its volumes, hooks and a last word.
fn with_parts(agent: &Agent, host: &Path) -> PodConfig {
    let mut pod = pod(agent, 2, host);
    pod.containers.remove(0);
    pod.restart_policy = RestartPolicy::Never;
    let container = &mut pod.containers[0];
    container.args = vec![SCRIPT.to_owned()];
    container.readiness = None;
    container.mounts = vec![
        part("disk", "deep/er", "/part"),
        part("host", "shared", "/shared"),
        part("files", "a", "/one"),
        mount("files"),
    ];
    container.post_start = hook("echo $(busybox id -u) >/part/hook");
    container.termination_message.path = "/dev/termination-log".to_owned();
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_volumes_hooks_and_last_words_are_as_with_the_host_s_ids() {
    let Some(cni) = cni_or_skip() else { return };
    let keys = tempfile::tempdir().unwrap();
    let host = tempfile::tempdir().unwrap();
    let orchestrator = Orchestrator::start(keys.path()).await;
    let mut agent = Agent::new(cni);
    let mut stopped = with_parts(&agent, host.path());
    // Entering a container takes seconds in an emulated machine; the hook ends the container.
    stopped.containers[0].pre_stop = hook("echo asked >/shared/stop; echo >/part/over");
    stopped.termination_grace_s = 60;
    stopped.address = Some([10, 191, agent.third, 3].into());
    let pods = [("u-end", with_parts(&agent, host.path())), ("u-stop", stopped)];
    let pods = pods.map(|(uid, pod)| (uid.to_owned(), pod));
    let mut wanted = agent.config(pods);
    orchestrator.wants(&wanted);
    agent.start(&orchestrator);
    let both = |s: &NodeStatus| s.pods.len() == 2 && s.pods.values().all(|pod| pod.ready);
    orchestrator.until("both pods", both).await;

    // A ConfigMap that changes is seen where it is mounted whole.
    wanted.generation = Generation(2);
    for pod in wanted.pods.values_mut() {
        let files = Volume::Files([("a".to_owned(), "changed".into())].into());
        pod.volumes.insert("files".to_owned(), files);
    }
    orchestrator.wants(&wanted);
    let look = "until test \"$(cat /files/a)\" = changed; do sleep 0.05; done; until busybox grep -qs kept /part/seen; do sleep 0.05; done; cat /one /part/hook /part/seen";
    let seen = exec(&orchestrator, "u-end", look, false).await;
    let expected = "text0\n/part 0:2000\n/part/hook 0:2000\n/shared/main 0:0\n/one 0:2000\nkept\n";
    assert_eq!(seen, expected);
    let volumes = agent.data.path().join("agent/pods/u-end/volumes");
    assert_eq!(owner(volumes.join("disk/deep/er/main")), (0, 2000));
    assert_eq!(owner(host.path().join("shared/main")), (0, 0));

    // Last words, of a pod that ends by itself.
    exec(&orchestrator, "u-end", "echo >/part/over", false).await;
    let over = |s: &NodeStatus| s.pods["u-end"].phase == PodPhase::Failed;
    let status = orchestrator.until("the end", over).await;
    let ended = status.pods["u-end"].containers[0].ended.clone().unwrap();
    assert_eq!((ended.exit_code, ended.message.as_str()), (3, "ended\n"));

    // The other hook, of one that is told to end.
    wanted.generation = Generation(3);
    wanted.pods.remove("u-stop");
    orchestrator.wants(&wanted);
    orchestrator
        .until("it to be gone", |s| !s.pods.contains_key("u-stop"))
        .await;
    assert_eq!(
        fs::read_to_string(host.path().join("shared/stop")).unwrap(),
        "asked\n"
    );
}
