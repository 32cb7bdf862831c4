//! Everything a decision depends on, and the working copy that controllers change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_api::{Network, NetworkFunction, NetworkService, NfPackage, NodeTopology, ObjectMeta, Operation};
use gantry_nodeagent_api::NodeConfig;
use gantry_plan::Plan;
use ipnet::Ipv4Net;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::action::{Action, EventNote};
use super::agents::Agents;
use super::at::{At, Probe};
use super::crowd::Crowds;
use super::limits::Limits;
use super::nf::{Rendered, Rendering};
use super::quarantine::{Quarantine, Unreadable};

/// Namespace (empty for cluster-wide kinds) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty for cluster-wide kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of an object.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Objects of one kind. A clone is cheap: objects are shared until one is changed.
pub type Table<T> = BTreeMap<Key, Arc<T>>;

/// What every kind has.
pub trait Kinded: Clone + PartialEq {
    /// The kind's name.
    const KIND: &'static str;
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// The object with another's status, to see whether only that differs.
    fn with_status_of(&self, other: &Self) -> Self;
    /// The table of this kind.
    fn table(objects: &Objects) -> &Table<Self>;
    /// The table of this kind, to change.
    fn table_mut(objects: &mut Objects) -> &mut Table<Self>;
    /// As any object.
    fn into_object(self: Arc<Self>) -> Object;
}

macro_rules! kinds {
    ($($type:ident $field:ident $group:literal $plural:literal $($status:ident)?;)*) => {
        /// The objects of all kinds that the core looks at.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Objects {
            $(#[doc = concat!("All of kind ", stringify!($type), ".")]
            pub $field: Table<$type>,)*
        }

        /// One object of any of these kinds.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $(#[doc = concat!("A ", stringify!($type), ".")]
            $type(Arc<$type>),)*
        }

        /// Kind, API group (empty for the core group) and plural of each kind that the core looks at.
        pub const KINDS: &[(&str, &str, &str)] = &[$((stringify!($type), $group, $plural),)*];

        impl Object {
            /// The kind's name.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$type(_) => stringify!($type),)* }
            }

            /// Its metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Self::$type(object) => &object.metadata,)* }
            }

            /// The same with other metadata.
            pub fn set_meta(&mut self, meta: ObjectMeta) {
                match self { $(Self::$type(object) => Arc::make_mut(object).metadata = meta,)* }
            }

            /// As JSON.
            pub fn to_value(&self) -> serde_json::Result<serde_json::Value> {
                match self { $(Self::$type(object) => serde_json::to_value(&**object),)* }
            }

            /// From JSON; `None` for a kind that the core does not look at.
            pub fn from_value(kind: &str, value: serde_json::Value) -> serde_json::Result<Option<Self>> {
                match kind {
                    $(stringify!($type) => serde_json::from_value(value).map(|o| Some(Self::$type(Arc::new(o)))),)*
                    _ => Ok(None),
                }
            }
        }

        impl Objects {
            /// Adds or replaces an object.
            pub fn put(&mut self, object: Object) {
                match object { $(Object::$type(o) => { self.$field.insert(Key::of(&o.metadata), o); })* }
            }

            /// Takes an object out.
            pub fn remove(&mut self, kind: &str, key: &Key) {
                match kind { $(stringify!($type) => { self.$field.remove(key); })* _ => {} }
            }

            /// The object of that kind and key.
            pub fn get(&self, kind: &str, key: &Key) -> Option<Object> {
                match kind { $(stringify!($type) => self.$field.get(key).cloned().map(Object::$type),)* _ => None }
            }

            /// What has to be written to get from `self` to `after`.
            pub fn diff(&self, after: &Self) -> Vec<Action> {
                let mut out = Vec::new();
                $(diff_table(&self.$field, &after.$field, &mut out);)*
                out
            }
        }

        $(impl Kinded for $type {
            const KIND: &'static str = stringify!($type);
            fn meta(&self) -> &ObjectMeta { &self.metadata }
            fn meta_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
            fn with_status_of(&self, _other: &Self) -> Self {
                Self { $($status: _other.$status.clone(),)? ..self.clone() }
            }
            fn table(objects: &Objects) -> &Table<Self> { &objects.$field }
            fn table_mut(objects: &mut Objects) -> &mut Table<Self> { &mut objects.$field }
            fn into_object(self: Arc<Self>) -> Object { Object::$type(self) }
        })*
    };
}

kinds! {
    Namespace namespaces "" "namespaces" status;
    Network networks "gantry.dev" "networks" status;
    Node nodes "" "nodes" status;
    NodeTopology topologies "gantry.dev" "nodetopologies" status;
    NfPackage packages "gantry.dev" "nfpackages" status;
    NetworkService network_services "gantry.dev" "networkservices" status;
    NetworkFunction functions "gantry.dev" "networkfunctions" status;
    Operation operations "gantry.dev" "operations" status;
    Deployment deployments "apps" "deployments" status;
    ReplicaSet replica_sets "apps" "replicasets" status;
    Service services "" "services" status;
    ConfigMap config_maps "" "configmaps";
    Secret secrets "" "secrets";
    EndpointSlice endpoint_slices "discovery.k8s.io" "endpointslices";
    PersistentVolumeClaim claims "" "persistentvolumeclaims" status;
    Pod pods "" "pods" status;
}

