//! The whole orchestrator: from a manifest to a configuration on a node, and back to a status.

mod common;

use common::agent::{Agent, send};
use common::{Server, eventually, has_kubectl};
use gantry_nodeagent_api::{
    ContainerStatus, NodeConfig, NodeStatus, OrchestratorMessage, PodConfig, PodDesired, PodPhase, PodStatus,
    Readiness,
};
use gantry_orchestrator::apiserver::Selector;
use gantry_orchestrator::kinds::{at, codec, named};
use gantry_orchestrator::pki;
use serde_json::{Value, json};
use tokio::sync::watch;

fn objects(server: &Server, kind: &str) -> Vec<Value> {
    let kind = named(kind).unwrap();
    let all = Selector::default();
    let found = server.block_on(server.objects.list(kind, None, &all)).unwrap();
    found.items.iter().map(codec::decode).collect()
}

/// A container that started a second after the epoch and is well.
fn running(pod: &PodConfig) -> PodStatus {
    let container = |name: &String| ContainerStatus {
        name: name.clone(),
        running: true,
        started: true,
        ready: true,
        readiness: Readiness::Passed,
        started_at_ms: 1000,
        ..Default::default()
    };
    PodStatus {
        phase: PodPhase::Running,
        ready: true,
        address: pod.address,
        started_at_ms: 1000,
        containers: pod.containers.iter().map(|c| container(&c.name)).collect(),
        ..Default::default()
    }
}

/// A node that does at once what it is told.
async fn obey(mut agent: Agent, told: watch::Sender<NodeConfig>) {
    agent.report(NodeStatus::default()).await;
    while let Ok(Some(message)) = agent.down.message().await {
        let OrchestratorMessage::Config(config) = message.try_into().unwrap() else {
            continue;
        };
        let runs = config.pods.iter().filter(|(_, p)| p.desired == PodDesired::Run);
        let status = NodeStatus {
            accepted: config.generation,
            applied: config.generation,
            pods: runs.map(|(uid, pod)| (uid.clone(), running(pod))).collect(),
            ..Default::default()
        };
        told.send_replace(config);
        agent.report(status).await;
    }
}

#[test]
fn kubectl_waits_for_a_deployment_and_undoes_its_rollout() {
    if !has_kubectl() {
        return;
    }
    let server = Server::with_controllers();
    let issuer = pki::Issuer::open(server.dir.path()).unwrap();
    issuer.issue_node("n1").unwrap();
    let (tell, _told) = watch::channel(NodeConfig::default());
    let agent = server.block_on(Agent::attach(&server, "node-n1", "n1")).unwrap();
    let node = server.spawn(obey(agent, tell));
    eventually("the namespace", || {
        objects(&server, "Namespace")
            .iter()
            .any(|n| at(n, "/metadata/name") == "default")
    });
    server.ok(&["create", "deployment", "web", "--image=web:1", "--replicas=2"]);
    server.ok(&[
        "wait",
        "--for=condition=Available",
        "deployment/web",
        "--timeout=60s",
    ]);
    server.ok(&[
        "annotate",
        "deployment",
        "web",
        "kubernetes.io/change-cause=the first",
    ]);
    server.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    server.ok(&["set", "image", "deployment/web", "web=web:2"]);
    server.ok(&[
        "annotate",
        "--overwrite",
        "deployment",
        "web",
        "kubernetes.io/change-cause=the second",
    ]);
    server.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let history = || {
        let text = server.ok(&["rollout", "history", "deployment/web"]);
        let rows = text.lines().filter(|l| l.starts_with(char::is_numeric));
        rows.map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    eventually("two revisions", || history() == ["1 the first", "2 the second"]);
    server.ok(&["rollout", "undo", "deployment/web"]);
    server.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    eventually("the first is the newest", || {
        history() == ["2 the second", "3 the first"]
    });
    let images: Vec<_> = objects(&server, "Pod")
        .iter()
        .filter(|p| at(p, "/metadata/deletionTimestamp").is_null())
        .map(|p| at(p, "/spec/containers/0/image").clone())
        .collect();
    assert_eq!(images, ["web:1", "web:1"]);
    assert_eq!(objects(&server, "ReplicaSet").len(), 2);
    server.stop();
    drop(node);
}

#[test]
fn a_deployment_comes_to_a_node_gets_ready_and_goes() {
    let server = Server::with_controllers();
    pki::Issuer::open(server.dir.path())
        .unwrap()
        .issue_node("n1")
        .unwrap();
    eventually("the namespace", || {
        objects(&server, "Namespace")
            .iter()
            .any(|n| at(n, "/metadata/name") == "default")
    });
    let (tell, told) = watch::channel(NodeConfig::default());
    let agent = server.block_on(Agent::attach(&server, "node-n1", "n1")).unwrap();
    let node = server.spawn(obey(agent, tell));

    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "nginx:1", "resources": {"limits": {"memory": "0.5Gi"}}}]},
        },
    }});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let reply = server.block_on(send(
        &server,
        "POST",
        path,
        "application/json",
        deployment.to_string(),
    ));
    assert_eq!(reply.status(), 201);
    eventually("two ready replicas", || {
        objects(&server, "Deployment")
            .iter()
            .any(|d| at(d, "/status/readyReplicas") == 2)
    });

    let pods = objects(&server, "Pod");
    assert_eq!(pods.len(), 2);
    let config = told.borrow().clone();
    for pod in &pods {
        assert_eq!(at(pod, "/spec/nodeName"), "n1");
        assert_eq!(at(pod, "/status/phase"), "Running");
        assert_eq!(at(pod, "/status/containerStatuses/0/image"), "nginx:1");
        let on_node = &config.pods[at(pod, "/metadata/uid").as_str().unwrap()];
        assert_eq!(on_node.containers[0].resources.memory_bytes, 512 << 20);
        let address = on_node.address.map(|a| a.to_string());
        assert_eq!(at(pod, "/status/podIP").as_str(), address.as_deref());
    }

    let path = format!("{path}/web");
    server.block_on(send(&server, "DELETE", &path, "", String::new()));
    eventually("all of it is gone", || {
        ["Deployment", "ReplicaSet", "Pod"]
            .iter()
            .all(|kind| objects(&server, kind).is_empty())
    });
    let stopped = |p: &PodConfig| p.desired == PodDesired::Stop;
    assert!(told.borrow().pods.values().all(stopped));
    server.stop();
    drop(node);
}

