//! Random operators: they deploy, scale, resize, upgrade, roll back, delete and cordon.

use std::sync::Arc;

use gantry_api::{NetworkFunction, NetworkService, NfPackage, NfPackageSpec, ObjectMeta};
use gantry_catalog::{Cpu, MilliCpu, Quantity, ResourceOverride, Smt};
use gantry_orchestrator::core::{Key, Object, meta};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::control::Store;
use crate::rng::Rng;

const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
const NAMESPACE: &str = "default";
/// Namespace of somebody who asks for far too much, all the time; sorted before the others'.
pub(crate) const FLOOD: &str = "a-flood";

fn package(name: &str, version: &str, extra: Value) -> Object {
    let mut spec = json!({
        "package": name, "version": version, "family": "ims", "role": name, "plane": "signalling",
        "values": {"limit": 1},
        "containers": [{"name": "main", "image": format!("{name}:{version}"), "args": ["$(POD_IP)"],
            "cpu": {"mode": "shared", "request": "200m"}, "memory": "64Mi",
            "readinessProbe": {"tcpSocket": {"port": 5060}, "periodSeconds": 2}}],
        "interfaces": [{"name": "sip", "protocol": "SIP", "transport": "tcp", "port": 5060, "service": true}],
        "config": [{"template": "main.cfg", "path": "/etc/main.cfg"}],
        "templates": {"main.cfg": "limit={{ values.limit }} vip={{ self.vip }}\n"},
        "drain": {"method": "sessions", "sessions": {"port": 9090, "metric": "sessions"}, "quietSeconds": 2},
    });
    if let (Some(spec), Value::Object(extra)) = (spec.as_object_mut(), extra) {
        spec.extend(extra);
    }
    let spec: NfPackageSpec = serde_json::from_value(spec).expect("a valid package");
    let metadata = ObjectMeta {
        name: Some(format!("{name}-{version}")),
        ..Default::default()
    };
    let mut object = NfPackage::new(metadata, spec);
    meta::be_born("NfPackage", &mut object.metadata, 0);
    Object::NfPackage(Arc::new(object))
}

/// The catalog: a front that is resized live and needs a back; a back whose resize replaces instances; one that counts nothing.
pub(crate) fn publish(store: &mut Store) {
    for version in VERSIONS {
        let need = json!({"needs": [{"function": "back", "role": "back", "interface": "sip"}],
            "templates": {"main.cfg": "limit={{ values.limit }} to={{ peers.back.vip }}:{{ peers.back.port }}\n"}});
        store.put(package("front", version, need));
        store.put(package(
            "back",
            version,
            json!({"resize": {"cpu": "fixed", "memory": "elastic"}}),
        ));
        store.put(package(
            "plain",
            version,
            json!({"drain": {}, "interfaces": [], "upgrade": {"strategy": "replace"},
            "templates": {"main.cfg": "limit={{ values.limit }}\n"}}),
        ));
    }
}

