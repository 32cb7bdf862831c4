//! Stock kubectl against the API.

mod common;

use common::{Server, has_kubectl};
use serde_json::{Value, json};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: main
    image: nginx
    resources: {limits: {cpu: 1, memory: 64Mi}}
    ports: [{containerPort: 80}]
";

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: 'nginx:1', env: [{name: A, value: '1'}]}
      - {name: side, image: 'busybox:1'}
";

const FUNCTION: &str = "
apiVersion: gantry.dev/v1
kind: NetworkFunction
metadata: {name: pcscf}
spec: {package: pcscf, version: 1.0.0, replicas: 1}
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: sip}
spec: {selector: {app: sip}, ports: [{port: 5060, protocol: UDP}]}
";

fn config_map(name: &str) -> String {
    format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{a: b}}}}")
}

#[test]
fn discovery() {
    if !has_kubectl() {
        return;
    }
    let s = Server::start();
    assert!(s.ok(&["version"]).contains("Server Version: v1.36"));
    let resources = s.ok(&["api-resources"]);
    for expected in [
        "networkfunctions",
        "nf ",
        "deploy ",
        "endpointslices",
        "nsvc ",
        "operations",
    ] {
        assert!(resources.contains(expected), "{expected} in {resources}");
    }
    assert!(s.ok(&["api-versions"]).contains("gantry.dev/v1"));
    assert!(s.ok(&["explain", "networkfunction"]).contains("NetworkFunction"));
    assert!(s.ok(&["get", "--raw", "/readyz"]).contains("ok"));
    assert!(s.ok(&["get", "ns"]).contains("default"));
}

#[test]
fn pods_from_creation_to_deletion() {
    if !has_kubectl() {
        return;
    }
    let s = Server::start();
    assert!(s.ok_in(&["create", "-f", "-"], POD).contains("pod/web created"));
    assert!(s.fails(&["create", "-f", "-"], POD).contains("AlreadyExists"));
    let wide = s.ok(&["get", "pods", "-o", "wide"]);
    assert!(
        wide.contains("0/1") && wide.contains("Pending") && wide.contains("NODE"),
        "{wide}"
    );
    assert!(
        s.ok(&["get", "pod", "web", "-o", "yaml"])
            .contains("qosClass: Guaranteed")
    );
    assert!(
        s.ok(&["get", "pods", "-l", "app=web", "-o", "name"])
            .contains("pod/web")
    );
    assert!(s.ok(&["get", "pods", "-l", "app!=web", "-o", "name"]).is_empty());
    assert!(
        s.ok(&["get", "pods", "-A", "--field-selector", "status.phase=Pending"])
            .contains("web")
    );
    s.ok(&["label", "pod", "web", "tier=core"]);
    s.ok(&["annotate", "pod", "web", "note=x"]);
    assert!(s.ok(&["describe", "pod", "web"]).contains("tier=core"));
    let frozen = s.fails(
        &[
            "patch",
            "pod",
            "web",
            "-p",
            r#"{"spec":{"restartPolicy":"Never"}}"#,
        ],
        "",
    );
    assert!(frozen.contains("pod updates may not change fields"), "{frozen}");
    let change = |resources: &str| {
        format!(r#"{{"spec":{{"containers":[{{"name":"main","resources":{resources}}}]}}}}"#)
    };
    let resize = ["patch", "pod", "web", "--subresource", "resize", "-p"];
    let other_class = change(r#"{"limits":{"cpu":"2"}}"#);
    let refused = s.fails(&[&resize[..], &[&other_class]].concat(), "");
    assert!(refused.contains("Pod QOS Class may not change"), "{refused}");
    let twice = change(r#"{"limits":{"cpu":"2"},"requests":{"cpu":"2"}}"#);
    s.ok(&[&resize[..], &[&twice]].concat());
    assert_eq!(
        s.ok(&[
            "get",
            "pod",
            "web",
            "-o",
            "jsonpath={.spec.containers[0].resources.limits.cpu}"
        ]),
        "2"
    );
    s.ok_in(
        &[
            "create",
            "--raw",
            "/api/v1/namespaces/default/pods/web/binding",
            "-f",
            "-",
        ],
        r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"web"},"target":{"name":"n1"}}"#,
    );
    s.ok(&["delete", "pod", "web", "--wait=false"]);
    assert!(s.ok(&["get", "pods"]).contains("Terminating"));
    s.ok(&["delete", "pod", "web", "--grace-period=0", "--force"]);
    assert!(s.fails(&["get", "pod", "web"], "").contains("NotFound"));
}

#[test]
fn apply_patch_scale_replace() {
    if !has_kubectl() {
        return;
    }
    let s = Server::start();
    let get = |path: &str| s.ok(&["get", "deploy", "web", "-o", &format!("jsonpath={{{path}}}")]);
    assert!(s.ok_in(&["apply", "-f", "-"], DEPLOYMENT).contains("created"));
    assert!(s.ok_in(&["apply", "-f", "-"], DEPLOYMENT).contains("unchanged"));
    let changed = DEPLOYMENT.replace("nginx:1", "nginx:2");
    assert!(s.ok_in(&["apply", "-f", "-"], &changed).contains("configured"));
    assert_eq!(
        get(".spec.template.spec.containers[*].image"),
        "nginx:2 busybox:1"
    );
    assert_eq!(get(".metadata.generation"), "2");
    s.ok(&["scale", "deploy", "web", "--replicas=5"]);
    assert_eq!(get(".spec.replicas"), "5");
    s.ok(&["set", "image", "deploy/web", "side=busybox:2"]);
    assert_eq!(
        get(".spec.template.spec.containers[*].image"),
        "nginx:2 busybox:2"
    );
    s.ok(&[
        "patch",
        "deploy",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/replicas","value":6}]"#,
    ]);
    s.ok(&[
        "patch",
        "deploy",
        "web",
        "--type=merge",
        "-p",
        r#"{"metadata":{"labels":{"x":"y"}}}"#,
    ]);
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"B","value":"2"}]}]}}}}"#;
    s.ok(&["patch", "deploy", "web", "-p", strategic]);
    let names = get(".spec.template.spec.containers[0].env[*].name");
    assert!(names.contains('A') && names.contains('B'), "{names}");
    assert_eq!(get(".metadata.labels.x") + &get(".spec.replicas"), "y6");
    let mut object: Value = serde_json::from_str(&s.ok(&["get", "deploy", "web", "-o", "json"])).unwrap();
    let stale = object.to_string();
    object["spec"]["replicas"] = json!(7);
    s.ok_in(&["replace", "-f", "-"], &object.to_string());
    let mut old: Value = serde_json::from_str(&stale).unwrap();
    old["spec"]["replicas"] = json!(8);
    assert!(
        s.fails(&["replace", "-f", "-"], &old.to_string())
            .contains("Conflict")
    );
    assert!(
        s.ok_in(&["apply", "--dry-run=server", "-f", "-"], &changed)
            .contains("server dry run")
    );
    let typo = DEPLOYMENT.replace("replicas:", "replcas:");
    assert!(
        s.fails(&["apply", "-f", "-"], &typo)
            .contains("unknown field \"spec.replcas\"")
    );
    assert!(
        s.fails(&["apply", "--server-side", "-f", "-"], DEPLOYMENT)
            .contains("server-side apply is not supported")
    );
    s.ok(&["delete", "deploy", "web"]);
}

