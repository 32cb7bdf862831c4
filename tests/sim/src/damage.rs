//! Objects that nobody can read for a while, and the oracle that nothing of theirs is stopped.

use gantry_api::ObjectMeta;
use gantry_nodeagent_api::PodDesired;
use gantry_orchestrator::core::{Action, Key, Object, Quarantine, meta, pods};

use crate::Oracle;
use crate::control::Store;
use crate::oracle::Verdict;
use crate::rng::Rng;

/// Damages one object of a random kind.
pub(crate) fn strike(store: &mut Store, rng: &mut Rng) {
    let objects = &store.objects;
    let mut all: Vec<Object> = Vec::new();
    match rng.between(0, 4) {
        0 => all.extend(objects.pods.values().cloned().map(Object::Pod)),
        1 => all.extend(objects.functions.values().cloned().map(Object::NetworkFunction)),
        2 => all.extend(objects.services.values().cloned().map(Object::Service)),
        3 => all.extend(
            objects
                .network_services
                .values()
                .cloned()
                .map(Object::NetworkService),
        ),
        _ => all.extend(objects.packages.values().cloned().map(Object::NfPackage)),
    }
    if let Some(object) = rng.pick(&all).cloned() {
        store.damage(object);
    }
}

/// A pass stops neither a pod that could not be read when it was thought out, nor one whose owner could not be.
pub(crate) fn untouched(actions: &[Action], quarantine: &Quarantine, store: &Store) -> Verdict {
    for action in actions.iter().filter(|_| !quarantine.is_empty()) {
        let stopped = match action {
            Action::Update(Object::Pod(new)) => {
                let old = store.objects.pods.get(&Key::of(&new.metadata));
                let goes = pods::is_leaving(new) && old.is_some_and(|old| !pods::is_leaving(old));
                (goes && is_owned(&new.metadata, quarantine)).then(|| meta::name(&new.metadata).to_owned())
            }
            Action::SendConfig { node, config } => store.configs.get(node).and_then(|last| {
                let mut unreadable = last.pods.iter().filter(|(_, pod)| {
                    let key = Key::new(&pod.namespace, &pod.name);
                    pod.desired == PodDesired::Run && quarantine.contains_key(&("Pod", key))
                });
                unreadable
                    .find(|(uid, pod)| config.pods.get(*uid) != Some(pod))
                    .map(|(_, pod)| pod.name.clone())
            }),
            _ => None,
        };
        if let Some(pod) = stopped {
            let what = format!("pod {pod} is touched, and {:?} cannot be read", quarantine.keys());
            return Err((Oracle::Untouched, what));
        }
    }
    Ok(())
}

fn is_owned(pod: &ObjectMeta, quarantine: &Quarantine) -> bool {
    let owners = pod.owner_references.iter().flatten();
    let mut keys = owners.map(|o| (o.kind.as_str(), Key::new(meta::namespace(pod), &o.name)));
    keys.any(|(kind, key)| quarantine.keys().any(|(k, q)| *k == kind && *q == key))
}