/// A Deployment of two million pods that fit nowhere.
pub(crate) fn flood(store: &mut Store) {
    let labels = json!({"app": "huge"});
    let resources = json!({"requests": {"cpu": "1000"}});
    let template = json!({"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "tool:1", "resources": resources}]}});
    let spec = json!({"replicas": 2_000_000, "selector": {"matchLabels": labels}, "template": template});
    let value = json!({"metadata": {"name": "huge", "namespace": FLOOD}, "spec": spec});
    let mut deployment: Deployment = serde_json::from_value(value).expect("a valid deployment");
    meta::be_born("Deployment", &mut deployment.metadata, 0);
    store.put(Object::Deployment(Arc::new(deployment)));
}

/// One random wish.
pub(crate) fn act(store: &mut Store, rng: &mut Rng, now_ms: u64) {
    let functions: Vec<Key> = store.objects.functions.keys().cloned().collect();
    let wish = if functions.len() < 2 {
        0
    } else {
        rng.between(0, 99)
    };
    match wish {
        0..20 => deploy(store, rng, now_ms),
        20..45 => change(store, rng, &functions, |f, rng| {
            f.spec.replicas = u32::try_from(rng.between(0, 4)).unwrap_or(1)
        }),
        45..70 => change(store, rng, &functions, resize),
        70..85 => change(store, rng, &functions, |f, rng| {
            if rng.percent(50) {
                f.spec.version = VERSIONS[usize::from(rng.percent(50))].to_owned();
            } else {
                f.spec.values.insert("limit".to_owned(), json!(rng.between(1, 3)));
            }
        }),
        85..90 => change(store, rng, &functions, |f, _| {
            if let Some(last) = f.status.history.last().cloned() {
                let (replicas, resources, group) =
                    (f.spec.replicas, f.spec.resources.clone(), f.spec.group.clone());
                f.spec = gantry_api::NetworkFunctionSpec {
                    replicas,
                    resources,
                    group,
                    ..last.spec
                };
            }
        }),
        90..94 => delete(store, rng, &functions, now_ms),
        _ => cordon(store, rng),
    }
}

fn deploy(store: &mut Store, rng: &mut Rng, now_ms: u64) {
    if rng.percent(30) {
        let spec = json!({"package": "plain", "version": VERSIONS[0], "replicas": rng.between(1, 2)});
        let spec = serde_json::from_value(spec).expect("a valid function");
        let metadata = ObjectMeta {
            name: Some("plain".into()),
            namespace: Some(NAMESPACE.into()),
            ..Default::default()
        };
        return born(
            store,
            Object::NetworkFunction(Arc::new(NetworkFunction::new(metadata, spec))),
            now_ms,
        );
    }
    let spec = json!({"functions": [
        {"name": "edge", "package": "front", "version": VERSIONS[0], "replicas": rng.between(1, 3), "peers": {"back": "core"}},
        {"name": "core", "package": "back", "version": VERSIONS[0], "replicas": 1},
    ]});
    let spec = serde_json::from_value(spec).expect("a valid service");
    let metadata = ObjectMeta {
        name: Some("pair".into()),
        namespace: Some(NAMESPACE.into()),
        ..Default::default()
    };
    born(
        store,
        Object::NetworkService(Arc::new(NetworkService::new(metadata, spec))),
        now_ms,
    );
}

fn born(store: &mut Store, mut object: Object, now_ms: u64) {
    if store
        .objects
        .get(object.kind(), &Key::of(object.meta()))
        .is_none()
    {
        let mut metadata = object.meta().clone();
        meta::be_born(object.kind(), &mut metadata, now_ms);
        object.set_meta(metadata);
        store.put(object);
    }
}

fn pick(store: &Store, rng: &mut Rng, functions: &[Key]) -> Option<Arc<NetworkFunction>> {
    store.objects.functions.get(rng.pick(functions)?).cloned()
}

fn change(
    store: &mut Store,
    rng: &mut Rng,
    functions: &[Key],
    how: impl FnOnce(&mut NetworkFunction, &mut Rng),
) {
    let Some(old) = pick(store, rng, functions) else {
        return;
    };
    if old.metadata.deletion_timestamp.is_some() {
        return;
    }
    let mut new = (*old).clone();
    how(&mut new, rng);
    if new.spec != old.spec {
        new.metadata.generation = Some(old.metadata.generation.unwrap_or(1) + 1);
        store.put(Object::NetworkFunction(Arc::new(new)));
    }
}

fn resize(function: &mut NetworkFunction, rng: &mut Rng) {
    let count = u32::try_from(rng.between(1, 3)).unwrap_or(1);
    let cpu = match rng.between(0, 2) {
        0 => Cpu::Shared {
            request: MilliCpu(100 * count),
            limit: None,
        },
        1 => Cpu::Exclusive { count, smt: Smt::Any },
        _ => Cpu::Exclusive {
            count,
            smt: Smt::Full,
        },
    };
    let memory = Some(Quantity(rng.between(1, 4) * (64 << 20)));
    function.spec.resources.insert(
        "main".to_owned(),
        ResourceOverride {
            cpu: Some(cpu),
            memory,
        },
    );
}

fn delete(store: &mut Store, rng: &mut Rng, functions: &[Key], now_ms: u64) {
    let pair = Key::new(NAMESPACE, "pair");
    if rng.percent(50) && store.objects.network_services.contains_key(&pair) {
        store.objects.remove("NetworkService", &pair);
        return;
    }
    let Some(old) = pick(store, rng, functions) else {
        return;
    };
    let mut new = (*old).clone();
    if rng.percent(50) {
        meta::annotate(
            &mut new.metadata,
            gantry_orchestrator::core::UNDEPLOY,
            Some("drain".to_owned()),
        );
    }
    new.metadata.deletion_timestamp = Some(meta::time(now_ms));
    let held = new.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
    match held {
        true => store.put(Object::NetworkFunction(Arc::new(new))),
        false => store.objects.remove("NetworkFunction", &Key::of(&old.metadata)),
    }
}

fn cordon(store: &mut Store, rng: &mut Rng) {
    let nodes: Vec<Key> = store.objects.nodes.keys().cloned().collect();
    if let Some(key) = rng.pick(&nodes) {
        set_cordon(store, key, rng.percent(50));
    }
}

fn set_cordon(store: &mut Store, key: &Key, cordoned: bool) {
    let Some(node) = store.objects.nodes.get(key).cloned() else {
        return;
    };
    let mut node = (*node).clone();
    if let Some(spec) = &mut node.spec {
        spec.unschedulable = cordoned.then_some(true);
    }
    store.put(Object::Node(Arc::new(node)));
}

/// The last wish: something small enough to fit anywhere, on nodes that are open.
pub(crate) fn calm_down(store: &mut Store) {
    for key in store.objects.nodes.keys().cloned().collect::<Vec<_>>() {
        set_cordon(store, &key, false);
    }
    for key in store.objects.functions.keys().cloned().collect::<Vec<_>>() {
        let mut rng = Rng::new(0);
        change(store, &mut rng, &[key], |function, _| {
            function.spec.replicas = function.spec.replicas.min(2);
            let cpu = Some(Cpu::Shared {
                request: MilliCpu(100),
                limit: None,
            });
            let small = ResourceOverride {
                cpu,
                memory: Some(Quantity(64 << 20)),
            };
            function.spec.resources.insert("main".to_owned(), small);
        });
    }
}
