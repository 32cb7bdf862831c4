//! Whole passes over a world of one node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::super::lab::Lab;
use super::super::world::{Key, Object};
use super::super::{meta, pods};

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

/// A node refuses a configuration as a whole: one bad pod would keep all others from being started, changed or stopped.
#[test]
fn a_pod_that_the_node_would_refuse_is_kept_from_it() {
    let mut lab = Lab::new(&["n"]);
    lab.settle();
    lab.world.objects.put(pod("a", "/tmp"));
    lab.world.objects.put(pod("b", "not/absolute"));
    let told = lab.settle();
    let config = &lab.world.configs["n"];
    config.check().unwrap();
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
