//! Whole passes: what opens an operation, when it ends, and what its receipt says.

use std::sync::Arc;

use gantry_api::{NetworkFunctionSpec, Operation, OperationKind, OperationPhase};
use gantry_catalog::{Cpu, MilliCpu, ResourceOverride, Smt};
use gantry_nodeagent_api::{ContainerConfig, ContainerRole};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::super::lab::Lab;
use super::super::world::{Key, Object};
use super::super::{meta, pods};

/// A function `sbc` with one instance that runs.
fn deployed(package: Value) -> Lab {
    let mut lab = Lab::new(&["n"]);
    for version in ["1.0.0", "1.1.0"] {
        lab.publish("sbc", version, package.clone());
    }
    lab.deploy("sbc", json!({}));
    lab.settle();
    lab.run_for(1_000);
    assert_eq!(phase(&lab, "sbc-1"), OperationPhase::Succeeded);
    lab
}

fn operation(lab: &Lab, name: &str) -> Option<Arc<Operation>> {
    lab.world
        .objects
        .operations
        .get(&Key::new("default", name))
        .cloned()
}

fn phase(lab: &Lab, name: &str) -> OperationPhase {
    operation(lab, name)
        .unwrap_or_else(|| panic!("there is no operation {name}"))
        .status
        .phase
}

fn size(spec: &mut NetworkFunctionSpec, cpu: Cpu) {
    let size = ResourceOverride {
        cpu: Some(cpu),
        memory: None,
    };
    spec.resources.insert("main".to_owned(), size);
}

fn shared(milli: u32) -> Cpu {
    Cpu::Shared {
        request: MilliCpu(milli),
        limit: None,
    }
}

#[test]
fn an_upgrade_ends_when_the_old_instance_is_gone() {
    let mut lab = deployed(json!({}));
    let old = lab.pods("sbc").into_values().next().unwrap();
    lab.sessions.insert(old.clone(), 5);
    lab.run_for(500);
    lab.change("sbc", |spec| spec.version = "1.1.0".to_owned());
    lab.settle();
    assert_eq!(lab.pods("sbc").len(), 2);
    assert_eq!(phase(&lab, "sbc-2"), OperationPhase::Running);
    lab.run_for(60_000);
    assert_eq!(phase(&lab, "sbc-2"), OperationPhase::Running);
    lab.sessions.remove(&old);
    lab.run_for(10_000);
    let ended = operation(&lab, "sbc-2").unwrap();
    assert_eq!(ended.status.phase, OperationPhase::Succeeded);
    let receipt = &ended.status.receipt;
    assert_eq!((receipt.sessions_drained, receipt.sessions_lost), (5, Some(0)));
}

#[test]
fn what_cannot_be_done_does_not_succeed() {
    let mut lab = deployed(json!({}));
    lab.change("sbc", |spec| spec.version = "9.9.9".to_owned());
    lab.settle();
    lab.run_for(2_000);
    let operation = operation(&lab, "sbc-2").unwrap();
    assert_eq!(operation.status.phase, OperationPhase::Running);
    assert!(
        operation.status.message.contains("not in the catalog"),
        "{}",
        operation.status.message
    );
}

#[test]
fn a_pod_and_its_successor_of_the_same_name_have_an_entry_each() {
    let mut lab = deployed(json!({"upgrade": {"strategy": "replace"}}));
    let old = lab.pods("sbc").into_values().next().unwrap();
    lab.sessions.insert(old.clone(), 5);
    lab.run_for(500);
    lab.change("sbc", |spec| spec.version = "1.1.0".to_owned());
    lab.settle();
    lab.run_for(2_000);
    lab.sessions.remove(&old);
    lab.run_for(20_000);
    let ended = operation(&lab, "sbc-2").unwrap();
    assert_eq!(ended.status.phase, OperationPhase::Succeeded);
    let entries = ended.status.pods.iter();
    let did: Vec<_> = entries
        .map(|(name, p)| (name.as_str(), p.action.as_str(), p.sessions_before, p.done))
        .collect();
    assert_eq!(
        did,
        [("sbc-0", "created", 0, true), ("sbc-0#1", "drained", 5, true)]
    );
    let receipt = &ended.status.receipt;
    assert_eq!((receipt.sessions_drained, receipt.sessions_lost), (5, Some(0)));
}