impl Objects {
    /// The pods of a namespace.
    pub fn pods_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        let from = self.pods.range(Key::new(namespace, "")..);
        from.take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, pod)| pod)
    }
}

fn diff_table<T: Kinded>(before: &Table<T>, after: &Table<T>, out: &mut Vec<Action>) {
    for (key, new) in after {
        match before.get(key) {
            None => out.push(Action::Create(new.clone().into_object())),
            Some(old) if Arc::ptr_eq(old, new) || old == new => {}
            Some(old) if old.with_status_of(new) == **new => {
                out.push(Action::UpdateStatus(new.clone().into_object()))
            }
            Some(_) => out.push(Action::Update(new.clone().into_object())),
        }
    }
    for (key, old) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
        let meta = old.meta();
        let resource_version = meta.resource_version.clone().unwrap_or_default();
        out.push(Action::Delete {
            kind: T::KIND,
            key: key.clone(),
            resource_version,
        });
    }
}

/// What the operator chose when the orchestrator was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of pods on all nodes; each node gets a /24 of it (all of it if it is smaller).
    pub pod_cidr: Ipv4Net,
    /// Addresses of services.
    pub service_cidr: Ipv4Net,
    /// DNS domain.
    pub cluster_domain: String,
    /// Seed of the planner.
    pub seed: u64,
    /// The cluster's id, in every configuration of a node.
    pub cluster: String,
}

/// Everything a decision depends on.
#[derive(Clone, Debug)]
pub struct World {
    /// The objects in the store.
    pub objects: Objects,
    /// The plan in force.
    pub plan: Plan,
    /// The configuration last persisted for each node.
    pub configs: BTreeMap<String, Arc<NodeConfig>>,
    /// What the agents say.
    pub agents: Agents,
    /// What the operator chose.
    pub settings: Settings,
    /// How much one object may make the core do.
    pub limits: Limits,
    /// Objects in the store that cannot be read.
    pub quarantine: Quarantine,
    /// What templates came to, as far as it is known.
    pub rendered: Rendered,
    /// Looks at each object whose handling begins.
    pub probe: Probe,
}

impl World {
    /// A world in which nothing exists yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            objects: Objects::default(),
            plan: Plan::default(),
            configs: BTreeMap::new(),
            agents: Agents::default(),
            settings,
            limits: Limits::default(),
            quarantine: Quarantine::new(),
            rendered: Rendered::default(),
            probe: |_, _| (),
        }
    }

    /// An object is left as it is, with all that it owns, until it is written anew or deleted.
    pub fn set_apart(&mut self, kind: &'static str, key: &Key, why: String) {
        if let Some(object) = self.objects.get(kind, key) {
            let unreadable = Unreadable::failed(&object.to_value().unwrap_or_default(), why);
            self.objects.remove(kind, key);
            self.quarantine.insert((kind, key.clone()), unreadable);
        }
    }

    /// Takes over what templates came to; what functions that are gone had is forgotten.
    pub fn answered(&mut self, rendering: Rendering, answer: gantry_catalog::Answer) {
        self.rendered.put(rendering, answer);
        self.rendered.forget_all_but(&self.objects);
    }
}

/// What is wrong with an object, as a condition of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Type of the condition; it is `True`.
    pub condition: &'static str,
    /// One word in CamelCase.
    pub reason: &'static str,
    /// A sentence: what, and what to do.
    pub message: String,
}

impl Flaw {
    /// A flaw from its parts.
    pub fn new(condition: &'static str, reason: &'static str, message: String) -> Self {
        Self {
            condition,
            reason,
            message,
        }
    }
}

