//! A claim's life: where it goes, who may have it, how long it stays.

use std::sync::Arc;

use gantry_nodeagent_api::{PodPhase, PodReason, Volume};
use serde_json::{Value, json};

use super::super::lab::Lab;
use super::super::world::Object;
use super::*;

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn claim(lab: &mut Lab, name: &str, more: Value) {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-of-{name}")});
    let claim = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    lab.world
        .objects
        .put(Object::PersistentVolumeClaim(Arc::new(claim)));
}

/// A pod with the claim.
fn pod(lab: &mut Lab, name: &str, claim: &str, more: Value) {
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
    let mut spec = json!({"containers": [{"name": "c", "image": "i",
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [volume]});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-of-{name}"),
        "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", lab.world.objects.pods.len())});
    let pod = json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}});
    let pod = serde_json::from_value(pod).unwrap();
    lab.world.objects.put(Object::Pod(Arc::new(pod)));
}

fn stop(lab: &mut Lab, name: &str) {
    let mut pod = (*lab.world.objects.pods[&key(name)]).clone();
    pod.metadata.deletion_timestamp = Some(meta::time(lab.now_ms));
    lab.world.objects.put(Object::Pod(Arc::new(pod)));
    lab.settle();
    lab.run_for(2_000);
    assert!(!lab.world.objects.pods.contains_key(&key(name)), "{name} is gone");
}

fn delete(lab: &mut Lab, name: &str) {
    let mut claim = (*found(lab, name)).clone();
    claim.metadata.deletion_timestamp = Some(meta::time(lab.now_ms));
    lab.world
        .objects
        .put(Object::PersistentVolumeClaim(Arc::new(claim)));
    lab.settle();
}

fn found(lab: &Lab, name: &str) -> Arc<PersistentVolumeClaim> {
    lab.world.objects.claims[&key(name)].clone()
}

fn phase(lab: &Lab, name: &str) -> String {
    found(lab, name)
        .status
        .clone()
        .unwrap_or_default()
        .phase
        .unwrap_or_default()
}

/// The node of a pod, or why it has none.
fn place(lab: &Lab, name: &str) -> String {
    let pod = &lab.world.objects.pods[&key(name)];
    match pods::is_true(pod, "PodScheduled") {
        true => pods::node(pod).unwrap_or_default().to_owned(),
        false => {
            let said = pods::find(pod, "PodScheduled").expect("it says why");
            said.message.clone().unwrap_or_default()
        }
    }
}

/// Ids and sizes of the claims that a node was told last.
fn told(lab: &Lab, node: &str) -> Vec<(String, u64)> {
    let claims = lab.world.configs[node]
        .claims
        .clone()
        .expect("it is told of them");
    claims
        .into_iter()
        .map(|(id, claim)| (id, claim.size_bytes))
        .collect()
}

#[test]
fn it_waits_for_its_first_pod_and_then_all_go_to_its_node() {
    let mut lab = Lab::new(&["a", "b"]);
    claim(&mut lab, "data", json!({}));
    lab.settle();
    assert_eq!(phase(&lab, "data"), "Pending");
    pod(&mut lab, "p", "data", json!({"nodeName": "b"}));
    let events = lab.settle();
    assert!(
        events.contains(&"data ProvisioningSucceeded".to_owned()),
        "{events:?}"
    );
    let bound = found(&lab, "data");
    assert_eq!(
        (phase(&lab, "data"), node(&bound)),
        ("Bound".to_owned(), Some("b"))
    );
    let spec = bound.spec.clone().unwrap();
    assert_eq!(spec.volume_name.as_deref(), Some("pvc-uid-of-data"));
    assert_eq!(
        bound.status.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0,
        "10Mi"
    );
    assert_eq!(told(&lab, "b"), [("uid-of-data".to_owned(), 10 << 20)]);
    assert_eq!(told(&lab, "a"), []);
    let config = &lab.world.configs["b"].pods["uid-of-p"];
    let expected = Volume::Claim {
        id: "uid-of-data".to_owned(),
        read_only: false,
    };
    assert_eq!(config.volumes["v"], expected);
    lab.run_for(1_000);
    stop(&mut lab, "p");
    assert_eq!(told(&lab, "b").len(), 1, "nobody has it, and it stays");
    for name in ["q", "r", "s"] {
        pod(&mut lab, name, "data", json!({}));
    }
    lab.settle();
    assert_eq!(["q", "r", "s"].map(|name| place(&lab, name)), ["b", "b", "b"]);
    assert!(lab.settle().is_empty());
}

