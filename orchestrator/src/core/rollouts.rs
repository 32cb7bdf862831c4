//! Tests: what a Deployment says on its way from one template to the next, and how its ReplicaSets are numbered.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use serde_json::{Value, json};

use super::lab::Lab;
use super::world::{Key, Object};
use super::{meta, revision};

/// A Deployment of an image, as a user wrote it: what the core added to an older one is kept, as it is with an update.
fn apply(lab: &mut Lab, image: &str, extra: Value) {
    let container = json!({"name": "c", "image": image});
    write(lab, &container, extra);
}

fn write(lab: &mut Lab, container: &Value, extra: Value) {
    let labels = json!({"app": "web"});
    let mut spec = json!({"replicas": 4, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}});
    if let (Some(spec), Value::Object(extra)) = (spec.as_object_mut(), extra) {
        spec.extend(extra);
    }
    let metadata = json!({"name": "web", "namespace": "default", "uid": "web-uid", "generation": 1});
    let value = json!({"metadata": metadata, "spec": spec});
    let mut new: Deployment = serde_json::from_value(value).unwrap();
    if let Some(old) = lab.world.objects.deployments.get(&Key::new("default", "web")) {
        new.metadata = old.metadata.clone();
        new.status = old.status.clone();
    }
    lab.world.objects.put(Object::Deployment(Arc::new(new)));
}

fn deployment(lab: &Lab) -> Arc<Deployment> {
    lab.world.objects.deployments[&Key::new("default", "web")].clone()
}

fn condition(lab: &Lab, kind: &str) -> DeploymentCondition {
    let status = deployment(lab).status.clone().unwrap();
    let mut conditions = status.conditions.unwrap().into_iter();
    conditions.find(|c| c.type_.as_deref() == Some(kind)).unwrap()
}

/// Status, reason, and when each of the two times was, in seconds.
fn said(lab: &Lab, kind: &str) -> (String, String, [u64; 2]) {
    let found = condition(lab, kind);
    let times = [found.last_transition_time, found.last_update_time];
    let times = times.map(|t| meta::millis(&t.unwrap()) / 1000);
    (found.status.unwrap(), found.reason.unwrap(), times)
}

fn is(status: &str, reason: &str, times: [u64; 2]) -> (String, String, [u64; 2]) {
    (status.to_owned(), reason.to_owned(), times)
}

/// Revisions of the ReplicaSets by their image.
fn revisions(lab: &Lab) -> BTreeMap<String, i64> {
    let sets = lab.world.objects.replica_sets.values();
    sets.map(|set| {
        let spec = set.spec.template.as_ref().unwrap().spec.as_ref().unwrap();
        let image = spec.containers[0].image.clone().unwrap();
        (image, revision::of(&set.metadata))
    })
    .collect()
}

fn numbered(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
}

#[test]
fn a_rollout_says_how_far_it_is_and_nothing_is_written_when_it_has_ended() {
    let mut lab = Lab::new(&["n"]);
    apply(&mut lab, "web:1", json!({}));
    lab.settle();
    let out = is("False", "MinimumReplicasUnavailable", [1_000, 1_000]);
    assert_eq!(said(&lab, "Available"), out);
    assert_eq!(said(&lab, "Progressing").1, "ReplicaSetUpdated");

    lab.now_ms = 1_100_000;
    lab.run_for(20_000);
    let available = said(&lab, "Available");
    assert_eq!(
        (&*available.0, &*available.1),
        ("True", "MinimumReplicasAvailable")
    );
    assert!(available.2[0] >= 1_100, "it became so later: {available:?}");
    let done = said(&lab, "Progressing");
    assert_eq!((&*done.0, &*done.1), ("True", "NewReplicaSetAvailable"));
    assert_eq!(done.2[0], 1_000, "it was True all the time");
    assert!(done.2[1] >= 1_100, "{done:?}");
    lab.now_ms += 3_600_000;
    lab.obey();
    assert_eq!(lab.pass(), []);

    // More of the same is no new rollout; another template is.
    apply(&mut lab, "web:1", json!({"replicas": 5}));
    lab.settle();
    assert_eq!(said(&lab, "Progressing"), done);
    apply(&mut lab, "web:2", json!({"replicas": 5}));
    lab.settle();
    assert_eq!(said(&lab, "Progressing").1, "ReplicaSetUpdated");
    assert_eq!(said(&lab, "Available"), available);
    lab.run_for(20_000);
    assert_eq!(said(&lab, "Progressing").1, "NewReplicaSetAvailable");
    assert_eq!(
        said(&lab, "Available"),
        available,
        "it was available all the time, and its time stays"
    );
}

