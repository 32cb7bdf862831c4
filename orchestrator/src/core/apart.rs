//! Tests: objects that cannot be read, one of each kind, and what belongs to them.

use std::collections::BTreeSet;

use serde_json::json;

use super::lab::Lab;
use super::quarantine::{LIST, Unreadable};
use super::world::{Key, Object};
use super::{Action, meta};

/// What is around an instance of `front`.
const LIST_OF: &str = "{{ self.instance }}{% for i in peers.back.instances %} {{ i.name }}-{{ i.ready }}{% endfor %}\
                       {% for f in functions %} {{ f.name }}={{ f.instances|length }}{% endfor %}\n";

/// A world at rest with two functions of which one is the other's peer, and has files that name its instances.
fn lab() -> Lab {
    let mut lab = Lab::new(&["n"]);
    lab.publish("back", "1.0.0", json!({}));
    let need = json!([{"function": "back", "role": "back", "interface": "sip"}]);
    let config = json!([{"template": "main.cfg", "path": "/etc/main.cfg"},
        {"template": "list", "path": "/etc/own/list", "instance": true}]);
    let templates = json!({"main.cfg": "vip={{ self.vip }} to={{ peers.back.vip }}\n", "list": LIST_OF});
    let front = json!({"needs": need, "config": config, "templates": templates, "seesService": true});
    lab.publish("front", "1.0.0", front);
    lab.deploy("back", json!({"replicas": 2}));
    lab.deploy("front", json!({"replicas": 2, "peers": {"back": "back"}}));
    lab.settle();
    lab.run_for(3_000);
    lab
}

/// Nobody can read it any more.
fn damage(lab: &mut Lab, kind: &'static str, key: &Key) -> Object {
    let object = lab
        .world
        .objects
        .get(kind, key)
        .unwrap_or_else(|| panic!("{kind} {key}"));
    let unreadable = Unreadable::of(&object.to_value().unwrap(), "damaged".to_owned());
    lab.world.objects.remove(kind, key);
    lab.world.quarantine.insert((kind, key.clone()), unreadable);
    object
}

fn mend(lab: &mut Lab, object: Object) {
    lab.world.quarantine.clear();
    lab.world.objects.put(object);
}

/// What runs: each node's pods, services and names.
fn in_force(lab: &Lab) -> serde_json::Value {
    let configs = lab.world.configs.values().map(|c| {
        let mut config = (**c).clone();
        config.generation = Default::default();
        for service in config.services.values_mut() {
            service
                .ports
                .iter_mut()
                .for_each(|p| p.backends.sort_by_key(|b| b.pod.clone()));
        }
        serde_json::to_value(config).unwrap()
    });
    configs.collect()
}

#[test]
fn nothing_of_an_object_that_cannot_be_read_is_touched() {
    let kinds: Vec<(&'static str, Vec<Key>)> = {
        let objects = lab().world.objects;
        let pick = |keys: Vec<&Key>| keys.into_iter().cloned().collect::<Vec<_>>();
        vec![
            ("Pod", pick(objects.pods.keys().collect())),
            ("NetworkFunction", pick(objects.functions.keys().collect())),
            ("Service", pick(objects.services.keys().collect())),
            ("NfPackage", pick(objects.packages.keys().collect())),
            ("ConfigMap", pick(objects.config_maps.keys().collect())),
            ("EndpointSlice", pick(objects.endpoint_slices.keys().collect())),
            ("Node", pick(objects.nodes.keys().collect())),
            ("NodeTopology", pick(objects.topologies.keys().collect())),
            ("Network", pick(objects.networks.keys().collect())),
            ("Namespace", pick(objects.namespaces.keys().collect())),
            ("Operation", pick(objects.operations.keys().collect())),
        ]
    };
    for (kind, keys) in kinds {
        assert!(!keys.is_empty(), "{kind}");
        for key in keys {
            let mut lab = lab();
            let before = in_force(&lab);
            let object = damage(&mut lab, kind, &key);
            let told = lab.settle();
            lab.run_for(5_000);
            assert!(
                told.iter().any(|t| t.ends_with(" Unreadable")),
                "{kind} {key}: {told:?}"
            );
            assert!(in_force(&lab) == before, "{kind} {key}");
            assert!(lab.pass().is_empty(), "{kind} {key}");
            // Beside it life goes on.
            lab.publish("other", "1.0.0", json!({}));
            lab.deploy("other", json!({}));
            lab.settle();
            lab.run_for(3_000);
            if !["Namespace", "Node", "NodeTopology"].contains(&kind) {
                assert_eq!(lab.function("other").status.ready_replicas, 1, "{kind} {key}");
            }
            mend(&mut lab, object);
            lab.settle();
            lab.run_for(5_000);
            assert_eq!(lab.function("other").status.ready_replicas, 1, "{kind} {key}");
            let list = Key::new("kube-system", LIST);
            assert!(!lab.world.objects.config_maps.contains_key(&list), "{kind} {key}");
        }
    }
}

#[test]
fn an_unreadable_pod_that_is_deleted_leaves_its_node() {
    let mut lab = lab();
    let key = lab.world.objects.pods.keys().next().cloned().unwrap();
    let pod = damage(&mut lab, "Pod", &key);
    lab.settle();
    let uid = meta::uid(pod.meta()).to_owned();
    let runs = |lab: &Lab| lab.world.configs["n"].pods.contains_key(&uid);
    assert!(runs(&lab));
    lab.world.quarantine.clear();
    lab.settle();
    assert!(!runs(&lab) && !lab.world.plan.placements.contains_key(&uid));
}

/// What the harm is: whoever takes it for missing stops what it owns.
#[test]
fn a_function_taken_for_missing_takes_its_pods_with_it() {
    let mut lab = lab();
    damage(&mut lab, "NetworkFunction", &Key::new("default", "back"));
    lab.world.quarantine.clear();
    let stopped: BTreeSet<String> = lab
        .pass()
        .iter()
        .filter_map(|a| match a {
            Action::Update(Object::Pod(pod)) if pod.metadata.deletion_timestamp.is_some() => {
                Some(meta::name(&pod.metadata).to_owned())
            }
            _ => None,
        })
        .collect();
    assert_eq!(stopped.len(), 2);
}
