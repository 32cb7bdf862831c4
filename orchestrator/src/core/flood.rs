//! Tests: an owner that asks for two million pods, and its neighbours.

use std::sync::Arc;

use gantry_api::labels;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::json;

use super::lab::Lab;
use super::world::{Key, Object};
use super::{Action, crowd, pods};

fn deployment(name: &str, namespace: &str, replicas: i32) -> Object {
    let labels = json!({"app": name});
    let value = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": format!("{name}-uid"), "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "tool:1"}]}}},
    });
    let deployment: Deployment = serde_json::from_value(value).unwrap();
    Object::Deployment(Arc::new(deployment))
}

fn pod(name: &str, namespace: &str) -> Object {
    let value = json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("{name}{namespace}-uid-0000")},
        "spec": {"containers": [{"name": "c", "image": "tool:1"}]}});
    Object::Pod(Arc::new(serde_json::from_value::<Pod>(value).unwrap()))
}

fn waiting(lab: &Lab) -> usize {
    lab.world
        .objects
        .pods
        .values()
        .filter(|p| crowd::waits(p))
        .count()
}

#[test]
fn two_million_replicas_are_made_as_far_as_there_is_room_and_the_rest_is_said() {
    for replicas in [2_000_000, i32::MAX] {
        let mut lab = Lab::new(&["n"]);
        lab.world.objects.put(deployment("huge", "default", replicas));
        lab.settle();
        assert_eq!((lab.world.objects.pods.len(), waiting(&lab)), (1_240, 1_000));
        let huge = &lab.world.objects.deployments[&Key::new("default", "huge")];
        let conditions = huge.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let said = conditions[0].message.as_deref().unwrap();
        assert_eq!(conditions[0].type_.as_deref(), Some("ReplicaFailure"));
        let left = replicas - 1_240;
        assert!(
            said.starts_with(&format!("{left} more pods are not made while 1000")),
            "{said}"
        );
    }
}

#[test]
fn a_small_pod_beside_a_flood_is_placed_at_once() {
    let mut lab = Lab::new(&["n"]);
    lab.world.objects.put(deployment("huge", "default", 2_000_000));
    lab.settle();
    lab.world.objects.put(pod("small", "default"));
    lab.world.objects.put(pod("small", "other"));
    lab.pass();
    for namespace in ["default", "other"] {
        let small = &lab.world.objects.pods[&Key::new(namespace, "small")];
        assert_eq!(pods::node(small), Some("n"), "{namespace}");
    }
    // Nothing of the flood is written anew because of it, beyond those that always say exactly what is in their way.
    assert!(lab.pass().len() < 100);
}

#[test]
fn a_flood_is_taken_down_as_it_came() {
    let mut lab = Lab::new(&["n"]);
    lab.world.objects.put(deployment("huge", "default", 2_000_000));
    lab.settle();
    lab.obey();
    lab.world.objects.put(deployment("huge", "default", 3));
    let done = lab.pass();
    let deleted = done.iter().filter(|a| !matches!(a, Action::EmitEvent(_)));
    let deleted = deleted.count();
    assert!((500..1_100).contains(&deleted), "{deleted}");
    lab.settle();
    lab.run_for(2_000);
    assert_eq!(lab.world.objects.pods.len(), 3);
    let huge = &lab.world.objects.deployments[&Key::new("default", "huge")];
    let conditions = huge.status.as_ref().unwrap().conditions.iter().flatten();
    let types: Vec<_> = conditions.filter_map(|c| c.type_.as_deref()).collect();
    assert_eq!(
        types,
        ["Available", "Progressing"],
        "nothing is in its way any more"
    );
}

#[test]
fn a_function_says_what_is_held_back() {
    let mut lab = Lab::new(&["n"]);
    let any = json!({"scale": {"min": 1, "max": 4_000_000}});
    lab.publish("sbc", "1.0.0", any);
    lab.deploy("sbc", json!({"replicas": 2_000_000}));
    lab.settle();
    assert_eq!(waiting(&lab), 1_000);
    let status = &lab.function("sbc").status;
    assert_eq!(status.conditions[0].type_, "ReplicaFailure");
    assert!(
        status.message.contains("more pods are not made"),
        "{}",
        status.message
    );
    lab.change("sbc", |spec| spec.replicas = 1);
    lab.settle();
    lab.run_for(20_000);
    assert_eq!(lab.world.objects.pods.len(), 1);
    assert!(lab.function("sbc").status.conditions.is_empty());
}