#[test]
fn a_resize_ends_when_the_kernel_has_the_new_size() {
    let exclusive = Cpu::Exclusive {
        count: 2,
        smt: Smt::Any,
    };
    for (from, to) in [
        (shared(200), shared(400)),
        (exclusive.clone(), shared(200)),
        (shared(200), exclusive),
    ] {
        let mut lab = deployed(json!({}));
        lab.change("sbc", |spec| size(spec, from.clone()));
        lab.settle();
        lab.run_for(2_000);
        lab.change("sbc", |spec| size(spec, to.clone()));
        lab.settle();
        assert_eq!(
            phase(&lab, "sbc-3"),
            OperationPhase::Running,
            "{from:?} -> {to:?}"
        );
        lab.run_for(2_000);
        assert_eq!(
            phase(&lab, "sbc-3"),
            OperationPhase::Succeeded,
            "{from:?} -> {to:?}"
        );
    }
}

#[test]
fn nothing_is_done_before_it_is_known_what_is_asked() {
    let files = json!({"config": [{"template": "a", "path": "/etc/a"}], "templates": {"a": "x"}});
    let mut lab = deployed(files);
    lab.renders = false;
    lab.change("sbc", |spec| spec.version = "1.1.0".to_owned());
    for _ in 0..4 {
        lab.pass();
        lab.now_ms += 500;
        lab.obey();
    }
    assert_eq!(phase(&lab, "sbc-2"), OperationPhase::Running);
    lab.renders = true;
    lab.settle();
    lab.run_for(20_000);
    assert_eq!(phase(&lab, "sbc-2"), OperationPhase::Succeeded);
}

/// Every pod gets an init container, which its agent reports as ended.
fn initialize(lab: &mut Lab) {
    for pod in lab.world.objects.pods.values_mut() {
        let spec = Arc::make_mut(pod).spec.as_mut().unwrap();
        spec.init_containers = serde_json::from_value(json!([{"name": "make", "image": "i"}])).unwrap();
    }
    for config in lab.world.configs.values_mut() {
        for pod in Arc::make_mut(config).pods.values_mut() {
            let mut make = ContainerConfig {
                name: "make".to_owned(),
                role: ContainerRole::Init,
                ..ContainerConfig::default()
            };
            make.resources.cpu_request_milli = 10;
            pod.containers.insert(0, make);
        }
    }
}

#[test]
fn nobody_waits_for_an_init_container_that_has_ended() {
    let mut lab = deployed(json!({}));
    initialize(&mut lab);
    lab.run_for(1_000);
    lab.change("sbc", |spec| size(spec, shared(400)));
    lab.settle();
    lab.run_for(2_000);
    assert_eq!(phase(&lab, "sbc-2"), OperationPhase::Succeeded);
    let uid = lab.pods("sbc").into_values().next().unwrap();
    lab.sessions.insert(uid, 3);
    lab.run_for(1_000);
    lab.change("sbc", |spec| spec.version = "1.1.0".to_owned());
    lab.settle();
    lab.run_for(2_000);
    lab.sessions.clear();
    lab.run_for(20_000);
    let ended = operation(&lab, "sbc-3").unwrap();
    let receipt = &ended.status.receipt;
    assert_eq!(
        (
            ended.status.phase,
            receipt.sessions_drained,
            receipt.sessions_lost
        ),
        (OperationPhase::Succeeded, 3, Some(0))
    );
}

/// Two instances, one of which drains and has five sessions; its name and uid.
fn draining(package: Value) -> (Lab, String, String) {
    let mut lab = deployed(package);
    lab.change("sbc", |spec| spec.replicas = 2);
    lab.settle();
    lab.run_for(2_000);
    for uid in lab.pods("sbc").into_values() {
        lab.sessions.insert(uid, 5);
    }
    lab.run_for(500);
    lab.change("sbc", |spec| spec.replicas = 1);
    lab.settle();
    lab.run_for(2_000);
    let pods = lab.world.objects.pods.iter();
    let (key, pod) = pods
        .map(|(k, p)| (k.clone(), p.clone()))
        .find(|(_, p)| pods::drain(p).is_some())
        .unwrap();
    (lab, key.name, pod.metadata.uid.clone().unwrap())
}

