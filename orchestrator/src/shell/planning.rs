//! What-if: the same core over the same world, nothing written.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::{Shared, now_ms};
use crate::core::{Key, Object, Preview, World, meta, pods, preview, schedule};
use crate::kinds;
use crate::renderer::Renderer;

/// Templates that are rendered at once for one question.
const RENDERINGS: usize = 64;
/// So often: functions name each other, but not in long chains.
const ROUNDS: usize = 8;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PlanningError {
    /// A manifest is not usable.
    #[error("{kind} {name}: {reason}")]
    Manifest {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody can render templates now.
    #[error("render the templates: {0}; ask again")]
    Render(#[source] std::io::Error),
}

/// Answers what the planner would do.
#[derive(Clone)]
pub struct Planner {
    world: Shared,
    renderer: Renderer,
}

impl Planner {
    pub(super) fn new(world: Shared, renderer: Renderer) -> Self {
        Self { world, renderer }
    }

    /// The world after one pass, the templates of functions in these namespaces rendered: nobody waits for those of others.
    fn preview(
        &self,
        world: &mut World,
        now_ms: u64,
        namespaces: &BTreeSet<String>,
    ) -> Result<Preview, PlanningError> {
        for _ in 0..ROUNDS {
            let mut outcome = preview(world, now_ms);
            outcome
                .renderings
                .retain(|r| namespaces.contains(&r.key.namespace));
            if outcome.renderings.is_empty() {
                return Ok(outcome);
            }
            for rendering in outcome.renderings.into_iter().take(RENDERINGS) {
                let answer = self.renderer.render(&rendering.job());
                world.answered(rendering, answer.map_err(PlanningError::Render)?);
            }
        }
        Ok(preview(world, now_ms))
    }

    /// The plan if these manifests were applied: `placements[] {pod, namespace, container, node, cpus, sharedCpus, numaNode, numaNodes}` (`numaNode`
    /// is the first of them) and
    /// `unplaced[] {pod, namespace, reason, nodes}` of the pods that they stand for, `problems[]` of functions, `drains[]` of pods
    /// that would be drained.
    pub fn dry_run(&self, manifests: &[Value]) -> Result<Value, PlanningError> {
        let mut world = self.world.lock().clone();
        let now_ms = now_ms();
        let (mut roots, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
        for manifest in manifests {
            let object = object(manifest, now_ms, &world.objects)?;
            roots.insert(meta::uid(object.meta()).to_owned());
            namespaces.insert(meta::namespace(object.meta()).to_owned());
            world.objects.put(object);
        }
        let before = world.plan.clone();
        Ok(answer(
            &self.preview(&mut world, now_ms, &namespaces)?,
            &before,
            &roots,
        ))
    }

    /// Why a pod has no place, node by node; or where it is. `None` if there is no such pod.
    pub fn explain(&self, namespace: &str, pod: &str) -> Option<Value> {
        let world = self.world.lock().clone();
        let found = world.objects.pods.get(&Key::new(namespace, pod))?.clone();
        let uid = meta::uid(&found.metadata);
        let outcome = preview(&world, now_ms());
        let placement = outcome.plan.placements.get(uid);
        let mut answer = json!({"pod": pod, "namespace": namespace});
        let bound = !schedule::waits(&found);
        answer["placements"] = placement
            .filter(|_| bound)
            .map(|p| rows(pod, namespace, p, &outcome.plan))
            .unwrap_or_default()
            .into();
        match outcome.unplaced.get(uid) {
            Some(why) => {
                answer["reason"] = why.reason.clone().into();
                answer["nodes"] = serde_json::to_value(&why.nodes).unwrap_or_default();
            }
            None => {
                let place = match placement {
                    None => "it wants no place: it has ended, or is going".to_owned(),
                    Some(p) if bound => format!("it is on {}", sentence(p, &outcome.plan)),
                    Some(p) => format!(
                        "{}; the plan has a place for it on {}",
                        unbound(&found),
                        sentence(p, &outcome.plan)
                    ),
                };
                answer["reason"] = place.into();
            }
        }
        Some(answer)
    }
}

/// A manifest as it would be in the store: identity from what is there, a new generation.
fn object(manifest: &Value, now_ms: u64, objects: &crate::core::Objects) -> Result<Object, PlanningError> {
    let text = |pointer: &str| {
        manifest
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let bad = |reason: String| PlanningError::Manifest {
        kind: kind.clone(),
        name: name.clone(),
        reason,
    };
    let row = kinds::named(&kind).ok_or_else(|| bad("the API has no such kind".to_owned()))?;
    let mut value = manifest.clone();
    (row.default)(&mut value);
    let known = (row.decode)(&value).map_err(|e| bad(e.to_string()))?;
    let new = Object::from_value(&kind, known).map_err(|e| bad(e.to_string()))?;
    let mut new = new.ok_or_else(|| bad("it has no part in placing pods".to_owned()))?;
    let mut metadata = new.meta().clone();
    if !row.namespaced {
        metadata.namespace = None;
    } else if metadata.namespace.is_none() {
        metadata.namespace = Some("default".to_owned());
    }
    match objects.get(row.kind, &Key::of(&metadata)) {
        None => meta::be_born(row.kind, &mut metadata, now_ms),
        Some(old) => {
            let old_value = old.to_value().unwrap_or_default();
            new = with_status(&new, &old_value, row.kind).unwrap_or(new);
            let labels = metadata.labels.take();
            metadata = old.meta().clone();
            metadata.labels = labels.or(metadata.labels);
            metadata.generation = metadata.generation.map(|g| g + 1);
        }
    }
    new.set_meta(metadata);
    Ok(new)
}

fn with_status(new: &Object, old: &Value, kind: &str) -> Option<Object> {
    let mut value = new.to_value().ok()?;
    value
        .as_object_mut()?
        .insert("status".to_owned(), old.get("status")?.clone());
    Object::from_value(kind, value).ok()?
}

fn answer(outcome: &Preview, before: &gantry_plan::Plan, roots: &BTreeSet<String>) -> Value {
    let ours = |uid: &str| belongs(outcome, uid, roots);
    let mut placements = Vec::new();
    let mut moves = Vec::new();
    for (uid, placement) in outcome.plan.placements.iter().filter(|(uid, _)| ours(uid)) {
        placements.extend(rows(
            &placement.name,
            &placement.namespace,
            placement,
            &outcome.plan,
        ));
        if before
            .placements
            .get(uid)
            .is_some_and(|old| old.containers != placement.containers)
        {
            moves.push(Value::from(placement.name.clone()));
        }
    }
    let unplaced = outcome.unplaced.iter().filter(|(uid, _)| ours(uid)).map(|(_, why)| {
        json!({"pod": why.name, "namespace": why.namespace, "reason": why.reason, "nodes": why.nodes})
    });
    let problems = outcome
        .problems
        .iter()
        .map(|(key, problem)| json!({"function": key.to_string(), "reason": problem}));
    let pods = outcome
        .objects
        .pods
        .values()
        .filter(|p| ours(meta::uid(&p.metadata)));
    let drains = pods
        .filter(|p| crate::core::pods::drain(p).is_some())
        .map(|p| meta::name(&p.metadata).to_owned());
    json!({
        "placements": placements,
        "unplaced": unplaced.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
        "changes": moves,
        "drains": drains.collect::<Vec<_>>(),
    })
}

/// Whether a pod comes, directly or through its owners, from one of the manifests.
fn belongs(outcome: &Preview, uid: &str, roots: &BTreeSet<String>) -> bool {
    let objects = &outcome.objects;
    let mut uid = uid.to_owned();
    // References are what users wrote: they may go round in a circle.
    let mut seen = BTreeSet::new();
    while seen.insert(uid.clone()) {
        if roots.contains(&uid) {
            return true;
        }
        let metas = objects.pods.values().map(|x| &x.metadata);
        let metas = metas.chain(objects.functions.values().map(|x| &x.metadata));
        let mut metas = metas.chain(objects.replica_sets.values().map(|x| &x.metadata));
        let found = metas.find(|m| meta::uid(m) == uid).and_then(meta::controller_uid);
        match found {
            Some(owner) => uid = owner.to_owned(),
            None => return false,
        }
    }
    false
}

fn rows(
    pod: &str,
    namespace: &str,
    placement: &gantry_plan::Placement,
    plan: &gantry_plan::Plan,
) -> Vec<Value> {
    let shared = plan.shared_pools.get(&placement.node);
    let row = |c: &gantry_plan::ContainerPlacement| {
        let mut row = Map::new();
        row.insert("pod".to_owned(), pod.into());
        row.insert("namespace".to_owned(), namespace.into());
        row.insert("container".to_owned(), c.name.clone().into());
        row.insert("node".to_owned(), placement.node.clone().into());
        row.insert("cpus".to_owned(), c.cpus.to_string().into());
        let shared = shared
            .filter(|_| c.cpus.is_empty())
            .map(ToString::to_string)
            .unwrap_or_default();
        row.insert("sharedCpus".to_owned(), shared.into());
        row.insert("numaNode".to_owned(), json!(placement.numa_nodes.first()));
        row.insert("numaNodes".to_owned(), json!(placement.numa_nodes));
        Value::Object(row)
    };
    placement.containers.iter().map(row).collect()
}

/// What a pod says of itself that is on no node yet.
fn unbound(pod: &Pod) -> String {
    let said = pods::find(pod, "PodScheduled").filter(|c| c.status == "False");
    let why = said
        .and_then(|c| c.message.as_deref())
        .map(|why| format!(": {why}"));
    format!("it is on no node yet{}", why.unwrap_or_default())
}

fn sentence(placement: &gantry_plan::Placement, plan: &gantry_plan::Plan) -> String {
    let parts = placement.containers.iter().map(|c| {
        let shared = plan
            .shared_pools
            .get(&placement.node)
            .map(ToString::to_string)
            .unwrap_or_default();
        if c.cpus.is_empty() {
            format!("{} shares CPUs {shared}", c.name)
        } else {
            format!("{} has CPUs {}", c.name, c.cpus)
        }
    });
    format!(
        "node {}: {}",
        placement.node,
        parts.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::core::Settings;

    fn world() -> World {
        World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        })
    }

    #[test]
    fn a_question_waits_for_the_templates_of_its_own_namespaces_only() {
        let mut world = world();
        let container = json!({"name": "c", "image": "i:1", "memory": "16Mi",
            "cpu": {"mode": "shared", "request": "10m"}});
        let package = json!({"apiVersion": "gantry.dev/v1", "kind": "NfPackage", "metadata": {"name": "p-1.0.0"}, "spec": {
            "package": "p", "version": "1.0.0", "family": "support", "role": "P", "plane": "signalling",
            "containers": [container], "templates": {"main.cfg": "x"},
            "config": [{"template": "main.cfg", "path": "/etc/main.cfg"}]}});
        let function = |namespace: &str| {
            json!({"apiVersion": "gantry.dev/v1", "kind": "NetworkFunction",
                "metadata": {"name": "f", "namespace": namespace},
                "spec": {"package": "p", "version": "1.0.0", "replicas": 1}})
        };
        for manifest in [package, function("other")] {
            let known = object(&manifest, 0, &world.objects).unwrap();
            world.objects.put(known);
        }
        // Whoever renders is not there: to ask it is an error.
        let planner = Planner {
            world: Shared(Arc::new(Mutex::new(world))),
            renderer: Renderer::Process("/nonexistent/renderer".into()),
        };
        let pod = |namespace: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q", "namespace": namespace},
                "spec": {"containers": [{"name": "c", "image": "i"}]}})
        };
        let answer = planner.dry_run(&[pod("default")]).unwrap();
        assert_eq!(answer["unplaced"][0]["pod"], "q", "{answer}");
        for own in [pod("other"), function("default")] {
            let asked = planner.dry_run(&[own]);
            assert!(matches!(asked, Err(PlanningError::Render(_))), "{asked:?}");
        }
    }

    /// Whoever has a place in the plan is not on its node before it is bound, for want of an address for example.
    #[test]
    fn a_pod_is_on_a_node_only_when_it_is_bound_to_it() {
        let condition = |status: &str| json!([{"type": "PodScheduled", "status": status, "message": "no pod address is left"}]);
        let pod = |spec: Value, status: &str| -> Pod {
            let value = json!({"spec": spec, "status": {"conditions": condition(status)}});
            serde_json::from_value(value).unwrap()
        };
        let waiting = pod(json!({"containers": []}), "False");
        assert!(schedule::waits(&waiting));
        assert_eq!(unbound(&waiting), "it is on no node yet: no pod address is left");
        assert_eq!(unbound(&Pod::default()), "it is on no node yet");
        assert!(!schedule::waits(&pod(
            json!({"containers": [], "nodeName": "n"}),
            "True"
        )));
    }

    #[test]
    fn owners_in_a_circle_come_to_an_end() {
        let mut world = world();
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        let value = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u", "ownerReferences": [owner]}});
        let pod: Pod = serde_json::from_value(value).unwrap();
        world.objects.put(Object::Pod(Arc::new(pod)));
        assert!(!belongs(&preview(&world, 0), "u", &BTreeSet::new()));
    }
}
