//! Whole passes over a world of one node.

use std::sync::Arc;

use gantry_api::labels;
use gantry_nodeagent_api::{NodeStatus, ServiceFault, ServiceFaultReason};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Service};
use serde_json::{Value, json};

use super::super::lab::Lab;
use super::super::world::{Key, Object, Work};
use super::super::{meta, pods};
use super::admission;

fn pod(name: &str, host_path: &str) -> Object {
    let value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("0000000{name}-0")},
        "spec": {
            "containers": [{"name": "c", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "hostPath": {"path": host_path}}],
        },
    });
    let pod: Pod = serde_json::from_value(value).unwrap();
    Object::Pod(Arc::new(pod))
}

/// A good pod `a`, and a pod `b` that differs from it so: only `a` reaches the node. The world after it.
fn kept_from_the_node(differs: impl FnOnce(&mut PodSpec)) -> Lab {
    let mut lab = Lab::new(&["n"]);
    lab.settle();
    lab.world.objects.put(pod("a", "/tmp"));
    let Object::Pod(bad) = pod("b", "/tmp") else {
        unreachable!("it is one");
    };
    let mut bad = (*bad).clone();
    differs(bad.spec.as_mut().unwrap());
    lab.world.objects.put(Object::Pod(Arc::new(bad)));
    let told = lab.settle();
    let pods = lab.world.configs["n"].pods.values();
    let names: Vec<&str> = pods.map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    let is_told = told.iter().any(|t| t == "b CreateContainerConfigError");
    assert!(is_told, "{told:?}");
    lab
}

#[test]
fn a_pod_that_the_node_would_refuse_is_kept_from_it() {
    let mut lab = Lab::new(&["n"]);
    lab.settle();
    lab.world.objects.put(pod("a", "/tmp"));
    lab.world.objects.put(pod("b", "not/absolute"));
    let told = lab.settle();
    let config = &lab.world.configs["n"];
    assert!(config.faults(|_| false).is_empty());
    let names: Vec<&str> = config.pods.values().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    let problems = told.iter().filter(|t| *t == "b CreateContainerConfigError");
    assert_eq!(problems.count(), 1, "{told:?}");
    let bad = &lab.world.objects.pods[&Key::new("default", "b")];
    let why = pods::find(bad, "PodReadyToStartContainers").unwrap();
    assert!(
        why.message
            .as_deref()
            .unwrap_or_default()
            .contains("not/absolute")
    );
    assert_eq!(meta::name(&bad.metadata), "b");
}

/// As an older version let it in.
#[test]
fn a_pod_that_would_be_asked_at_port_0_is_kept_from_the_node() {
    kept_from_the_node(|spec| {
        let container = &mut spec.containers[0];
        let ports = json!([{"name": "web", "containerPort": 0}]);
        container.ports = serde_json::from_value(ports).unwrap();
        let probe = json!({"tcpSocket": {"port": "web"}});
        container.readiness_probe = serde_json::from_value(probe).unwrap();
    });
}

/// As an older version let them in, or a template of one.
#[test]
fn a_volume_of_two_kinds_keeps_its_pod_from_the_node_with_a_condition() {
    let lab = kept_from_the_node(|spec| {
        let volume = &mut spec.volumes.as_mut().unwrap()[0];
        volume.image = Some(serde_json::from_value(json!({"reference": "x"})).unwrap());
    });
    let bad = &lab.world.objects.pods[&Key::new("default", "b")];
    let why = pods::find(bad, "PodReadyToStartContainers")
        .unwrap()
        .message
        .clone();
    let words = "volume \"v\": it is hostPath and image at once: exactly one is allowed";
    assert_eq!(why.as_deref(), Some(words));
}

#[test]
fn a_pull_secret_that_is_not_there_is_told_once_and_stops_nothing() {
    let mut lab = Lab::new(&["n"]);
    lab.settle();
    let value = json!({
        "metadata": {"name": "a", "namespace": "default", "uid": "00000001-0"},
        "spec": {"imagePullSecrets": [{"name": "registry"}], "containers": [{"name": "c", "image": "x"}]},
    });
    let pod: Pod = serde_json::from_value(value).unwrap();
    lab.world.objects.put(Object::Pod(Arc::new(pod)));
    let mut told = lab.settle();
    lab.obey();
    told.extend(lab.settle());
    let word = "a FailedToRetrieveImagePullSecret";
    assert_eq!(told.iter().filter(|t| *t == word).count(), 1, "{told:?}");
    assert_eq!(lab.world.configs["n"].pods.len(), 1);
}