#[test]
fn own_kinds() {
    if !has_kubectl() {
        return;
    }
    let s = Server::start();
    s.ok_in(&["apply", "-f", "-"], FUNCTION);
    s.ok(&["scale", "nf", "pcscf", "--replicas=4"]);
    let table = s.ok(&["get", "nf"]);
    assert!(table.contains("0/4") && table.contains("PACKAGE"), "{table}");
    s.ok_in(
        &["apply", "-f", "-"],
        &FUNCTION.replace("replicas: 1", "replicas: 3"),
    );
    assert!(s.ok(&["get", "all"]).contains("networkfunction.gantry.dev/pcscf"));
    assert!(s.ok(&["describe", "nf", "pcscf"]).contains("Replicas:  3"));
    let wrong = FUNCTION.replace("replicas: 1", "replikas: 1");
    assert!(s.fails(&["apply", "-f", "-"], &wrong).contains("replikas"));
    s.ok(&[
        "patch",
        "nf",
        "pcscf",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"readyReplicas":3}}"#,
    ]);
    s.ok(&[
        "wait",
        "nf/pcscf",
        "--for=jsonpath={.status.readyReplicas}=3",
        "--timeout=10s",
    ]);
    assert_eq!(
        s.ok(&["get", "nf", "pcscf", "-o", "jsonpath={.metadata.generation}"]),
        "3"
    );
    s.ok(&["delete", "nf", "pcscf"]);
}

#[test]
fn services_get_addresses_that_stay() {
    if !has_kubectl() {
        return;
    }
    let s = Server::start();
    s.ok_in(&["create", "-f", "-"], SERVICE);
    let address = s.ok(&["get", "svc", "sip", "-o", "jsonpath={.spec.clusterIP}"]);
    assert!(address.starts_with("10.86."), "{address}");
    let moved = r#"{"spec":{"clusterIP":"10.86.9.9"}}"#;
    assert!(
        s.fails(&["patch", "svc", "sip", "-p", moved], "")
            .contains("may not be changed")
    );
    s.ok(&["describe", "svc", "sip"]);
    s.ok_in(&["create", "-f", "-"], &config_map("c"));
    s.ok_in(
        &["create", "-f", "-"],
        "---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {a: b}}",
    );
    assert_eq!(s.ok(&["get", "secret", "s", "-o", "jsonpath={.data.a}"]), "Yg==");
    s.ok_in(
        &["create", "-f", "-"],
        "---\n{apiVersion: v1, kind: Namespace, metadata: {name: other}}",
    );
    s.ok_in(&["-n", "other", "create", "-f", "-"], &config_map("c"));
    assert!(
        s.fails(&["-n", "none", "create", "-f", "-"], &config_map("c"))
            .contains("not found")
    );
    s.ok(&["delete", "ns", "other", "--timeout=20s"]);
    assert!(s.ok(&["get", "cm", "-A", "-o", "name"]).lines().count() == 1);
    s.ok(&["delete", "cm,secret,svc", "--all"]);
}
