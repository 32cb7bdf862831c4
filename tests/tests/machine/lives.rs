//! Pods that end, restart, initialise, grow, or are not ready for a while: what their users see is what Kubernetes shows, and
//! nobody else is touched.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use gantry_tests::{busybox, poll};
use serde_json::{Value, json};

use crate::{PATIENCE, machine, skip};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
/// Connections that have to stay while their pods are not ready.
const FLOWS: usize = 200;
/// Within which a connection to a service without ready backends is refused.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);
/// For one such connection that a busy machine holds up: the least of them counts.
const TRIES: usize = 5;

#[test]
fn pods_live_as_in_kubernetes() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    if !busybox::is_there() {
        skip("images", "busybox-static is not installed");
        return Ok(());
    }
    let gantry = Gantry::new("lives", false)?;
    gantry.first_up(&["--pod-cidr", "10.122.0.0/16", "--service-cidr", "10.123.0.0/16"])?;
    let files = tempfile::tempdir()?;
    let layout = busybox::layout(files.path())?;
    gantry.run(&["image", "import", &layout.to_string_lossy()])?;
    let api = Api::of(&gantry)?;
    bad_neighbours(&api)?;
    two_million(&api)?;
    let started = Instant::now();
    make_lives(&api)?;
    flows_stay(&api, &gantry)?;
    ends(&api)?;
    beginnings(&api)?;
    grows(&api)?;
    hooks(&api, files.path())?;
    println!("the lives took {:?}", started.elapsed());
    Ok(())
}

/// A pod of one container with a shell's program.
fn pod(name: &str, program: &str, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": busybox::IMAGE, "args": [program]}]},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        let place = match field.as_str() {
            "restartPolicy" | "hostNetwork" | "nodeSelector" | "initContainers" | "volumes" => {
                &mut pod["spec"]
            }
            _ => &mut pod["spec"]["containers"][0],
        };
        place[field] = value.clone();
    }
    pod
}

fn service(name: &str, app: &str, ports: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": ports}})
}

fn get(api: &Api, name: &str) -> Result<Value> {
    Ok(api.get(&format!("{PODS}/{name}"))?.json())
}

