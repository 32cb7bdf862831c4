//! One node: a host, and an agent on it (the real core) with its ledger on disk.

use gantry_nodeagent::core::{Event, Ledger, PodOp, State, step};
use gantry_nodeagent_api::Hello;
use gantry_topology::{CpuSet, Topology};

use crate::host::Host;

/// One node.
pub(crate) struct Node {
    /// Its name.
    pub name: String,
    /// Its CPUs.
    pub topology: Topology,
    /// What survives the agent.
    pub host: Host,
    /// What survives everything.
    pub disk: Ledger,
    /// The agent, while it lives.
    pub agent: Option<State>,
    /// Number of the agent's life: answers to an earlier one are lost.
    pub life: u64,
    /// The stream to the orchestrator.
    pub stream: Option<u64>,
    /// When the last message on it arrives.
    pub last_arrival_ms: u64,
    /// When the agent wants to be woken; already scheduled.
    pub wake_ms: u64,
    /// Work that the agent asked for and that is not done: lost or done when it crashes.
    pub under_way: Vec<(u64, String, PodOp)>,
}

impl Node {
    /// A node that was never on.
    pub fn new(name: String, topology: Topology) -> Self {
        Self {
            name,
            topology,
            host: Host::default(),
            disk: Ledger::default(),
            agent: None,
            life: 0,
            stream: None,
            last_arrival_ms: 0,
            wake_ms: u64::MAX,
            under_way: Vec::new(),
        }
    }

    /// What the agent says first.
    pub fn hello(&self) -> Hello {
        Hello {
            node: self.name.clone(),
            boot_id: format!("boot-{}", self.host.boots),
            agent_version: "sim".to_owned(),
            kernel_version: "sim".to_owned(),
            address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            topology: self.topology.clone(),
            reserved: CpuSet::from_iter([0]),
            reserved_memory_bytes: 256 << 20,
            storage: Default::default(),
            generation: self.agent.as_ref().map(State::accepted).unwrap_or_default(),
            cluster: String::new(),
        }
    }

    /// Starts an agent on what is there.
    pub fn start(&mut self, now_ms: u64) -> Vec<gantry_nodeagent::core::Action> {
        self.life += 1;
        self.under_way.clear();
        self.wake_ms = u64::MAX;
        let mut state = State::new(self.disk.clone());
        let actions = step(&mut state, now_ms, Event::Start(self.host.observe()));
        self.agent = Some(state);
        actions
    }

    /// Tells the agent something, if it lives.
    pub fn tell(&mut self, now_ms: u64, event: Event) -> Vec<gantry_nodeagent::core::Action> {
        self.agent
            .as_mut()
            .map(|state| step(state, now_ms, event))
            .unwrap_or_default()
    }
}