#[test]
fn a_node_is_told_who_has_made_a_pods_namespace() {
    let mut lab = Lab::new(&["n"]);
    lab.settle();
    let value = json!({"metadata": {"name": "default", "annotations": {labels::REQUESTER: "ann"}}});
    let namespace: k8s_openapi::api::core::v1::Namespace = serde_json::from_value(value).unwrap();
    lab.world.objects.put(Object::Namespace(Arc::new(namespace)));
    lab.world.objects.put(pod("a", "/tmp"));
    lab.settle();
    let config = lab.world.configs["n"].pods.values().next().unwrap();
    assert_eq!(config.share_group(), "user ann");
}

/// A pod that mounts this ConfigMap so many times.
fn mounting(name: &str, map: &str, times: usize) -> Object {
    let names: Vec<String> = (0..times).map(|i| format!("v{i}")).collect();
    let mount = |v: &String| json!({"name": v, "mountPath": format!("/{v}")});
    let volume = |v: &String| json!({"name": v, "configMap": {"name": map}});
    let mounts: Vec<Value> = names.iter().map(mount).collect();
    let value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("0000000{name}-0")},
        "spec": {
            "containers": [{"name": "c", "image": "x", "volumeMounts": mounts}],
            "volumes": names.iter().map(volume).collect::<Vec<_>>(),
        },
    });
    let pod: Pod = serde_json::from_value(value).unwrap();
    Object::Pod(Arc::new(pod))
}

fn config_map(name: &str, bytes: usize) -> Object {
    let metadata = json!({"name": name, "namespace": "default"});
    let value = json!({"metadata": metadata, "data": {"file": "x".repeat(bytes)}});
    Object::ConfigMap(Arc::new(serde_json::from_value(value).unwrap()))
}

#[test]
fn files_beyond_a_pods_room_keep_that_pod_from_its_node_and_no_other() {
    let mut lab = Lab::new(&["n"]);
    lab.settle();
    lab.world.objects.put(config_map("big", 1_000_000));
    lab.world.objects.put(mounting("a", "big", 300));
    lab.world.objects.put(mounting("b", "big", 1));
    let told = lab.settle();
    let config = &lab.world.configs["n"];
    let names: Vec<&str> = config.pods.values().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["b"]);
    assert!(
        told.iter().any(|t| t == "a CreateContainerConfigError"),
        "{told:?}"
    );
    // What runs keeps its files when they would become too large, and says so once.
    lab.obey();
    lab.settle();
    lab.world.objects.put(config_map("big", 5_000_000));
    let mut told = lab.settle();
    lab.obey();
    told.extend(lab.settle());
    assert_eq!(
        told.iter().filter(|t| *t == "b FailedMount").count(),
        1,
        "{told:?}"
    );
    let condition = |lab: &Lab| {
        let pod = &lab.world.objects.pods[&Key::new("default", "b")];
        pods::find(pod, "gantry.dev/FilesCurrent").unwrap().clone()
    };
    let message = condition(&lab).message.unwrap_or_default();
    assert!(message.contains("a pod may have 4 MiB"), "{message}");
    lab.world.objects.put(config_map("big", 10));
    lab.settle();
    assert_eq!(condition(&lab).status, "True");
}

fn service(lab: &mut Lab, namespace: &str, name: &str, spec: Value) -> Key {
    let metadata = json!({"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"),
        "creationTimestamp": meta::time(lab.now_ms)});
    let service: Service = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    lab.world.objects.put(Object::Service(Arc::new(service)));
    lab.now_ms += 1000;
    Key::new(namespace, name)
}

/// Reason and message of the condition on a Service that is not in force.
fn trouble(lab: &Lab, key: &Key) -> Option<(String, String)> {
    let service = &lab.world.objects.services[key];
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "Programmed")?;
    assert_eq!(condition.status, "False");
    Some((condition.reason.clone(), condition.message.clone()))
}

#[test]
fn of_two_services_with_one_address_the_older_is_in_force_and_the_other_says_why() {
    let mut lab = Lab::new(&["n"]);
    let spec = json!({"clusterIP": "10.86.0.9", "ports": [{"port": 80}], "selector": {"app": "x"}});
    let older = service(&mut lab, "default", "z", spec.clone());
    let newer = service(&mut lab, "default", "a", spec);
    let other = service(&mut lab, "default", "other", json!({"ports": [{"port": 80}]}));
    let told = lab.settle();
    let services: Vec<&String> = lab.world.configs["n"].services.keys().collect();
    assert_eq!(services, [&other.to_string(), &older.to_string()]);
    let (reason, message) = trouble(&lab, &newer).unwrap();
    assert_eq!(reason, "AddressConflict");
    assert!(message.contains("default/z"), "{message}");
    assert!(trouble(&lab, &older).is_none() && trouble(&lab, &other).is_none());
    let events = told.iter().filter(|t| *t == "a AddressConflict");
    assert_eq!(events.count(), 1, "{told:?}");

    lab.world.objects.remove("Service", &older);
    lab.settle();
    assert!(trouble(&lab, &newer).is_none());
    assert!(lab.world.configs["n"].services.contains_key("default/a"));
}

