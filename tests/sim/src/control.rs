//! The store, and the orchestrator (the real core) over it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_nodeagent_api::NodeConfig;
use gantry_orchestrator::core::{
    Action, Agents, Key, Limits, Object, Objects, Quarantine, Rendered, Settings, Unreadable, World,
    reconcile,
};
use gantry_plan::Plan;

/// So many pods of a flood wait at most: small, since every pass looks at them.
pub(crate) const FLOOD_PODS: usize = 4;

/// The store: what an acknowledged write left.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub objects: Objects,
    pub plan: Plan,
    pub configs: BTreeMap<String, Arc<NodeConfig>>,
    /// Objects whose bytes are damaged, as they were before.
    pub damaged: BTreeMap<(&'static str, Key), Object>,
    revision: u64,
}

impl Store {
    /// Writes an object without a look at its version, as a client that read it just now.
    pub fn put(&mut self, mut object: Object) {
        self.revision += 1;
        let mut meta = object.meta().clone();
        meta.resource_version = Some(self.revision.to_string());
        object.set_meta(meta);
        // What is written anew can be read.
        self.damaged.remove(&(object.kind(), Key::of(object.meta())));
        self.objects.put(object);
    }

    /// Nobody can read it any more.
    pub fn damage(&mut self, object: Object) {
        let key = Key::of(object.meta());
        self.objects.remove(object.kind(), &key);
        self.damaged.insert((object.kind(), key), object);
    }

    /// All that was damaged is as it was.
    pub fn mend(&mut self) {
        for (_, object) in std::mem::take(&mut self.damaged) {
            self.objects.put(object);
        }
    }

    /// What the orchestrator makes of what is damaged.
    pub fn quarantine(&self) -> Quarantine {
        let unreadable = |object: &Object| {
            let value = object.to_value().unwrap_or_default();
            Unreadable::of(&value, "damaged".to_owned())
        };
        let all = self.damaged.iter();
        all.map(|(key, object)| (key.clone(), unreadable(object)))
            .collect()
    }

    fn version(&self, kind: &str, key: &Key) -> Option<String> {
        self.objects
            .get(kind, key)
            .map(|o| o.meta().resource_version.clone().unwrap_or_default())
    }

    /// Whether an action would be taken now.
    fn accepts(&self, action: &Action) -> bool {
        match action {
            Action::CommitPlan { parent, .. } => self.plan.id == *parent,
            Action::Create(object) => {
                let key = Key::of(object.meta());
                let is_there = self.damaged.contains_key(&(object.kind(), key.clone()));
                !is_there && self.version(object.kind(), &key).is_none()
            }
            Action::Update(object) | Action::UpdateStatus(object) => {
                let wanted = object.meta().resource_version.clone().unwrap_or_default();
                self.version(object.kind(), &Key::of(object.meta())) == Some(wanted)
            }
            Action::Delete {
                kind,
                key,
                resource_version,
            } => self.version(kind, key).as_ref() == Some(resource_version),
            Action::SendConfig { .. }
            | Action::ForgetNode(_)
            | Action::RefusePlan(_)
            | Action::Render(_)
            | Action::Failed { .. }
            | Action::EmitEvent(_) => true,
        }
    }

    /// All of a pass or nothing; true if it was taken.
    pub fn commit(&mut self, actions: &[Action]) -> bool {
        if !actions.iter().all(|a| self.accepts(a)) {
            return false;
        }
        for action in actions {
            match action {
                Action::CommitPlan { plan, .. } => self.plan = plan.clone(),
                Action::Create(object) | Action::Update(object) | Action::UpdateStatus(object) => {
                    self.put(object.clone())
                }
                Action::Delete { kind, key, .. } => self.objects.remove(kind, key),
                Action::SendConfig { node, config } => {
                    self.configs.insert(node.clone(), config.clone());
                }
                Action::ForgetNode(node) => {
                    self.configs.remove(node);
                }
                Action::RefusePlan(_) | Action::Render(_) | Action::Failed { .. } | Action::EmitEvent(_) => {}
            }
        }
        true
    }
}

/// A pass that was thought out and is on its way to the store.
pub(crate) struct Pass {
    /// What was decided.
    pub actions: Vec<Action>,
    /// What the agents had said by then.
    pub agents: Agents,
    /// What could not be read by then.
    pub quarantine: Quarantine,
}

/// The orchestrator's process.
pub(crate) struct Orchestrator {
    /// It lives.
    pub alive: bool,
    /// Number of its life.
    pub life: u64,
    /// What it has in memory of the agents.
    pub agents: Agents,
    /// What templates came to.
    pub rendered: Rendered,
    /// A pass is on its way.
    pub pass: Option<Pass>,
    /// Something happened since the last pass.
    pub dirty: bool,
    /// How much one owner may ask for.
    pub limits: Limits,
    /// It takes what cannot be read for missing.
    pub forgets_unreadable: bool,
    settings: Settings,
}

impl Orchestrator {
    /// A process with nothing in memory.
    pub fn new(seed: u64) -> Self {
        let settings = Settings {
            pod_cidr: "10.85.0.0/16".parse().expect("a network"),
            service_cidr: "10.86.0.0/16".parse().expect("a network"),
            cluster_domain: "cluster.local".to_owned(),
            seed,
            cluster: "c".to_owned(),
        };
        Self {
            alive: true,
            life: 0,
            agents: Agents::default(),
            rendered: Rendered::default(),
            pass: None,
            dirty: false,
            limits: Limits {
                pods_a_pass: FLOOD_PODS / 2,
                waiting_of_owner: FLOOD_PODS,
                ..Limits::default()
            },
            forgets_unreadable: false,
            settings,
        }
    }

    /// Thinks a pass out; true if it has to be written or sent.
    pub fn think(&mut self, store: &Store, now_ms: u64) -> bool {
        self.dirty = false;
        let mut world = World::new(self.settings.clone());
        world.objects = store.objects.clone();
        world.plan = store.plan.clone();
        world.configs = store.configs.clone();
        world.agents = std::mem::take(&mut self.agents);
        world.limits = self.limits;
        world.rendered = std::mem::take(&mut self.rendered);
        let quarantine = store.quarantine();
        if !self.forgets_unreadable {
            world.quarantine.clone_from(&quarantine);
        }
        let actions = reconcile(&world, now_ms);
        // The answers are there for the next pass, as if each took as long as a write.
        for action in &actions {
            match action {
                Action::Render(rendering) => {
                    let answer = rendering.job().run(|_| ());
                    world.answered((**rendering).clone(), answer);
                }
                Action::Failed { at, why } => panic!("{at:?}: {why}"),
                _ => {}
            }
        }
        self.rendered = world.rendered;
        self.agents = world.agents;
        let any = !actions.is_empty();
        self.pass = any.then(|| Pass {
            actions,
            agents: self.agents.clone(),
            quarantine,
        });
        any
    }
}