#[test]
fn a_receipt_tells_what_became_of_the_sessions() {
    type Fate = fn(&mut Lab, &str, &str);
    let ends: Fate = |lab, _, uid| {
        lab.sessions.remove(uid);
    };
    let crashes: Fate = |lab, _, uid| {
        lab.sessions.remove(uid);
        lab.restarts.insert(uid.to_owned(), 1);
    };
    let reboots: Fate = |lab, _, uid| {
        lab.sessions.remove(uid);
        lab.started_at_ms += 1_000;
    };
    let vanishes: Fate = |lab, name, _| lab.world.objects.remove("Pod", &Key::new("default", name));
    let stopped: Fate = |lab, name, _| {
        let pod = lab.world.objects.pods.get_mut(&Key::new("default", name));
        let pod: &mut Pod = pod.map(Arc::make_mut).unwrap();
        pod.metadata.deletion_timestamp = Some(meta::time(lab.now_ms));
    };
    let uncounted = json!({"drain": {}});
    for (what, package, fate, drained, lost, restarts) in [
        ("ends by itself", json!({}), ends, 5, Some(0), 0),
        ("crashes", json!({}), crashes, 0, Some(5), 1),
        ("is rebooted", json!({}), reboots, 0, Some(5), 0),
        ("is deleted by force", json!({}), vanishes, 0, Some(5), 0),
        ("is deleted", json!({}), stopped, 0, Some(5), 0),
        ("does not count", uncounted, stopped, 0, None, 0),
    ] {
        let (mut lab, name, uid) = if package == json!({}) {
            draining(package)
        } else {
            undecided(package)
        };
        fate(&mut lab, &name, &uid);
        lab.settle();
        lab.run_for(10_000);
        let operation = operation(&lab, "sbc-3").unwrap();
        let receipt = &operation.status.receipt;
        assert_eq!(operation.status.phase, OperationPhase::Succeeded, "{what}");
        assert_eq!(
            (receipt.sessions_drained, receipt.sessions_lost, receipt.restarts),
            (drained, lost, restarts),
            "{what}"
        );
        assert_eq!(operation.status.pods[&name].restarts, restarts, "{what}");
    }
}

/// As [`draining`], of a function whose drain does not wait: stopped before an agent has applied anything.
fn undecided(package: Value) -> (Lab, String, String) {
    let mut lab = deployed(package);
    lab.change("sbc", |spec| spec.replicas = 2);
    lab.settle();
    lab.run_for(2_000);
    lab.change("sbc", |spec| spec.replicas = 1);
    lab.settle();
    let leaving = lab.world.objects.pods.values().find(|p| pods::is_leaving(p));
    let metadata = leaving.unwrap().metadata.clone();
    (lab, metadata.name.unwrap(), metadata.uid.unwrap())
}

#[test]
fn what_still_drains_is_neither_drained_nor_lost() {
    let (mut lab, name, uid) = draining(json!({}));
    lab.change("sbc", |spec| spec.version = "1.1.0".to_owned());
    lab.settle();
    let superseded = operation(&lab, "sbc-3").unwrap();
    assert_eq!(superseded.status.phase, OperationPhase::Superseded);
    let receipt = &superseded.status.receipt;
    assert_eq!((receipt.sessions_drained, receipt.sessions_lost), (0, Some(0)));
    lab.run_for(3_000);
    lab.sessions.clear();
    lab.run_for(20_000);
    let ended = operation(&lab, "sbc-4").unwrap();
    assert_eq!(ended.status.phase, OperationPhase::Succeeded);
    assert_eq!(ended.status.receipt.sessions_drained, 10);
    assert_eq!(ended.status.pods[&name].sessions_lost, Some(0));
    assert!(!lab.pods("sbc").values().any(|other| *other == uid));
}