#[test]
fn the_floods_of_a_namespace_have_a_bound_together() {
    let mut lab = Lab::new(&["n"]);
    for number in 0..12 {
        lab.world
            .objects
            .put(deployment(&format!("huge-{number}"), "default", 1_000));
    }
    lab.world.objects.put(deployment("small", "other", 3));
    lab.settle();
    assert_eq!(waiting(&lab), 4_000);
    let others = lab
        .world
        .objects
        .pods
        .iter()
        .filter(|(key, _)| key.namespace == "other");
    assert_eq!(others.filter(|(_, p)| pods::node(p).is_some()).count(), 3);
}

#[test]
fn the_floods_of_one_persons_namespaces_have_a_bound_together() {
    let mut lab = Lab::new(&["n"]);
    for number in 0..8 {
        let name = format!("eve-{number}");
        let annotations = json!({labels::REQUESTER: "eve"});
        let namespace = json!({"metadata": {"name": name, "annotations": annotations}});
        let namespace: Namespace = serde_json::from_value(namespace).unwrap();
        lab.world.objects.put(Object::Namespace(Arc::new(namespace)));
        lab.world.objects.put(deployment("huge", &name, 1_000));
    }
    lab.settle();
    assert_eq!(waiting(&lab), 4_000);
    let last = &lab.world.objects.deployments[&Key::new("eve-7", "huge")];
    let conditions = last.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let said = conditions[0].message.as_deref().unwrap();
    assert!(said.contains("4000 of user eve wait for a place"), "{said}");
}

/// What the harm is: without the bounds an owner gets all that it asks for, at once.
#[test]
fn without_bounds_a_flood_fills_the_store() {
    let mut lab = Lab::new(&["n"]);
    lab.world.limits = super::Limits::NONE;
    lab.world.objects.put(deployment("huge", "default", 5_000));
    lab.settle();
    assert_eq!(lab.world.objects.pods.len(), 5_000);
}

#[test]
fn a_waiting_pod_costs_next_to_nothing() {
    let mut lab = Lab::new(&["n"]);
    let pass_us = |lab: &mut Lab| {
        let runs = (0..20).map(|_| {
            let begun = std::time::Instant::now();
            assert!(lab.pass().is_empty());
            begun.elapsed().as_micros()
        });
        runs.min().unwrap()
    };
    lab.world.objects.put(deployment("huge", "default", 240));
    lab.settle();
    let without = pass_us(&mut lab);
    lab.world.objects.put(deployment("huge", "default", 2_000_000));
    lab.settle();
    let with = pass_us(&mut lab);
    println!("a pass with 240 pods {without} us, with 1,000 more that wait {with} us");
    assert!(with < without * 20);
}

#[test]
fn a_namespace_that_does_not_take_such_pods_gets_none_and_the_owner_says_so() {
    let mut lab = Lab::new(&["n"]);
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let namespace = json!({"metadata": {"name": "tight", "labels": labels}});
    let namespace = serde_json::from_value(namespace).unwrap();
    lab.world.objects.put(Object::Namespace(Arc::new(namespace)));
    lab.world.objects.put(deployment("loose", "tight", 3));
    lab.settle();
    assert!(lab.world.objects.pods.is_empty());
    let sets = &lab.world.objects.replica_sets;
    let status = sets.values().next().unwrap().status.as_ref().unwrap();
    let condition = &status.conditions.as_ref().unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
    let said = condition.message.as_deref().unwrap();
    assert!(
        said.contains("is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{said}"
    );
}

#[test]
fn a_namespace_that_goes_gets_no_new_pods() {
    let mut lab = Lab::new(&["n"]);
    let metadata = json!({"name": "going", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    let namespace = serde_json::from_value(json!({"metadata": metadata})).unwrap();
    lab.world.objects.put(Object::Namespace(Arc::new(namespace)));
    lab.world.objects.put(deployment("late", "going", 3));
    lab.settle();
    assert!(lab.world.objects.pods.is_empty());
}
