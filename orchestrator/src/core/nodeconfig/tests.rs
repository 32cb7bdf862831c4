//! Whole passes over a world of one node.

use std::sync::Arc;

use gantry_nodeagent_api::{Generation, Hello, NodeStatus};
use gantry_topology::{Cpu, CpuSet, NumaNode, Topology};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::super::world::{Key, Object, Settings, World};
use super::super::{Action, meta, pods, reconcile};

fn world() -> World {
    let mut world = World::new(Settings {
        pod_cidr: "10.85.0.0/16".parse().unwrap(),
        service_cidr: "10.86.0.0/16".parse().unwrap(),
        cluster_domain: "cluster.local".to_owned(),
        seed: 0,
    });
    let cpu = |id| Cpu {
        id,
        core: id,
        l3: 0,
        numa: 0,
        socket: 0,
    };
    let memory = NumaNode {
        id: 0,
        memory_bytes: 4 << 30,
        hugepages: Default::default(),
        distances: Default::default(),
    };
    let hello = Hello {
        node: "n".to_owned(),
        boot_id: String::new(),
        agent_version: String::new(),
        kernel_version: String::new(),
        address: [192, 0, 2, 1].into(),
        topology: Topology {
            cpus: (0..4).map(cpu).collect(),
            numa_nodes: vec![memory],
        },
        reserved: CpuSet::new(),
        reserved_memory_bytes: 0,
        generation: Generation(0),
    };
    world.agents.connected(hello, 1);
    world.agents.reported("n", NodeStatus::default(), 1);
    world
}

/// Passes until nothing is left to be done; what was told on the way.
fn settle(world: &mut World) -> Vec<String> {
    let mut told = Vec::new();
    for now_ms in 2..50 {
        let actions = reconcile(world, now_ms);
        if actions.is_empty() {
            return told;
        }
        for action in actions {
            match action {
                Action::CommitPlan { plan, .. } => world.plan = plan,
                Action::Create(object) | Action::Update(object) | Action::UpdateStatus(object) => {
                    world.objects.put(object);
                }
                Action::Delete { kind, key, .. } => world.objects.remove(kind, &key),
                Action::SendConfig { node, config } => {
                    world.agents.sent(&node, &config, now_ms);
                    world.configs.insert(node, config);
                }
                Action::EmitEvent(note) => told.push(format!("{} {}", note.key.name, note.reason)),
            }
        }
    }
    panic!("it does not come to rest");
}

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
    let mut world = world();
    settle(&mut world);
    world.objects.put(pod("a", "/tmp"));
    world.objects.put(pod("b", "not/absolute"));
    let told = settle(&mut world);
    let config = &world.configs["n"];
    config.check().unwrap();
    let names: Vec<&str> = config.pods.values().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    let problems = told.iter().filter(|t| *t == "b CreateContainerConfigError");
    assert_eq!(problems.count(), 1, "{told:?}");
    let bad = &world.objects.pods[&Key::new("default", "b")];
    let why = pods::find(bad, "PodReadyToStartContainers").unwrap();
    assert!(
        why.message
            .as_deref()
            .unwrap_or_default()
            .contains("not/absolute")
    );
    assert_eq!(meta::name(&bad.metadata), "b");
}
