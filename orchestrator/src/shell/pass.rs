//! One pass: ask the core, write in one transaction, then send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use gantry_nodeagent_api::NodeConfig;
use serde::Serialize;

use super::cache::Cache;
use super::events::{Recorder, Told};
use super::said::Said;
use super::{Shared, keys};
use crate::core::{Action, Key, Object, Rendering, World, reconcile};
use crate::kinds::SERVICE_ADDRESS;
use crate::link::LinkHandle;
use crate::store::{Compare, Revision, Store, StoreError, Txn};

/// What a pass comes down to.
#[derive(Default)]
struct Batch {
    txn: Txn,
    /// Keys in the order of the operations.
    written: Vec<String>,
    plan: Option<gantry_plan::Plan>,
    configs: Vec<(String, Arc<NodeConfig>)>,
    forgotten: Vec<String>,
    told: BTreeMap<Key, Told>,
    renderings: Vec<Rendering>,
}

/// What came of a pass.
#[derive(Default)]
pub(super) struct Passed {
    /// It changed something, so that another one should follow.
    pub wrote: bool,
    /// Templates that are to be rendered.
    pub renderings: Vec<Rendering>,
}

/// Runs one pass.
pub(super) async fn run(
    store: &dyn Store,
    link: &LinkHandle,
    cache: &mut Cache,
    world: &Shared,
    recorder: &mut Recorder,
    said: &mut Said,
    now_ms: u64,
) -> Passed {
    let begun = Instant::now();
    let mut batch = {
        let mut world = world.lock();
        let actions = reconcile(&world, now_ms);
        if let [Action::Failed { at, why }] = &*actions {
            said.failed(at.as_ref(), why);
            // Nothing was changed, and the next pass is without it; what nobody is at fault for may be over with the next change.
            let wrote = at.is_some();
            if let Some((kind, key)) = at {
                world.set_apart(kind, key, why.clone());
            }
            return Passed {
                wrote,
                ..Passed::default()
            };
        }
        let refused = actions.iter().find_map(|a| match a {
            Action::RefusePlan(violations) => Some(violations.as_slice()),
            _ => None,
        });
        said.refused(refused.unwrap_or_default());
        Batch::of(actions, &world, cache, recorder, said, now_ms)
    };
    let (decided, writes) = (begun.elapsed(), batch.written.len());
    let wrote = writes > 0;
    let mut passed = Passed {
        wrote: false,
        renderings: std::mem::take(&mut batch.renderings),
    };
    if wrote {
        match store.txn(batch.txn).await {
            Ok(commit) => {
                let mut world = world.lock();
                cache.committed(&batch.written, &commit, &mut world);
                recorder.told(batch.told);
                if let Some(plan) = batch.plan {
                    tracing::info!(
                        plan = plan.id,
                        placements = plan.placements.len(),
                        "plan committed"
                    );
                    world.plan = plan;
                }
            }
            Err(StoreError::Conflict { key, .. }) => {
                // Somebody else was quicker; the watch brings what they wrote, and the next pass starts from that.
                tracing::debug!(key, "conflict, the pass is dropped");
                return passed;
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot write the store; trying again"
                );
                return passed;
            }
        }
    }
    let mut world = world.lock();
    for node in batch.forgotten {
        tracing::info!(node, "the node was deleted and is forgotten");
        world.agents.forget(&node);
        world.configs.remove(&node);
        link.forget(&node);
    }
    for (node, config) in batch.configs {
        tracing::debug!(node, generation = config.generation.0, "configuration sent");
        world.agents.sent(&node, &config, now_ms);
        link.send_config(&node, (*config).clone());
        world.configs.insert(node, config);
    }
    tracing::debug!(?decided, took = ?begun.elapsed(), writes, "pass");
    passed.wrote = wrote;
    passed
}

impl Batch {
    fn of(
        actions: Vec<Action>,
        world: &World,
        cache: &Cache,
        recorder: &mut Recorder,
        said: &mut Said,
        now_ms: u64,
    ) -> Self {
        let mut batch = Self::default();
        for action in actions {
            match action {
                Action::CommitPlan { plan, .. } => {
                    batch.put_own(keys::PLAN.to_owned(), &plan, cache);
                    batch.plan = Some(plan);
                }
                Action::Create(object) => {
                    batch.guard_address(&object, cache);
                    batch.put(&object, Compare::Absent, said);
                }
                Action::Update(object) | Action::UpdateStatus(object) => {
                    batch.guard_address(&object, cache);
                    let version = revision(object.meta().resource_version.as_deref());
                    batch.put(&object, Compare::At(version), said);
                }
                Action::Delete {
                    kind,
                    key,
                    resource_version,
                } => {
                    batch.delete(kind, &key, Compare::At(revision(Some(&resource_version))));
                }
                Action::SendConfig { node, config } => {
                    if world
                        .configs
                        .get(&node)
                        .is_none_or(|old| old.generation != config.generation)
                    {
                        batch.put_own(format!("{}{node}", keys::CONFIGS), &*config, cache);
                    }
                    batch.configs.push((node, config));
                }
                Action::ForgetNode(node) => {
                    batch.delete_own(format!("{}{node}", keys::CONFIGS), cache);
                    batch.forgotten.push(node);
                }
                // Said when that is new.
                Action::RefusePlan(_) | Action::Failed { .. } => {}
                Action::Render(rendering) => batch.renderings.push(*rendering),
                Action::EmitEvent(note) => {
                    let (key, value, told) = recorder.event(&note, now_ms);
                    if let Some(store_key) = keys::object("Event", &key)
                        && !batch.told.contains_key(&key)
                    {
                        batch.write(store_key, Compare::Any, crate::kinds::codec::encode(&value));
                        batch.told.insert(key, told);
                    }
                }
            }
        }
        batch
    }

