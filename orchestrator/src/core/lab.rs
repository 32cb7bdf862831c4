//! For tests: a world whose agents do as they are told, when they are asked to.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::{NetworkFunction, NetworkFunctionSpec, NfPackage, ObjectMeta};
use gantry_nodeagent_api::{
    ContainerConfig, ContainerResources, ContainerRole, ContainerStatus, Generation, Hello, NodeConfig,
    NodeStatus, PodConfig, PodDesired, PodPhase, PodStatus, Readiness, RunEnd,
};
use gantry_topology::{Cpu, CpuSet, NumaNode, Topology};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::world::{Key, Object, Settings, World};
use super::{Action, meta, reconcile};

/// A small world and its clock.
pub(super) struct Lab {
    pub world: World,
    pub now_ms: u64,
    /// What pods report when their agent obeys, by uid; none of either else.
    pub sessions: BTreeMap<String, u64>,
    pub restarts: BTreeMap<String, u32>,
    /// When every container was started.
    pub started_at_ms: u64,
    /// Templates are rendered when that is asked for.
    pub renders: bool,
    /// A panic of the core is not one of the test.
    pub tolerant: bool,
}

impl Lab {
    /// Nodes of four CPUs, all connected.
    pub fn new(nodes: &[&str]) -> Self {
        let world = World::new(Settings {
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            seed: 0,
            cluster: "c".to_owned(),
        });
        let mut lab = Self {
            world,
            now_ms: 1_000_000,
            sessions: BTreeMap::new(),
            restarts: BTreeMap::new(),
            started_at_ms: 1_000,
            renders: true,
            tolerant: false,
        };
        nodes.iter().for_each(|node| lab.connect(node));
        lab
    }

    /// A node comes.
    pub fn connect(&mut self, node: &str) {
        self.world.agents.connected(hello(node), self.now_ms);
        self.world
            .agents
            .reported(node, NodeStatus::default(), self.now_ms);
    }

    /// One pass; what was to be done.
    pub fn pass(&mut self) -> Vec<Action> {
        let actions = reconcile(&self.world, self.now_ms);
        for action in actions.clone() {
            match action {
                Action::CommitPlan { plan, .. } => self.world.plan = plan,
                Action::Create(object) | Action::Update(object) | Action::UpdateStatus(object) => {
                    self.world.objects.put(object);
                }
                Action::Delete { kind, key, .. } => self.world.objects.remove(kind, &key),
                Action::SendConfig { node, config } => {
                    self.world.agents.sent(&node, &config, self.now_ms);
                    self.world.configs.insert(node, config);
                }
                Action::ForgetNode(node) => {
                    self.world.agents.forget(&node);
                    self.world.configs.remove(&node);
                }
                Action::RefusePlan(violations) => panic!("{violations:?}"),
                Action::Render(rendering) if self.renders => {
                    let answer = rendering.job().run(|_| ());
                    self.world.answered(*rendering, answer);
                }
                Action::Failed { at, why } => {
                    assert!(self.tolerant, "{at:?}: {why}");
                    if let Some((kind, key)) = at {
                        self.world.set_apart(kind, &key, why);
                    }
                }
                Action::Render(_) | Action::EmitEvent(_) => {}
            }
        }
        actions
    }

    /// Passes until nothing is left to be done; what was told on the way.
    pub fn settle(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..50 {
            let actions = self.pass();
            if actions.is_empty() {
                return told;
            }
            told.extend(actions.into_iter().filter_map(|a| match a {
                Action::EmitEvent(note) => Some(format!("{} {}", note.key.name, note.reason)),
                _ => None,
            }));
        }
        panic!("it does not come to rest");
    }

    /// Every connected agent reports that it has done all that it was told.
    pub fn obey(&mut self) {
        for (node, config) in self.world.configs.clone() {
            let status = self.obeyed(&config);
            self.world.agents.reported(&node, status, self.now_ms);
        }
    }

    /// Time passes: the agents obey twice a second.
    pub fn run_for(&mut self, ms: u64) {
        for _ in 0..ms / 500 {
            self.now_ms += 500;
            self.obey();
            self.settle();
        }
    }

    fn obeyed(&self, config: &NodeConfig) -> NodeStatus {
        let running = config.pods.iter().filter(|(_, p)| p.desired == PodDesired::Run);
        NodeStatus {
            accepted: config.generation,
            applied: config.generation,
            pods: running
                .map(|(uid, pod)| (uid.clone(), self.status(uid, pod)))
                .collect(),
            ..NodeStatus::default()
        }
    }