#[test]
fn what_a_node_leaves_out_is_said_on_the_service_and_the_node_stays_ready() {
    let mut lab = Lab::new(&["n"]);
    let key = service(
        &mut lab,
        "default",
        "twice",
        json!({"ports": [{"port": 70}, {"port": 70}]}),
    );
    lab.settle();
    let fault = ServiceFault {
        reason: ServiceFaultReason::PortConflict,
        message: "listed twice".to_owned(),
    };
    let mut status = NodeStatus::default();
    status.services.insert(key.to_string(), fault);
    lab.world.agents.reported("n", status, lab.now_ms);
    let told = lab.settle();
    assert_eq!(told, ["twice PortConflict"]);
    let said = ("PortConflict".to_owned(), "node n: listed twice".to_owned());
    assert_eq!(trouble(&lab, &key), Some(said));
    let node = &lab.world.objects.nodes[&Key::new("", "n")];
    let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    );
    lab.world.agents.reported("n", NodeStatus::default(), lab.now_ms);
    lab.settle();
    assert_eq!(trouble(&lab, &key), None);
}

#[test]
fn a_namespace_that_fills_its_share_keeps_what_it_has_and_leaves_room_for_others() {
    let mut lab = Lab::new(&["n"]);
    let spec = json!({"ports": [{"port": 80}]});
    for name in ["e", "d", "c", "b"] {
        service(&mut lab, "greedy", name, spec.clone());
    }
    service(&mut lab, "modest", "x", spec.clone());
    lab.settle();
    service(&mut lab, "greedy", "a", spec);
    let work = Work::new(&lab.world, lab.now_ms);
    let limits = admission::Limits {
        ports: 8,
        backends: 8,
    };
    let configs = super::service::configs(&work);
    let (admitted, troubles) = admission::admit(&work, configs, limits);
    let names: Vec<String> = admitted.keys().map(Key::to_string).collect();
    assert_eq!(names, ["greedy/d", "greedy/e", "modest/x"]);
    assert!(troubles.values().all(|t| t.reason == "TablesFull"));
    assert!(troubles.values().all(|t| t.message.contains("namespace greedy")));
}

#[test]
fn a_pod_that_a_service_has_turned_away_from_keeps_its_flows_until_its_container_has_ended() {
    let mut lab = Lab::new(&["n"]);
    let set = |lab: &mut Lab, app: &str, port: u16| {
        service(
            lab,
            "default",
            "s",
            json!({"clusterIP": "10.86.0.9", "selector": {"app": app}, "ports": [{"port": 80, "targetPort": port}]}),
        );
        lab.settle();
    };
    for name in ["a", "b"] {
        let Object::Pod(pod) = pod(name, "/tmp") else {
            unreachable!("it is one");
        };
        let mut pod = (*pod).clone();
        pod.metadata.labels = Some(meta::pairs(&[("app", "x"), ("n", name)]));
        lab.world.objects.put(Object::Pod(Arc::new(pod)));
    }
    set(&mut lab, "x", 9000);
    lab.run_for(2_000);
    let backends = |lab: &Lab| -> Vec<String> {
        let ports = &lab.world.configs["n"].services["default/s"].ports;
        let text = |b: &gantry_nodeagent_api::Backend| {
            let mark = if b.draining { "keeps" } else { "takes" };
            format!("{} {} {mark}", &b.pod[7..8], b.port)
        };
        ports.iter().flat_map(|p| &p.backends).map(text).collect()
    };
    assert_eq!(backends(&lab), ["a 9000 takes", "b 9000 takes"]);
    // Another port, then other pods: what was there stays for those who are there.
    set(&mut lab, "x", 9001);
    let after = ["a 9001 takes", "b 9001 takes", "a 9000 keeps", "b 9000 keeps"];
    assert_eq!(backends(&lab), after);
    set(&mut lab, "nobody", 9000);
    lab.run_for(2_000);
    assert_eq!(backends(&lab).len(), 4);
    assert!(backends(&lab).iter().all(|b| b.ends_with("keeps")));
    set(&mut lab, "x", 9000);
    assert_eq!(backends(&lab)[..2], ["a 9000 takes", "b 9000 takes"]);
    lab.world.objects.remove("Pod", &Key::new("default", "a"));
    lab.settle();
    assert!(backends(&lab).iter().all(|b| b.starts_with('b')));
}