    /// One that has no JSON form is left out, and only that: the next pass sees it as it was.
    fn put(&mut self, object: &Object, compare: Compare, said: &mut Said) {
        let Some(store_key) = keys::object(object.kind(), &Key::of(object.meta())) else {
            return;
        };
        match object.to_value() {
            Ok(mut value) => {
                typed(object.kind(), &mut value);
                self.write(store_key, compare, crate::kinds::codec::encode(&value));
            }
            Err(error) => said.unwritable(&store_key, &error),
        }
    }

    /// A Service that is written may have been given an address; the API gives them too, and must not have done so since.
    fn guard_address(&mut self, object: &Object, cache: &Cache) {
        let Object::Service(service) = object else {
            return;
        };
        if !self.written.iter().any(|key| key == SERVICE_ADDRESS) {
            let address = service.spec.as_ref().and_then(|s| s.cluster_ip.clone());
            let compare = cache
                .revision(SERVICE_ADDRESS)
                .map_or(Compare::Absent, Compare::At);
            let value = address.unwrap_or_default();
            self.write(SERVICE_ADDRESS.to_owned(), compare, value.into());
        }
    }

    fn delete(&mut self, kind: &str, key: &Key, compare: Compare) {
        if let Some(store_key) = keys::object(kind, key) {
            let txn = std::mem::take(&mut self.txn).when(&store_key, compare);
            self.txn = txn.delete(&store_key);
            self.written.push(store_key);
        }
    }

    fn delete_own(&mut self, key: String, cache: &Cache) {
        if let Some(revision) = cache.revision(&key) {
            let txn = std::mem::take(&mut self.txn).when(&key, Compare::At(revision));
            self.txn = txn.delete(&key);
            self.written.push(key);
        }
    }

    /// A key that only the shell writes: it must be as the shell left it.
    fn put_own(&mut self, key: String, value: &impl Serialize, cache: &Cache) {
        let compare = cache.revision(&key).map_or(Compare::Absent, Compare::At);
        let bytes = serde_json::to_vec(value).expect("plain data with string keys has a JSON form");
        self.write(key, compare, bytes.into());
    }

    fn write(&mut self, key: String, compare: Compare, value: bytes::Bytes) {
        self.txn = std::mem::take(&mut self.txn).when(&key, compare).put(&key, value);
        self.written.push(key);
    }
}

fn revision(resource_version: Option<&str>) -> Revision {
    Revision(resource_version.and_then(|v| v.parse().ok()).unwrap_or(0))
}

/// Objects that the core made have their type written out, as clients' have.
fn typed(kind: &str, value: &mut serde_json::Value) {
    if let (Some(row), Some(object)) = (crate::kinds::named(kind), value.as_object_mut()) {
        object.insert("apiVersion".to_owned(), row.api_version().into());
        object.insert("kind".to_owned(), kind.into());
        (row.default)(value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::apiserver::Objects;
    use crate::core::Settings;
    use crate::kinds::{codec, named};
    use crate::store::{Limits, LocalStore};

    #[tokio::test]
    async fn the_api_and_the_core_never_give_the_same_service_address() {
        let store = Arc::new(LocalStore::in_memory(Limits::default()).unwrap());
        let range = "10.86.0.0/29".parse().unwrap();
        let mut world = World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: range,
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        });
        let (mut cache, mut watch) = Cache::open(&*store, &mut world).await.unwrap();
        let world = Shared(Arc::new(Mutex::new(world)));
        let (link, _events) = LinkHandle::new("c");
        let (mut recorder, mut said) = (Recorder::default(), Said::default());
        while run(&*store, &link, &mut cache, &world, &mut recorder, &mut said, 0)
            .await
            .wrote
        {}
        // One Service for the core to give an address, which it knows of, and then one of the API, which it does not.
        let services = named("Service").unwrap();
        let bare =
            json!({"metadata": {"name": "bare", "namespace": "default"}, "spec": {"ports": [{"port": 1}]}});
        let key = services.key("default", "bare");
        store
            .put(&key, codec::encode(&bare), Compare::Absent)
            .await
            .unwrap();
        cache.apply(&watch.next().await.unwrap().events, &mut world.lock());
        let api = Objects::new(store.clone(), range);
        let input = json!({"metadata": {"name": "other"}, "spec": {"ports": [{"port": 1}]}});
        let other = api
            .create(services, "default", input, Default::default())
            .await
            .unwrap()
            .object;
        assert!(
            !run(&*store, &link, &mut cache, &world, &mut recorder, &mut said, 1)
                .await
                .wrote,
            "it must look again first"
        );
        let bare = api.get(services, "default", "bare").await.unwrap();
        assert!(bare["spec"]["clusterIP"].is_null());
        cache.apply(&watch.next().await.unwrap().events, &mut world.lock());
        assert!(
            run(&*store, &link, &mut cache, &world, &mut recorder, &mut said, 2)
                .await
                .wrote
        );
        let bare = api.get(services, "default", "bare").await.unwrap();
        let addresses = [&bare, &other].map(|s| s["spec"]["clusterIP"].as_str().unwrap());
        assert_eq!(HashSet::from(addresses).len(), 2);
    }
}
