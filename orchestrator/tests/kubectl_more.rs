//! Stock kubectl: watches, and the commands that send protobuf.

mod common;

use common::{Server, eventually, has_kubectl};
use serde_json::json;

fn config_map(name: &str) -> String {
    format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{a: b}}}}")
}

#[test]
fn watch_sees_every_change() {
    if !has_kubectl() {
        return;
    }
    let s = Server::start();
    s.ok_in(&["create", "-f", "-"], &config_map("first"));
    let file = s.dir.path().join("watch.txt");
    let mut child = std::process::Command::new("kubectl")
        .env("KUBECONFIG", s.kubeconfig())
        .args(["get", "cm", "-w", "--output-watch-events", "--no-headers"])
        .stdout(std::fs::File::create(&file).unwrap())
        .spawn()
        .unwrap();
    let seen = |text: &str| std::fs::read_to_string(&file).unwrap().contains(text);
    eventually("the first object", || seen("first"));
    s.ok_in(&["create", "-f", "-"], &config_map("second"));
    s.ok(&["label", "cm", "first", "x=y"]);
    s.ok(&["delete", "cm", "second"]);
    eventually("all events", || {
        seen("MODIFIED") && seen("DELETED") && seen("second")
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn generators_that_send_protobuf() {
    if !has_kubectl() {
        return;
    }
    let s = Server::start();
    s.ok(&["create", "namespace", "lab"]);
    s.ok(&["-n", "lab", "create", "configmap", "c", "--from-literal=a=b"]);
    s.ok(&[
        "-n",
        "lab",
        "create",
        "secret",
        "generic",
        "s",
        "--from-literal=a=b",
    ]);
    assert_eq!(
        s.ok(&[
            "-n",
            "lab",
            "get",
            "secret",
            "s",
            "-o",
            "jsonpath={.data.a}{.type}"
        ]),
        "Yg==Opaque"
    );
    s.ok(&[
        "-n",
        "lab",
        "create",
        "service",
        "clusterip",
        "sip",
        "--tcp=5060:5061",
    ]);
    let ports = s.ok(&[
        "-n",
        "lab",
        "get",
        "svc",
        "sip",
        "-o",
        "jsonpath={.spec.ports[0].port}/{.spec.ports[0].targetPort}",
    ]);
    assert_eq!(ports, "5060/5061");
    s.ok(&[
        "-n",
        "lab",
        "create",
        "deployment",
        "web",
        "--image=nginx",
        "--replicas=3",
        "--port=80",
    ]);
    let web = s.ok(&[
        "-n",
        "lab",
        "get",
        "deploy",
        "web",
        "-o",
        "jsonpath={.spec.replicas} {..image} {..containerPort}",
    ]);
    assert_eq!(web, "3 nginx 80");
    s.ok(&["-n", "lab", "run", "one", "--image=nginx", "--env=A=B"]);
    s.ok(&["-n", "lab", "expose", "pod", "one", "--port=80"]);
    s.ok_in(
        &["create", "-f", "-"],
        "---\n{apiVersion: v1, kind: Node, metadata: {name: n1}}",
    );
    s.ok(&["cordon", "n1"]);
    assert!(s.ok(&["get", "node"]).contains("SchedulingDisabled"));
    s.ok_in(
        &[
            "create",
            "--raw",
            "/api/v1/namespaces/lab/pods/one/binding",
            "-f",
            "-",
        ],
        r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"one"},"target":{"name":"n1"}}"#,
    );
    let drained = s.kubectl_in(&["drain", "n1", "--force", "--timeout=2s"], "");
    assert!(
        String::from_utf8_lossy(&drained.stdout).contains("evicting pod lab/one")
            || String::from_utf8_lossy(&drained.stderr).contains("evicting pod lab/one"),
        "{drained:?}"
    );
    assert!(s.ok(&["-n", "lab", "get", "pod", "one"]).contains("Terminating"));
}

#[test]
fn a_list_is_created_and_what_was_read_is_applied() {
    if !has_kubectl() {
        return;
    }
    let s = Server::start();
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [map("one"), map("two")]}).to_string();
    let created = s.ok_in(&["create", "-f", "-"], &list);
    assert_eq!(created, "configmap/one created\nconfigmap/two created\n");
    s.ok(&["create", "service", "clusterip", "s", "--tcp=80"]);
    s.ok(&["create", "deployment", "d", "--image=i"]);
    let read = s.ok(&["get", "deploy,svc,cm", "-o", "yaml"]);
    assert!(read.contains("kind: List"), "{read}");
    let applied = s.ok_in(&["apply", "-f", "-"], &read);
    assert_eq!(applied.lines().count(), 4, "{applied}");
    // Fields are still validated, by the server.
    let wrong = list.replace("\"data\"", "\"date\"");
    let refused = s.fails(&["apply", "-f", "-"], &wrong);
    assert!(refused.contains("unknown field"), "{refused}");
}