    fn status(&self, uid: &str, pod: &PodConfig) -> PodStatus {
        let running = |c: &ContainerConfig| ContainerStatus {
            name: c.name.clone(),
            running: true,
            started: true,
            ready: true,
            readiness: Readiness::Passed,
            restarts: self.restarts.get(uid).copied().unwrap_or(0),
            started_at_ms: self.started_at_ms,
            resources: c.resources.clone(),
            ..ContainerStatus::default()
        };
        let containers = pod.containers.iter().map(|c| match c.role {
            ContainerRole::Init => ContainerStatus {
                running: false,
                ended: Some(RunEnd::default()),
                resources: ContainerResources::default(),
                ..running(c)
            },
            ContainerRole::Main | ContainerRole::Sidecar => running(c),
        });
        PodStatus {
            phase: PodPhase::Running,
            ready: true,
            cpus: pod
                .containers
                .iter()
                .fold(CpuSet::new(), |all, c| all.union(&c.resources.cpus)),
            memory_bytes: pod.containers.iter().map(|c| c.memory_request_bytes).sum(),
            address: pod.address,
            started_at_ms: self.started_at_ms,
            containers: containers.collect(),
            sessions: pod
                .sessions
                .as_ref()
                .map(|_| self.sessions.get(uid).copied().unwrap_or(0)),
            ..PodStatus::default()
        }
    }

    /// Publishes a package of one small container that counts its sessions.
    pub fn publish(&mut self, name: &str, version: &str, extra: Value) {
        let mut spec = json!({
            "package": name, "version": version, "family": "ims", "role": name, "plane": "signalling",
            "containers": [{"name": "main", "image": format!("{name}:{version}"),
                "cpu": {"mode": "shared", "request": "200m"}, "memory": "64Mi"}],
            "interfaces": [{"name": "sip", "protocol": "SIP", "transport": "tcp", "port": 5060, "service": true}],
            "drain": {"method": "sessions", "sessions": {"port": 9090, "metric": "sessions"}, "quietSeconds": 2},
        });
        if let (Some(spec), Value::Object(extra)) = (spec.as_object_mut(), extra) {
            spec.extend(extra);
        }
        let metadata = ObjectMeta {
            name: Some(format!("{name}-{version}")),
            ..Default::default()
        };
        let package = NfPackage::new(metadata, serde_json::from_value(spec).unwrap());
        self.world.objects.put(Object::NfPackage(Arc::new(package)));
    }

    /// A function named as its package.
    pub fn deploy(&mut self, name: &str, extra: Value) {
        let mut spec = json!({"package": name, "version": "1.0.0", "replicas": 1});
        if let (Some(spec), Value::Object(extra)) = (spec.as_object_mut(), extra) {
            spec.extend(extra);
        }
        let mut metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            ..Default::default()
        };
        meta::be_born("NetworkFunction", &mut metadata, self.now_ms);
        let function = NetworkFunction::new(metadata, serde_json::from_value(spec).unwrap());
        self.world
            .objects
            .put(Object::NetworkFunction(Arc::new(function)));
    }

    /// Somebody changes a function's spec.
    pub fn change(&mut self, name: &str, how: impl FnOnce(&mut NetworkFunctionSpec)) {
        let mut function = (*self.function(name)).clone();
        how(&mut function.spec);
        function.metadata.generation = function.metadata.generation.map(|g| g + 1);
        self.world
            .objects
            .put(Object::NetworkFunction(Arc::new(function)));
    }

    pub fn function(&self, name: &str) -> Arc<NetworkFunction> {
        self.world.objects.functions[&Key::new("default", name)].clone()
    }

    /// Uids of all pods of a function, by name.
    pub fn pods(&self, function: &str) -> BTreeMap<String, String> {
        let own = |p: &&Arc<Pod>| meta::label(&p.metadata, gantry_api::labels::NF) == Some(function);
        let pods = self.world.objects.pods.values().filter(own);
        pods.map(|p| {
            (
                meta::name(&p.metadata).to_owned(),
                meta::uid(&p.metadata).to_owned(),
            )
        })
        .collect()
    }
}

fn hello(node: &str) -> Hello {
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
    Hello {
        node: node.to_owned(),
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
        storage: Default::default(),
        generation: Generation(0),
        cluster: String::new(),
    }
}
