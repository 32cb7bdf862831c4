//! What is in the queue of virtual time.

use gantry_nodeagent::core::Event;
use gantry_nodeagent_api::{NodeConfig, NodeStatus, Refused};

/// Something that happens.
pub(crate) enum Happening {
    /// The orchestrator's clock.
    Tick,
    /// The orchestrator thinks.
    Think { life: u64 },
    /// What it thought reaches the store.
    Commit { life: u64 },
    /// A configuration reaches an agent.
    ToAgent {
        node: usize,
        stream: u64,
        config: Box<NodeConfig>,
    },
    /// A message reaches the orchestrator.
    ToOrchestrator { node: usize, stream: u64, message: Up },
    /// The agent's shell answers.
    Answer {
        node: usize,
        life: u64,
        event: Box<Event>,
    },
    /// Work on a pod is done.
    Work { node: usize, life: u64, id: u64 },
    /// Something is read at this moment.
    Read {
        node: usize,
        life: u64,
        id: u64,
        uid: String,
        container: Option<String>,
    },
    /// A ledger reaches the disk.
    Persist {
        node: usize,
        life: u64,
        id: u64,
        ledger: Box<gantry_nodeagent::core::Ledger>,
    },
    /// The network is made so.
    Network {
        node: usize,
        life: u64,
        id: u64,
        wanted: Box<gantry_nodeagent::core::NetworkWanted>,
    },
    /// The agent's timer.
    Wake { node: usize, life: u64 },
    /// An agent starts.
    AgentStarts { node: usize },
    /// The orchestrator starts.
    OrchestratorStarts,
    /// An agent dials in.
    Dial { node: usize },
    /// An operator does something.
    User,
    /// Bytes in the store are damaged, or mended.
    Damage,
    /// A fault.
    Fault,
    /// Clients call.
    Calls,
    /// Faults stop.
    Heal,
}

/// What an agent sends.
#[derive(Clone)]
pub(crate) enum Up {
    Status(Box<NodeStatus>),
    Refused(Refused),
}

/// Something in the queue; what was put in first of two at the same time happens first.
pub(super) struct Entry {
    pub at_ms: u64,
    pub number: u64,
    pub what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.number).cmp(&(other.at_ms, other.number))
    }
}