const CLAIM: &str = "---\n{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, \
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}";
const USER: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: user}, spec: {\
    containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}], \
    volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}}";

/// A claim by stock kubectl: what it shows, what it may change, how it goes.
#[test]
fn kubectl_sees_a_claim_bound_grown_protected_and_gone() {
    if !has_kubectl() {
        return;
    }
    let server = Server::with_controllers();
    let issuer = pki::Issuer::open(server.dir.path()).unwrap();
    issuer.issue_node("n1").unwrap();
    let (tell, told) = watch::channel(NodeConfig::default());
    let agent = server.block_on(Agent::attach(&server, "node-n1", "n1")).unwrap();
    let node = server.spawn(obey(agent, tell));
    eventually("the namespace", || {
        objects(&server, "Namespace")
            .iter()
            .any(|n| at(n, "/metadata/name") == "default")
    });
    server.ok_in(&["apply", "-f", "-"], USER);
    let describe = || server.ok(&["describe", "pod", "user"]);
    eventually("what is missing", || {
        describe().contains("persistentvolumeclaim \"data\" not found")
    });
    server.ok_in(&["apply", "-f", "-"], CLAIM);
    let row = || {
        let text = server.ok(&["get", "pvc", "data", "--no-headers"]);
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("the binding", || row()[1] == "Bound");
    let uid = server.ok(&["get", "pvc", "data", "-o", "jsonpath={.metadata.uid}"]);
    let expected = ["data", "Bound", &format!("pvc-{uid}"), "1Gi", "RWO", "local"];
    assert_eq!(row()[..6], expected);
    let heads = server.ok(&["get", "pvc"]);
    let heads: Vec<&str> = heads.lines().next().unwrap().split_whitespace().collect();
    let expected = [
        "NAME",
        "STATUS",
        "VOLUME",
        "CAPACITY",
        "ACCESS",
        "MODES",
        "STORAGECLASS",
        "AGE",
    ];
    assert_eq!(heads, expected);
    let text = server.ok(&["describe", "pvc", "data"]);
    for word in [
        "Used By:",
        "user",
        "ProvisioningSucceeded",
        "kubernetes.io/pvc-protection",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(describe().contains("ClaimName:"), "{}", describe());

    let patch = |size: &str| {
        let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}}).to_string();
        server.kubectl_in(&["patch", "pvc", "data", "-p", &patch], "")
    };
    assert!(patch("2Gi").status.success());
    let size = || {
        let claims = told.borrow().claims.clone().unwrap_or_default();
        claims.get(&uid).map(|claim| claim.size_bytes)
    };
    eventually("the size on the node", || size() == Some(2 << 30));
    eventually("the size shown", || row()[3] == "2Gi");
    let shrunk = patch("1Gi");
    let why = String::from_utf8_lossy(&shrunk.stderr).into_owned();
    assert!(
        !shrunk.status.success() && why.contains("field can not be less"),
        "{why}"
    );

    server.ok(&["delete", "pvc", "data", "--wait=false"]);
    eventually("its protection", || row()[1] == "Terminating");
    assert!(size().is_some(), "a pod uses it");
    server.ok(&["delete", "pod", "user", "--timeout=60s"]);
    eventually("its end", || objects(&server, "PersistentVolumeClaim").is_empty());
    eventually("its end on the node", || size().is_none());
    server.stop();
    drop(node);
}