#[test]
fn a_paused_one_says_so() {
    let mut lab = Lab::new(&["n"]);
    apply(&mut lab, "web:1", json!({}));
    lab.run_for(20_000);
    apply(&mut lab, "web:2", json!({"paused": true}));
    lab.settle();
    assert_eq!(said(&lab, "Progressing").0, "Unknown");
    assert_eq!(said(&lab, "Progressing").1, "DeploymentPaused");
    apply(&mut lab, "web:2", json!({}));
    lab.settle();
    assert_eq!(said(&lab, "Progressing").1, "ReplicaSetUpdated");
}

#[test]
fn revisions_count_up_and_an_undo_takes_the_same_set_again() {
    let mut lab = Lab::new(&["n"]);
    apply(&mut lab, "web:1", json!({}));
    lab.run_for(20_000);
    assert_eq!(revisions(&lab), numbered(&[("web:1", 1)]));
    apply(&mut lab, "web:2", json!({}));
    lab.run_for(20_000);
    assert_eq!(revisions(&lab), numbered(&[("web:1", 1), ("web:2", 2)]));
    assert_eq!(revision::of(&deployment(&lab).metadata), 2);
    // kubectl sends the old template back with fields that are empty.
    let container = json!({"name": "c", "image": "web:1", "resources": {}});
    write(&mut lab, &container, json!({}));
    lab.run_for(20_000);
    assert_eq!(lab.world.objects.replica_sets.len(), 2);
    assert_eq!(revisions(&lab), numbered(&[("web:1", 3), ("web:2", 2)]));
    assert_eq!(revision::of(&deployment(&lab).metadata), 3);
    assert_eq!(said(&lab, "Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn a_set_takes_over_the_annotations_that_an_undo_puts_back() {
    let mut lab = Lab::new(&["n"]);
    apply(&mut lab, "web:1", json!({}));
    let mut changed = (*deployment(&lab)).clone();
    for key in [
        "kubernetes.io/change-cause",
        "kubectl.kubernetes.io/last-applied-configuration",
    ] {
        meta::annotate(&mut changed.metadata, key, Some("x".to_owned()));
    }
    lab.world.objects.put(Object::Deployment(Arc::new(changed)));
    lab.settle();
    let set = lab.world.objects.replica_sets.values().next().unwrap();
    let found = set.metadata.annotations.clone().unwrap();
    let expected = meta::pairs(&[
        ("deployment.kubernetes.io/revision", "1"),
        ("kubernetes.io/change-cause", "x"),
    ]);
    assert_eq!(found, expected);
}

#[test]
fn the_oldest_set_goes_first_and_those_without_a_number_get_one() {
    let mut lab = Lab::new(&["n"]);
    for number in 1..=4 {
        apply(
            &mut lab,
            &format!("web:{number}"),
            json!({"revisionHistoryLimit": 10}),
        );
        lab.run_for(20_000);
    }
    // As a version left them that did not number them.
    for set in lab.world.objects.replica_sets.values_mut() {
        Arc::make_mut(set).metadata.annotations = None;
    }
    lab.settle();
    let all = [("web:1", 1), ("web:2", 2), ("web:3", 3), ("web:4", 4)];
    assert_eq!(revisions(&lab), numbered(&all));
    apply(&mut lab, "web:5", json!({"revisionHistoryLimit": 2}));
    lab.run_for(20_000);
    assert_eq!(
        revisions(&lab),
        numbered(&[("web:3", 3), ("web:4", 4), ("web:5", 5)])
    );
}
