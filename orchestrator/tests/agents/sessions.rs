//! Logs, commands and usage, as kubectl asks for them.

use futures::StreamExt;
use gantry_nodeagent_api::{SessionFrame, SessionKind};
use gantry_orchestrator::apiserver::WriteOptions;
use gantry_orchestrator::kinds::named;
use serde_json::json;

use crate::common::agent::Agent;
use crate::common::{Server, has_kubectl};
use crate::{server_with_node, soon};

/// The agent of node n1, and what it runs on.
fn attached(server: &Server) -> (tokio::runtime::Runtime, Agent) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let agent = runtime.block_on(soon(Agent::attach(server, "node-n1", "n1")));
    (runtime, agent.unwrap())
}

pub fn pod_on_node(server: &Server) {
    let pods = named("Pod").unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    server
        .block_on(
            server
                .objects
                .create(pods, "default", pod, WriteOptions::default()),
        )
        .unwrap();
}

#[test]
fn kubectl_reads_logs() {
    if !has_kubectl() {
        return;
    }
    let server = server_with_node("n1");
    pod_on_node(&server);
    assert!(
        server
            .fails(&["logs", "p"], "")
            .contains("the agent of node n1 is not connected")
    );
    let (runtime, mut agent) = attached(&server);
    let answers = runtime.spawn(async move {
        let session = soon(agent.next_session()).await;
        let (up, _down) = agent.open(&session.id).await;
        for frame in [
            SessionFrame::Stdout("one\n".into()),
            SessionFrame::Stdout("two\n".into()),
            SessionFrame::Exit(0),
        ] {
            up.send(frame.into()).await.unwrap();
        }
        up.closed().await;
        session.kind
    });
    assert_eq!(
        server.ok(&["logs", "p", "--tail=2", "--timestamps"]),
        "one\ntwo\n"
    );
    let kind = runtime.block_on(soon(answers)).unwrap();
    assert!(
        matches!(kind, SessionKind::Logs { container, tail_lines: Some(2), timestamps: true, follow: false, .. } if container == "c")
    );
}

#[test]
fn a_node_tells_what_its_pods_take_when_it_is_asked() {
    if !has_kubectl() {
        return;
    }
    let server = server_with_node("n1");
    let path = "/api/v1/nodes/n1/usage";
    assert!(server.fails(&["get", "--raw", path], "").contains("NotFound"));
    let node = json!({"metadata": {"name": "n1"}});
    let created = server
        .objects
        .create(named("Node").unwrap(), "", node, WriteOptions::default());
    server.block_on(created).unwrap();
    let away = server.fails(&["get", "--raw", path], "");
    assert!(away.contains("the agent of node n1 is not connected"), "{away}");
    let (runtime, mut agent) = attached(&server);
    let answers = runtime.spawn(async move {
        let told: [&[SessionFrame]; 2] = [
            &[
                SessionFrame::Stdout("{\"atNanos\":5,".into()),
                SessionFrame::Stdout("\"pods\":{}}".into()),
                SessionFrame::Exit(0),
            ],
            &[SessionFrame::Error("no cgroups".into())],
        ];
        for frames in told {
            let session = soon(agent.next_session()).await;
            assert!(matches!(session.kind, SessionKind::Usage));
            let (up, _down) = agent.open(&session.id).await;
            for frame in frames {
                up.send(frame.clone().into()).await.unwrap();
            }
            up.closed().await;
        }
    });
    assert_eq!(server.ok(&["get", "--raw", path]), "{\"atNanos\":5,\"pods\":{}}");
    let broken = server.fails(&["get", "--raw", path], "");
    assert!(
        broken.contains("node n1 does not tell its usage: no cgroups"),
        "{broken}"
    );
    runtime.block_on(soon(answers)).unwrap();
}

#[test]
fn kubectl_runs_commands() {
    if !has_kubectl() {
        return;
    }
    let server = server_with_node("n1");
    pod_on_node(&server);
    let (runtime, mut agent) = attached(&server);
    let answers = runtime.spawn(async move {
        let session = soon(agent.next_session()).await;
        let (up, mut down) = agent.open(&session.id).await;
        let mut input = Vec::new();
        loop {
            match soon(down.next()).await {
                Some(SessionFrame::Stdin(bytes)) => input.extend_from_slice(&bytes),
                Some(SessionFrame::StdinEof) | None => break,
                Some(_) => {}
            }
        }
        up.send(SessionFrame::Stdout(input.into()).into()).await.unwrap();
        up.send(SessionFrame::Stderr("warned\n".into()).into())
            .await
            .unwrap();
        up.send(SessionFrame::Exit(3).into()).await.unwrap();
        up.closed().await;
        session.kind
    });
    let output = server.kubectl_in(&["exec", "-i", "p", "--", "cat", "-n"], "hello\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("warned"),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let kind = runtime.block_on(soon(answers)).unwrap();
    assert!(matches!(kind, SessionKind::Exec { argv, stdin: true, tty: false, .. } if argv == ["cat", "-n"]));
}

#[test]
fn kubectl_attaches_to_what_a_container_says() {
    if !has_kubectl() {
        return;
    }
    let server = server_with_node("n1");
    pod_on_node(&server);
    let phase = |phase: &str| format!(r#"{{"status":{{"phase":"{phase}"}}}}"#);
    let patch = ["patch", "pod", "p", "--subresource", "status", "-p"];
    server.ok(&[&patch[..], &[&phase("Running")]].concat());
    for ended in ["Failed", "Succeeded"] {
        let refused = server.fails(&[&patch[..], &[&phase(ended)]].concat(), "");
        assert!(refused.contains("only the pod's node"), "{refused}");
    }
    let (runtime, mut agent) = attached(&server);
    let answers = runtime.spawn(async move {
        let session = soon(agent.next_session()).await;
        let (up, _down) = agent.open(&session.id).await;
        up.send(SessionFrame::Stdout("said\n".into()).into())
            .await
            .unwrap();
        up.send(SessionFrame::Exit(0).into()).await.unwrap();
        up.closed().await;
        session.kind
    });
    let output = server.kubectl_in(&["attach", "p"], "");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("said"),
        "{output:?}"
    );
    let kind = runtime.block_on(soon(answers)).unwrap();
    assert!(matches!(
        kind,
        SessionKind::Logs {
            follow: true,
            tail_lines: Some(0),
            ..
        }
    ));
}