/// The working copy of one pass: controllers change it one after the other, so that each sees what those before it decided.
pub struct Work<'a> {
    /// The objects as they are.
    pub before: &'a Objects,
    /// The objects as they shall be.
    pub objects: Objects,
    /// The plan as it shall be.
    pub plan: Plan,
    /// The configurations as they shall be.
    pub configs: BTreeMap<String, Arc<NodeConfig>>,
    /// Nodes that were deleted while their agents were away.
    pub forgotten: BTreeSet<String>,
    /// What is wrong with the plan that the planner made; empty if it is in force.
    pub refused: Vec<gantry_plan::Violation>,
    /// Why pods have no place, or are held at their old size, by uid.
    pub unplaced: BTreeMap<String, gantry_plan::Explanation>,
    /// What stands in the way of a NetworkFunction.
    pub problems: BTreeMap<Key, String>,
    /// Conditions of NetworkFunctions that do not get what they ask.
    pub flaws: BTreeMap<Key, Flaw>,
    /// What people should know about a NetworkFunction that gets on all the same.
    pub hints: BTreeMap<Key, String>,
    /// The configurations as last persisted.
    pub sent: &'a BTreeMap<String, Arc<NodeConfig>>,
    /// What the agents say.
    pub agents: &'a Agents,
    /// What the operator chose.
    pub settings: &'a Settings,
    /// How much one object may make this pass do.
    pub limits: &'a Limits,
    /// Objects that are there and cannot be read.
    pub quarantine: &'a Quarantine,
    /// What templates came to.
    pub rendered: &'a Rendered,
    /// Templates that are new.
    pub renderings: Vec<Rendering>,
    /// Whose handling this is.
    pub at: At,
    /// Pods by owner.
    pub crowds: Crowds,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// What people should be told.
    pub events: Vec<EventNote>,
}

impl<'a> Work<'a> {
    /// A working copy of the world as it is.
    pub fn new(world: &'a World, now_ms: u64) -> Self {
        Self {
            before: &world.objects,
            objects: world.objects.clone(),
            plan: world.plan.clone(),
            configs: world.configs.clone(),
            forgotten: BTreeSet::new(),
            refused: Vec::new(),
            unplaced: BTreeMap::new(),
            problems: BTreeMap::new(),
            flaws: BTreeMap::new(),
            hints: BTreeMap::new(),
            sent: &world.configs,
            agents: &world.agents,
            settings: &world.settings,
            limits: &world.limits,
            quarantine: &world.quarantine,
            rendered: &world.rendered,
            renderings: Vec::new(),
            at: At::new(world.probe),
            crowds: Crowds::of(&world.objects),
            now_ms,
            events: Vec::new(),
        }
    }

    /// The keys of a kind, to walk over while objects change. What a step of the walk does is that object's handling.
    pub fn keys<T: Kinded>(&self) -> impl Iterator<Item = Key> + use<T> {
        self.at
            .walk(T::KIND, T::table(&self.objects).keys().cloned().collect())
    }

    /// An object to read.
    pub fn get<T: Kinded>(&self, key: &Key) -> Option<Arc<T>> {
        T::table(&self.objects).get(key).cloned()
    }

    /// An object to change.
    pub fn edit<T: Kinded>(&mut self, key: &Key) -> Option<&mut T> {
        T::table_mut(&mut self.objects).get_mut(key).map(Arc::make_mut)
    }

    /// Adds an object, with a uid and the time of its birth; not in the place of one that cannot be read.
    pub fn create<T: Kinded>(&mut self, mut object: T) -> Key {
        super::meta::be_born(T::KIND, object.meta_mut(), self.now_ms);
        let key = Key::of(object.meta());
        if super::quarantine::has(self, T::KIND, &key) {
            return key;
        }
        if T::KIND == "Pod" {
            let group = super::group::of(&self.objects, &key.namespace);
            self.crowds.join(object.meta(), &group);
        }
        T::table_mut(&mut self.objects).insert(key.clone(), Arc::new(object));
        key
    }

    /// Takes an object out at once.
    pub fn remove<T: Kinded>(&mut self, key: &Key) {
        let object = T::table_mut(&mut self.objects).remove(key);
        if let Some(object) = object.filter(|_| T::KIND == "Pod") {
            self.crowds.part(object.meta());
        }
    }

    /// The pods that an object controls, those being stopped included.
    pub fn pods_of(&self, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
        let keys = self
            .crowds
            .of_owner((super::meta::namespace(owner), super::meta::uid(owner)));
        keys.filter_map(|key| self.objects.pods.get(key))
            .cloned()
            .collect()
    }

    /// Asks an object to go: at once, or marked with a deletion time when it holds something that is let go first.
    pub fn retire<T: Kinded>(&mut self, key: &Key) {
        let now_ms = self.now_ms;
        let Some(object) = T::table(&self.objects).get(key) else {
            return;
        };
        let is_held = object.meta().finalizers.as_ref().is_some_and(|f| !f.is_empty());
        // A pod that no node runs has nobody to wait for.
        let runs = match object.clone().into_object() {
            Object::Pod(pod) => super::pods::node(&pod).is_some(),
            _ => false,
        };
        let lingers = is_held || runs;
        if !lingers {
            self.remove::<T>(key);
        } else if object.meta().deletion_timestamp.is_none()
            && let Some(object) = self.edit::<T>(key)
        {
            object.meta_mut().deletion_timestamp = Some(super::meta::time(now_ms));
        }
    }

    /// Tells people about an object.
    pub fn tell<T: Kinded>(&mut self, object: &T, warning: bool, reason: &str, message: &str) {
        let meta = object.meta();
        self.events.push(EventNote {
            kind: T::KIND,
            key: Key::of(meta),
            uid: meta.uid.clone().unwrap_or_default(),
            warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
    }
}