#[test]
fn pods_that_come_together_with_a_new_one_share_its_node() {
    let mut lab = Lab::new(&["a", "b", "c"]);
    claim(&mut lab, "data", json!({}));
    for name in ["p", "q", "r"] {
        pod(&mut lab, name, "data", json!({}));
    }
    lab.settle();
    let places = ["p", "q", "r"].map(|name| place(&lab, name));
    assert_eq!(places, [places[0].as_str(); 3]);
    assert_eq!(node(&found(&lab, "data")), Some(places[0].as_str()));
}

#[test]
fn a_pod_says_what_is_missing_and_where_its_volume_is() {
    let mut lab = Lab::new(&["a", "b"]);
    pod(&mut lab, "p", "data", json!({}));
    lab.settle();
    assert_eq!(place(&lab, "p"), "persistentvolumeclaim \"data\" not found");
    claim(&mut lab, "data", json!({}));
    lab.settle();
    let at = place(&lab, "p");
    assert!(["a", "b"].contains(&at.as_str()), "{at}");
    lab.run_for(1_000);
    stop(&mut lab, "p");
    let other = if at == "a" { "b" } else { "a" };
    pod(
        &mut lab,
        "q",
        "data",
        json!({"nodeSelector": {"kubernetes.io/hostname": other}}),
    );
    lab.settle();
    let why = place(&lab, "q");
    assert!(
        why.contains(&format!(
            "persistentvolumeclaim \"data\" is on the disk of node {at}"
        )),
        "{why}"
    );
    lab.world.objects.remove("Node", &Key::new("", &at));
    lab.world.objects.remove("NodeTopology", &Key::new("", &at));
    lab.world.agents.forget(&at);
    pod(&mut lab, "r", "data", json!({}));
    lab.settle();
    assert_eq!(
        place(&lab, "r"),
        format!("persistentvolumeclaim \"data\" is on the disk of node {at}, and there is no such node")
    );
}

#[test]
fn one_for_one_pod_makes_the_next_wait() {
    let mut lab = Lab::new(&["a"]);
    claim(&mut lab, "data", json!({"accessModes": ["ReadWriteOncePod"]}));
    pod(&mut lab, "p", "data", json!({}));
    pod(&mut lab, "q", "data", json!({}));
    lab.settle();
    lab.run_for(1_000);
    let (first, second) = if place(&lab, "p") == "a" {
        ("p", "q")
    } else {
        ("q", "p")
    };
    let why = place(&lab, second);
    assert!(
        why.contains(&format!(
            "persistentvolumeclaim \"data\" is for one pod at a time, and pod {first} has it"
        )),
        "{why}"
    );
    stop(&mut lab, first);
    lab.settle();
    assert_eq!(place(&lab, second), "a");
}

#[test]
fn it_is_protected_while_a_pod_uses_it_and_goes_then() {
    let mut lab = Lab::new(&["a"]);
    claim(&mut lab, "data", json!({}));
    claim(&mut lab, "unused", json!({}));
    pod(&mut lab, "p", "data", json!({}));
    lab.settle();
    lab.run_for(1_000);
    assert_eq!(
        found(&lab, "unused").metadata.finalizers,
        Some(vec![FINALIZER.to_owned()])
    );
    delete(&mut lab, "unused");
    assert!(!lab.world.objects.claims.contains_key(&key("unused")));
    delete(&mut lab, "data");
    lab.run_for(5_000);
    assert!(lab.world.objects.claims.contains_key(&key("data")));
    pod(&mut lab, "late", "data", json!({}));
    lab.settle();
    assert_eq!(
        place(&lab, "late"),
        "persistentvolumeclaim \"data\" is being deleted"
    );
    assert_eq!(told(&lab, "a").len(), 1);
    stop(&mut lab, "p");
    lab.settle();
    assert!(!lab.world.objects.claims.contains_key(&key("data")));
    assert_eq!(told(&lab, "a"), []);
    assert_eq!(place(&lab, "late"), "persistentvolumeclaim \"data\" not found");
}

#[test]
fn it_goes_with_its_owner_and_whoever_strips_it_takes_nothing_from_under_a_pod() {
    let mut lab = Lab::new(&["a"]);
    claim(&mut lab, "owned", json!({}));
    let mut owned = (*found(&lab, "owned")).clone();
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "o", "uid": "o", "controller": true}]);
    owned.metadata.owner_references = serde_json::from_value(owner).unwrap();
    lab.world
        .objects
        .put(Object::PersistentVolumeClaim(Arc::new(owned)));
    lab.settle();
    assert!(!lab.world.objects.claims.contains_key(&key("owned")));
    claim(&mut lab, "data", json!({}));
    pod(&mut lab, "p", "data", json!({}));
    lab.settle();
    lab.run_for(1_000);
    lab.world.objects.remove("PersistentVolumeClaim", &key("data"));
    lab.settle();
    assert_eq!(told(&lab, "a").len(), 1, "a pod has it");
    stop(&mut lab, "p");
    lab.settle();
    assert_eq!(told(&lab, "a"), []);
}