#[test]
fn history_holds_what_ran() {
    let mut lab = deployed(json!({}));
    let revision = lab.function("sbc").status.revision.clone();
    for version in ["9.9.9", "1.1.0"] {
        lab.change("sbc", |spec| spec.version = version.to_owned());
        lab.settle();
    }
    let status = lab.function("sbc").status.clone();
    assert_ne!(status.revision, revision);
    let kept: Vec<_> = status
        .history
        .iter()
        .map(|r| (r.revision.as_str(), r.generation, r.spec.version.as_str()))
        .collect();
    assert_eq!(kept, [(revision.as_str(), 1, "1.0.0")]);
}

#[test]
fn a_change_of_a_peer_is_an_operation() {
    let needs = json!({
        "needs": [{"function": "core", "role": "core", "interface": "sip"}],
        "config": [{"template": "main.cfg", "path": "/etc/main.cfg"}],
        "templates": {"main.cfg": "to={{ peers.core.vip }}\n"},
    });
    let mut lab = Lab::new(&["n"]);
    lab.publish("core", "1.0.0", json!({}));
    lab.publish("edge", "1.0.0", needs);
    lab.deploy("core", json!({}));
    lab.deploy("edge", json!({"peers": {"core": "core"}}));
    lab.settle();
    lab.run_for(2_000);
    let before = lab.pods("edge");
    let service = lab.world.objects.services.get_mut(&Key::new("default", "core"));
    let service = service.map(Arc::make_mut).unwrap();
    service.spec.as_mut().unwrap().cluster_ip = Some("10.86.9.9".to_owned());
    lab.settle();
    let revision = lab.function("edge").status.revision.clone();
    let name = format!("edge-1-{revision}");
    assert_eq!(
        operation(&lab, &name).unwrap().spec.kinds,
        [OperationKind::Upgrade]
    );
    lab.run_for(10_000);
    let ended = operation(&lab, &name).unwrap();
    assert_eq!(ended.status.phase, OperationPhase::Succeeded);
    let did: Vec<&str> = ended.status.pods.values().map(|p| p.action.as_str()).collect();
    assert_eq!(did.len(), 2, "{did:?}");
    assert!(lab.pods("edge").keys().all(|pod| !before.contains_key(pod)));
    assert_eq!(lab.world.objects.operations.len(), 3);
}

#[test]
fn what_does_not_matter_to_instances_leaves_the_operation_alone() {
    let mut lab = deployed(json!({}));
    lab.change("sbc", |spec| spec.version = "1.1.0".to_owned());
    lab.settle();
    lab.change("sbc", |spec| spec.group = Some("g".to_owned()));
    lab.settle();
    assert_eq!(phase(&lab, "sbc-2"), OperationPhase::Running);
    assert_eq!(lab.function("sbc").status.observed_generation, 3);
    assert!(operation(&lab, "sbc-3").is_none());
    lab.run_for(10_000);
    assert_eq!(phase(&lab, "sbc-2"), OperationPhase::Succeeded);
}

#[test]
fn of_two_changes_at_once_the_later_is_an_operation_and_both_are_observed() {
    let mut lab = deployed(json!({}));
    lab.change("sbc", |spec| spec.replicas = 2);
    lab.change("sbc", |spec| spec.replicas = 3);
    lab.pass();
    assert!(operation(&lab, "sbc-2").is_none());
    assert_eq!(operation(&lab, "sbc-3").unwrap().spec.asked, "replicas 1 -> 3");
    assert_eq!(lab.function("sbc").status.observed_generation, 3);
}

#[test]
fn an_operation_in_another_namespace_says_nothing_of_a_function() {
    let mut lab = deployed(json!({}));
    let mut forged = (*operation(&lab, "sbc-1").unwrap()).clone();
    forged.metadata.namespace = Some("other".to_owned());
    forged.spec.generation = 1;
    forged.spec.to.replicas = 7;
    forged.status.started_at_ms = u64::MAX;
    lab.world.objects.put(Object::Operation(Arc::new(forged)));
    lab.change("sbc", |spec| spec.version = "1.1.0".to_owned());
    lab.settle();
    let opened = operation(&lab, "sbc-2").unwrap();
    assert_eq!(opened.spec.kinds, [OperationKind::Upgrade]);
    let history = &lab.function("sbc").status.history;
    assert!(history.iter().all(|r| r.spec.replicas == 1), "{history:?}");
    assert!(!history.is_empty());
}