/// Waits until the pod is as it should be, and returns it.
fn wait(api: &Api, name: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    poll(PATIENCE, || {
        last = get(api, name).ok()?;
        holds(&last).then_some(())
    });
    ensure!(holds(&last), "pod {name} has the status {}", last["status"]);
    Ok(last)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// What cannot be is refused, and two pods that share a port of the host stop no other service.
fn bad_neighbours(api: &Api) -> Result<()> {
    let twice =
        json!([{"name": "a", "port": 70, "targetPort": 8080}, {"name": "b", "port": 70, "targetPort": 8081}]);
    let moved = json!([{"port": 38412, "targetPort": 36412, "protocol": "SCTP"}]);
    for (name, ports) in [("twice", twice), ("moved", moved)] {
        let answer = api.post(SERVICES, &service(name, "web", ports))?;
        ensure!(answer.code == 422, "{name}: {} {}", answer.code, answer.body);
    }
    for name in ["host-1", "host-2"] {
        let mut pod = pod(
            name,
            "sleep 1000",
            json!({"hostNetwork": true, "ports": [{"containerPort": 8090}]}),
        );
        pod["metadata"]["labels"]["app"] = "host".into();
        api.make(PODS, &pod)?;
    }
    api.make(SERVICES, &service("host", "host", json!([{"port": 8090}])))?;
    api.make(PODS, &pod("web", "nc -ll -p 8080 -e cat", json!({})))?;
    api.make(
        SERVICES,
        &service("web", "web", json!([{"port": 80, "targetPort": 8080}])),
    )?;
    let vip = vip(api, "web", 80)?;
    let answers = poll(PATIENCE, || say(&mut connect(vip).ok()?, 0).ok());
    answers.context("the good service does not answer")?;
    let node = api.get("/api/v1/nodes")?.json()["items"][0].take();
    ensure!(
        is_ready(&node),
        "the node is not ready: {}",
        node["status"]["conditions"]
    );
    Ok(())
}

/// An owner that wants more than there ever will be holds up nobody, and says how much is held back.
fn two_million(api: &Api) -> Result<()> {
    let template = pod(
        "huge",
        "sleep 1000",
        json!({"nodeSelector": {"there": "is none"}}),
    );
    let labels = json!({"app": "huge"});
    let deployment = json!({"metadata": {"name": "huge"}, "spec": {"replicas": 2_000_000,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": template["spec"]}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    api.make(deployments, &deployment)?;
    let begun = Instant::now();
    api.make(PODS, &pod("small", "sleep 1000", json!({})))?;
    wait(api, "small", is_ready)?;
    println!(
        "beside two million a small pod is ready after {:?}",
        begun.elapsed()
    );
    let told = poll(PATIENCE, || {
        let huge = api.get(&format!("{deployments}/huge")).ok()?.json();
        huge.to_string().contains("more pods are not made").then_some(())
    });
    told.context("nothing says that pods are held back")?;
    let gone = api.ask("DELETE", &format!("{deployments}/huge"), "", "")?;
    ensure!(gone.code == 200, "{}", gone.body);
    Ok(())
}

/// All at once, so that they are waited for at once.
fn make_lives(api: &Api) -> Result<()> {
    let limits = |limits: Value| json!({"limits": limits});
    let never =
        json!({"restartPolicy": "Never", "resources": limits(json!({"cpu": "100m", "memory": "32Mi"}))});
    api.make(PODS, &pod("done", "exit 0", never))?;
    let failed = json!({"restartPolicy": "Never"});
    api.make(
        PODS,
        &pod("failed", "echo last words > /dev/termination-log; exit 3", failed),
    )?;
    let from_log = json!({"restartPolicy": "Never", "terminationMessagePolicy": "FallbackToLogsOnError"});
    api.make(PODS, &pod("logged", "echo said in the log; exit 4", from_log))?;
    let small = json!({"restartPolicy": "OnFailure", "resources": limits(json!({"memory": "16Mi"}))});
    api.make(PODS, &pod("eaten", "exec tail /dev/zero", small))?;
    let once = "test -e /run.pid && echo a pid file of an earlier run && exit 1; echo started; touch /run.pid; exit 1";
    api.make(PODS, &pod("clean", once, json!({})))?;
    for (name, realm) in [("common", "common.example"), ("own", "own.example")] {
        let map = json!({"metadata": {"name": name}, "data": {"REALM": realm}});
        api.make("/api/v1/namespaces/default/configmaps", &map)?;
    }
    let from = |name: &str| json!({"configMapRef": {"name": name}});
    let env = json!({
        "envFrom": [from("common"), from("own")],
        "env": [{"name": "PEER", "value": "sip:core.$(REALM)"}],
        "args": ["echo env=$REALM peer=$PEER arg=$0; sleep 1000", "$(REALM)"],
    });
    api.make(PODS, &pod("env", "", env))?;
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let init = json!({
        "volumes": [{"name": "v", "emptyDir": {}}],
        "volumeMounts": mount,
        "initContainers": [
            {"name": "make", "image": busybox::IMAGE, "args": ["touch /v/made"], "volumeMounts": mount},
            {"name": "side", "image": busybox::IMAGE, "args": ["sleep 1000"], "restartPolicy": "Always"},
        ],
    });
    api.make(PODS, &pod("init", "test -e /v/made && sleep 1000", init))?;
    let sizes = json!({"resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "32Mi"}}});
    api.make(PODS, &pod("grow", "sleep 1000", sizes))
}

/// A virtual address.
fn vip(api: &Api, service: &str, port: u16) -> Result<SocketAddr> {
    let found = poll(PATIENCE, || {
        let service = api.get(&format!("{SERVICES}/{service}")).ok()?.json();
        let address = service["spec"]["clusterIP"].as_str()?.parse().ok()?;
        Some(SocketAddr::new(address, port))
    });
    found.context("the service has no address")
}

fn connect(vip: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&vip, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// Says a number, and expects it back.
fn say(stream: &mut TcpStream, number: usize) -> std::io::Result<()> {
    let said = format!("{number:08}");
    stream.write_all(said.as_bytes())?;
    let mut heard = [0; 8];
    stream.read_exact(&mut heard)?;
    match heard == *said.as_bytes() {
        true => Ok(()),
        false => Err(ErrorKind::InvalidData.into()),
    }
}

/// Unready is not gone: connections stay, new ones go to the other pod, or are refused at once when there is none.
fn flows_stay(api: &Api, gantry: &Gantry) -> Result<()> {
    let command = ["/bin/test", "!", "-e", "/out"];
    let probe =
        json!({"exec": {"command": command}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5});
    for name in ["echo-1", "echo-2"] {
        let mut pod = pod(name, "nc -ll -p 9000 -e cat", json!({"readinessProbe": probe}));
        pod["metadata"]["labels"]["app"] = "echo".into();
        api.make(PODS, &pod)?;
    }
    api.make(SERVICES, &service("echo", "echo", json!([{"port": 9000}])))?;
    for name in ["echo-1", "echo-2"] {
        wait(api, name, is_ready)?;
    }
    let vip = vip(api, "echo", 9000)?;
    poll(PATIENCE, || say(&mut connect(vip).ok()?, 0).ok()).context("the service does not answer")?;
    let mut flows = (0..FLOWS)
        .map(|_| connect(vip))
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut all_answer = |when: &str| -> Result<()> {
        let broken = flows
            .iter_mut()
            .enumerate()
            .filter_map(|(i, flow)| say(flow, i).err())
            .count();
        ensure!(broken == 0, "{when}: {broken} of {FLOWS} connections broke");
        Ok(())
    };
    all_answer("at first")?;
    for (name, when) in [
        ("echo-1", "with one pod not ready"),
        ("echo-2", "with none ready"),
    ] {
        gantry.text(&["exec", name, "--", "touch", "/out"])?;
        wait(api, name, |pod| !is_ready(pod))?;
        all_answer(when)?;
        if name == "echo-1" {
            poll(PATIENCE, || say(&mut connect(vip).ok()?, 1).ok()).context("new ones find the other pod")?;
        }
    }
    poll(PATIENCE, || connect(vip).is_err().then_some(())).context("connections to nobody are taken")?;
    let refused = (0..TRIES).map(|_| {
        let begun = Instant::now();
        connect(vip)
            .is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
            .then(|| begun.elapsed())
    });
    let refused: Option<Vec<Duration>> = refused.collect();
    let least = refused
        .context("not refused")?
        .into_iter()
        .min()
        .unwrap_or_default();
    println!("{FLOWS} connections stay; a new one to nobody is refused within {least:?}");
    ensure!(least < REFUSED_WITHIN, "refused only after {least:?}");
    for name in ["echo-1", "echo-2"] {
        gantry.text(&["exec", name, "--", "rm", "/out"])?;
        wait(api, name, is_ready)?;
    }
    poll(PATIENCE, || say(&mut connect(vip).ok()?, 2).ok()).context("the service does not come back")?;
    all_answer("in the end")
}

/// How each pod ended is shown, and what it held is free.
fn ends(api: &Api) -> Result<()> {
    let ended = |name: &str, phase: &'static str| wait(api, name, |pod| pod["status"]["phase"] == phase);
    let state = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
    let done = ended("done", "Succeeded")?;
    let seen = state(&done);
    ensure!(
        (seen["reason"] == "Completed") && (seen["exitCode"] == 0),
        "{seen}"
    );
    let failed = state(&ended("failed", "Failed")?);
    ensure!(
        (failed["reason"] == "Error") && (failed["exitCode"] == 3),
        "{failed}"
    );
    ensure!(failed["message"] == "last words\n", "{failed}");
    let logged = state(&ended("logged", "Failed")?);
    ensure!(logged["message"] == "said in the log\n", "{logged}");
    tells(api, "done", &["Scheduled", "Pulled", "Created", "Started"])?;
    tells(api, "clean", &["BackOff"])?;
    let uid = done["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    poll(PATIENCE, || {
        find(Path::new("/sys/fs/cgroup"), &uid, 6).is_none().then_some(())
    })
    .context("a pod that has ended keeps its cgroup")?;
    wait(api, "eaten", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        let last = &status["lastState"]["terminated"];
        last["reason"] == "OOMKilled" && last["exitCode"] == 137 && status["restartCount"].as_u64() >= Some(1)
    })?;
    let again = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(2);
    wait(api, "clean", again)?;
    let log = api.get(&format!("{PODS}/clean/log?previous=true"))?;
    ensure!(
        log.body == "started\n",
        "a run found its predecessor's files: {}",
        log.body
    );
    Ok(())
}

/// The pod's Events have all these reasons.
fn tells(api: &Api, name: &str, reasons: &[&str]) -> Result<()> {
    let path = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3D{name}");
    let events = api.get(&path)?.json();
    let all: Vec<&Value> = events["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| &e["reason"])
        .collect();
    let missing: Vec<_> = reasons
        .iter()
        .filter(|r| !all.iter().any(|a| *a == **r))
        .collect();
    ensure!(
        missing.is_empty(),
        "events of {name}: {missing:?} are not among {all:?}"
    );
    Ok(())
}

/// What is to be done after a start and before an end is done, and a start whose hook fails is none.
fn hooks(api: &Api, directory: &Path) -> Result<()> {
    let here = directory.join("hooks");
    std::fs::create_dir(&here)?;
    let exec = |text: &str| json!({"exec": {"command": ["/bin/sh", "-c", text]}});
    let hooked = json!({
        "volumes": [{"name": "h", "hostPath": {"path": here}}],
        "volumeMounts": [{"name": "h", "mountPath": "/h"}],
        "lifecycle": {"postStart": exec("echo begun >> /h/log"), "preStop": exec("echo ends >> /h/log")},
    });
    let mut hooked = pod("hooked", "sleep 1000", hooked);
    hooked["spec"]["terminationGracePeriodSeconds"] = 20.into();
    api.make(PODS, &hooked)?;
    api.make(
        PODS,
        &pod(
            "unhooked",
            "sleep 1000",
            json!({"lifecycle": {"postStart": exec("exit 3")}}),
        ),
    )?;
    wait(api, "hooked", is_ready)?;
    let log = || std::fs::read_to_string(here.join("log")).unwrap_or_default();
    poll(PATIENCE, || (log() == "begun\n").then_some(())).context("nothing was done after the start")?;
    api.ask("DELETE", &format!("{PODS}/hooked"), "", "")?;
    poll(PATIENCE, || (log() == "begun\nends\n").then_some(())).context("nothing was done before the end")?;
    wait(api, "unhooked", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    })?;
    Ok(())
}

fn beginnings(api: &Api) -> Result<()> {
    wait(api, "env", is_ready)?;
    let expected = "env=own.example peer=sip:core.own.example arg=own.example\n";
    let said = poll(PATIENCE, || {
        let log = api.get(&format!("{PODS}/env/log")).ok()?.body;
        log.ends_with('\n').then_some(log)
    });
    ensure!(said.as_deref() == Some(expected), "{said:?}");
    let init = wait(api, "init", is_ready)?;
    let statuses = &init["status"]["initContainerStatuses"];
    ensure!(
        statuses[0]["state"]["terminated"]["reason"] == "Completed",
        "{statuses}"
    );
    ensure!(!statuses[1]["state"]["running"].is_null(), "{statuses}");
    ensure!(resize_condition(&init).is_none(), "{}", init["status"]);
    Ok(())
}

fn resize_condition(pod: &Value) -> Option<&Value> {
    let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.find(|c| c["type"].as_str().is_some_and(|t| t.starts_with("PodResize")))
}

/// A limit that was not there comes in force; memory below what is in use says so until there is room; each in its turn.
fn grows(api: &Api) -> Result<()> {
    let grow = wait(api, "grow", is_ready)?;
    let uid = grow["metadata"]["uid"].as_str().context("no uid")?;
    let (hierarchy, file) = match Path::new("/sys/fs/cgroup/cpu").is_dir() {
        true => ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"),
        false => ("/sys/fs/cgroup", "cpu.max"),
    };
    let group = find(Path::new(hierarchy), uid, 6).context("the pod has no cgroup")?;
    let resize = |limits: Value| -> Result<()> {
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]}});
        let media = "application/strategic-merge-patch+json";
        let answer = api.ask("PATCH", &format!("{PODS}/grow/resize"), media, &patch.to_string())?;
        ensure!(answer.code == 200, "{}", answer.body);
        Ok(())
    };
    resize(json!({"cpu": "100m"}))?;
    let quota = poll(PATIENCE, || {
        let text = std::fs::read_to_string(group.join("c").join(file)).ok()?;
        text.starts_with("10000").then_some(())
    });
    quota.context("the new CPU limit is not in the cgroup")?;
    resize(json!({"memory": "64Gi"}))?;
    let in_force =
        |pod: &Value| pod["status"]["containerStatuses"][0]["resources"]["limits"]["memory"] == "64Gi";
    wait(api, "grow", |pod| {
        in_force(pod) || resize_condition(pod).is_some()
    })?;
    resize(json!({"memory": "48Mi"}))?;
    wait(api, "grow", |pod| {
        let limits = &pod["status"]["containerStatuses"][0]["resources"]["limits"];
        limits["memory"] == "48Mi" && resize_condition(pod).is_none()
    })?;
    Ok(())
}

/// A directory of this name, or of a name that ends so.
fn find(below: &Path, name: &str, depth: u32) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(below).ok()?.flatten();
    let directories = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    for path in directories.map(|e| e.path()) {
        if path.to_string_lossy().ends_with(name) {
            return Some(path);
        }
        if depth > 0
            && let Some(found) = find(&path, name, depth - 1)
        {
            return Some(found);
        }
    }
    None
}