#[test]
fn it_grows_and_one_that_is_full_lets_nobody_begin() {
    let mut lab = Lab::new(&["a"]);
    claim(&mut lab, "data", json!({}));
    pod(&mut lab, "p", "data", json!({}));
    lab.settle();
    lab.obey();
    lab.settle();
    let report = |lab: &mut Lab, full: &[(&str, u64)], evicted: bool| {
        let mut status = lab.world.agents.get("a").unwrap().status.clone().unwrap();
        status.full_claims = full
            .iter()
            .map(|(id, bytes)| ((*id).to_owned(), *bytes))
            .collect();
        for seen in status.pods.values_mut().filter(|_| evicted) {
            seen.phase = PodPhase::Failed;
            seen.reason = Some(PodReason::Evicted);
        }
        lab.world.agents.reported("a", status, lab.now_ms);
        lab.settle()
    };
    let events = report(&mut lab, &[("uid-of-data", 11 << 20)], true);
    assert!(events.contains(&"data MoreThanItsSize".to_owned()), "{events:?}");
    let condition = |lab: &Lab| {
        let status = found(lab, "data").status.clone().unwrap();
        let all = status.conditions.unwrap_or_default();
        all.first().map(|c| (c.type_.clone(), c.status.clone()))
    };
    assert_eq!(
        condition(&lab),
        Some(("gantry.dev/Full".to_owned(), "True".to_owned()))
    );
    pod(&mut lab, "q", "data", json!({}));
    lab.settle();
    let why = place(&lab, "q");
    assert!(
        why.starts_with("persistentvolumeclaim \"data\" is full: more is in it than its size 10Mi"),
        "{why}"
    );
    let mut grown = (*found(&lab, "data")).clone();
    let requests = json!({"requests": {"storage": "12Mi"}});
    grown.spec.as_mut().unwrap().resources = Some(serde_json::from_value(requests).unwrap());
    lab.world
        .objects
        .put(Object::PersistentVolumeClaim(Arc::new(grown)));
    lab.settle();
    assert_eq!(told(&lab, "a"), [("uid-of-data".to_owned(), 12 << 20)]);
    assert_eq!(place(&lab, "q"), "a");
    assert_eq!(condition(&lab).unwrap().1, "False");
    report(&mut lab, &[], false);
    assert_eq!(
        found(&lab, "data")
            .status
            .as_ref()
            .unwrap()
            .capacity
            .as_ref()
            .unwrap()["storage"]
            .0,
        "12Mi"
    );
}

#[test]
fn it_grows_as_far_as_its_node_can_promise() {
    let mut lab = Lab::new(&["a"]);
    let mut hello = lab.world.agents.get("a").unwrap().hello.clone().unwrap();
    hello.storage.bytes = 100 << 20;
    lab.world.agents.connected(hello, lab.now_ms);
    claim(&mut lab, "data", json!({}));
    claim(
        &mut lab,
        "huge",
        json!({"resources": {"requests": {"storage": "200Mi"}}}),
    );
    pod(&mut lab, "p", "data", json!({}));
    pod(&mut lab, "q", "huge", json!({}));
    lab.settle();
    let why = place(&lab, "q");
    assert!(
        why.contains("needed for its volumes and ephemeral storage"),
        "{why}"
    );
    let mut grow = |size: &str| {
        let mut grown = (*found(&lab, "data")).clone();
        let requests = json!({"requests": {"storage": size}});
        grown.spec.as_mut().unwrap().resources = Some(serde_json::from_value(requests).unwrap());
        lab.world
            .objects
            .put(Object::PersistentVolumeClaim(Arc::new(grown)));
        let events = lab.settle();
        (told(&lab, "a")[0].1 >> 20, events)
    };
    assert_eq!(grow("50Mi").0, 50);
    let (size, events) = grow("1Pi");
    assert_eq!((size, events), (50, vec!["data NoRoom".to_owned()]));
    assert_eq!(grow("100Mi").0, 100, "all that there is");
}

#[test]
fn one_that_cannot_be_read_stays_where_it_is() {
    let mut lab = Lab::new(&["a"]);
    claim(&mut lab, "data", json!({}));
    pod(&mut lab, "p", "data", json!({}));
    lab.settle();
    lab.run_for(1_000);
    stop(&mut lab, "p");
    lab.world
        .set_apart("PersistentVolumeClaim", &key("data"), "damaged".to_owned());
    pod(&mut lab, "q", "data", json!({}));
    lab.settle();
    lab.run_for(1_000);
    assert_eq!(told(&lab, "a").len(), 1);
    assert_eq!(place(&lab, "q"), "persistentvolumeclaim \"data\" cannot be read");
}
