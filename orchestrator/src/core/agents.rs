//! What the agents say, with the little memory that decisions need. Gone with the process; rebuilt from the next reports.

use std::collections::BTreeMap;

use gantry_nodeagent_api::{Generation, Hello, NodeConfig, NodeStatus, PodDesired, PodPhase, PodStatus};
use gantry_topology::CpuSet;

/// A node's name.
pub type NodeName = String;

/// All agents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agents {
    nodes: BTreeMap<NodeName, Agent>,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agent {
    /// What it said last when it connected.
    pub hello: Option<Hello>,
    /// Its last status since this orchestrator started.
    pub status: Option<NodeStatus>,
    /// A stream is open.
    pub connected: bool,
    /// When the stream was opened or lost, or has been waited for, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When the last status came.
    pub received_ms: u64,
    /// Since when each pod that tells its sessions has reported none, without a break.
    pub idle_since_ms: BTreeMap<String, u64>,
    /// What was sent last on this stream, and when.
    pub sent: Option<(Generation, u64)>,
    /// The last configuration that it did not take.
    pub refused: Option<Generation>,
    /// Why it did not.
    pub refusal: String,
    /// CPUs by pod in any configuration that may be in force without its status saying so: it may have taken them.
    told: BTreeMap<String, CpuSet>,
    /// The newest of these configurations, and its CPUs.
    told_generation: Generation,
    newest: BTreeMap<String, CpuSet>,
    /// Accepted and applied as last reported on this stream.
    floor: (Generation, Generation),
}

impl Agent {
    /// It has reported on its open stream. Until then nobody knows what has become of its containers since.
    pub fn has_reported(&self) -> bool {
        self.connected && self.status.is_some() && self.received_ms >= self.since_ms
    }
}

impl Agents {
    /// A node is known from before this orchestrator started; nobody has spoken for it since.
    pub fn expect(&mut self, node: &str, now_ms: u64) {
        let agent = self.nodes.entry(node.to_owned()).or_default();
        agent.since_ms = now_ms;
    }

    /// The agent of a node.
    pub fn get(&self, node: &str) -> Option<&Agent> {
        self.nodes.get(node)
    }

    /// All agents by node name.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, &Agent)> {
        self.nodes.iter()
    }

    /// An agent opened a stream.
    pub fn connected(&mut self, hello: Hello, now_ms: u64) {
        let agent = self.nodes.entry(hello.node.clone()).or_default();
        // A rebooted host has nothing left of what was reported before.
        if agent
            .hello
            .as_ref()
            .is_some_and(|old| old.boot_id != hello.boot_id)
        {
            agent.status = None;
        }
        // Nobody has looked while there was no stream.
        agent.idle_since_ms.clear();
        agent.hello = Some(hello);
        agent.connected = true;
        agent.since_ms = now_ms;
        agent.sent = None;
        agent.floor = Default::default();
    }

    /// An agent's stream is gone.
    pub fn disconnected(&mut self, node: &str, now_ms: u64) {
        if let Some(agent) = self.nodes.get_mut(node).filter(|a| a.connected) {
            agent.connected = false;
            agent.since_ms = now_ms;
            agent.sent = None;
        }
    }

    /// A node was deleted.
    pub fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// A configuration went out to an agent.
    pub fn sent(&mut self, node: &str, config: &NodeConfig, now_ms: u64) {
        let Some(agent) = self.nodes.get_mut(node) else {
            return;
        };
        agent.sent = Some((config.generation, now_ms));
        agent.told_generation = agent.told_generation.max(config.generation);
        agent.newest.clear();
        for (uid, pod) in config.pods.iter().filter(|(_, p)| p.desired == PodDesired::Run) {
            for cpus in pod.containers.iter().map(|c| &c.resources.cpus) {
                if !cpus.is_empty() {
                    for all in [&mut agent.told, &mut agent.newest] {
                        let told = all.entry(uid.clone()).or_default();
                        *told = told.union(cpus);
                    }
                }
            }
        }
    }

    /// An agent reported on its open stream. A report older than the last one is ignored.
    pub fn reported(&mut self, node: &str, status: NodeStatus, now_ms: u64) {
        let Some(agent) = self.nodes.get_mut(node).filter(|a| a.connected) else {
            return;
        };
        if status.accepted < agent.floor.0 || status.applied < agent.floor.1 {
            return;
        }
        agent.floor = (status.accepted, status.applied);
        if status.applied >= agent.told_generation {
            agent.told.clear();
        } else if status.accepted >= agent.told_generation {
            // From now on it takes only what the newest says, and the status tells what it has taken of that and before. Who has ended
            // takes nothing any more.
            let is_over = |uid: &String| {
                status
                    .pods
                    .get(uid)
                    .is_some_and(|pod| matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed))
            };
            let newest = agent.newest.iter().filter(|(uid, _)| !is_over(uid));
            agent.told = newest.map(|(uid, cpus)| (uid.clone(), cpus.clone())).collect();
        }
        agent
            .idle_since_ms
            .retain(|uid, _| status.pods.get(uid).is_some_and(|p| p.sessions == Some(0)));
        for (uid, _) in status.pods.iter().filter(|(_, p)| p.sessions == Some(0)) {
            agent.idle_since_ms.entry(uid.clone()).or_insert(now_ms);
        }
        agent.received_ms = now_ms;
        agent.status = Some(status);
    }

    /// An agent did not take a configuration.
    pub fn refused(&mut self, node: &str, generation: Generation, reason: &str) {
        if let Some(agent) = self.nodes.get_mut(node) {
            agent.refused = Some(generation);
            agent.refusal = reason.to_owned();
        }
    }

    /// What the node last said about a pod.
    pub fn pod(&self, node: &str, uid: &str) -> Option<&PodStatus> {
        self.get(node)?.status.as_ref()?.pods.get(uid)
    }
}

impl Agent {
    /// CPUs by pod that the agent was told to take and may have taken since its last status.
    pub fn told(&self) -> impl Iterator<Item = (&String, &CpuSet)> {
        self.told.iter()
    }

    /// The newest configuration that the agent is known to have accepted.
    pub fn accepted(&self) -> Generation {
        let hello = self.hello.as_ref().map(|h| h.generation).unwrap_or_default();
        let status = self.status.as_ref().map(|s| s.accepted).unwrap_or_default();
        hello.max(status)
    }

    /// The newest configuration that the agent has reported its pods by; none known before the first report.
    pub fn reported_by(&self) -> Generation {
        self.status.as_ref().map(|s| s.accepted).unwrap_or_default()
    }

    /// Why it does not take the newest configuration that it was sent, if it does not.
    pub fn refusal(&self) -> Option<&str> {
        let (newest, _) = self.sent?;
        (self.refused == Some(newest) && self.accepted() < newest).then_some(&self.refusal)
    }

    /// The newest configuration whose services are in force on the node; none known before the first report. An agent of an
    /// earlier version tells only when all of it is.
    pub fn served(&self) -> Generation {
        let status = self.status.as_ref();
        status.map(|s| s.served.max(s.applied)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use gantry_nodeagent_api::{ContainerConfig, PodConfig};

    use super::*;

    fn config(generation: u64, cpus: &[(&str, &str)]) -> NodeConfig {
        let pod = |cpus: &str| {
            let mut container = ContainerConfig::default();
            container.resources.cpus = cpus.parse().unwrap();
            PodConfig {
                containers: vec![container],
                ..PodConfig::default()
            }
        };
        NodeConfig {
            generation: Generation(generation),
            pods: cpus
                .iter()
                .map(|(uid, cpus)| ((*uid).to_owned(), pod(cpus)))
                .collect(),
            ..NodeConfig::default()
        }
    }

    fn told(agents: &Agents) -> Vec<String> {
        let agent = agents.get("n").unwrap();
        agent.told().map(|(uid, cpus)| format!("{uid} {cpus}")).collect()
    }

    #[test]
    fn what_was_told_counts_until_the_newest_is_accepted() {
        let mut agents = Agents::default();
        agents.nodes.entry("n".to_owned()).or_default().connected = true;
        let reported = |accepted, applied| NodeStatus {
            accepted: Generation(accepted),
            applied: Generation(applied),
            ..NodeStatus::default()
        };
        agents.sent("n", &config(5, &[("a", "2-3")]), 0);
        // Taken away again, before the agent has said anything: it may have them all the same.
        agents.sent("n", &config(6, &[("b", "3")]), 1);
        assert_eq!(told(&agents), ["a 2-3", "b 3"]);
        agents.reported("n", reported(5, 4), 2);
        assert_eq!(told(&agents), ["a 2-3", "b 3"]);
        // It takes what the newest says, sooner or later, until it has accepted another one.
        agents.reported("n", reported(6, 5), 3);
        assert_eq!(told(&agents), ["b 3"]);
        agents.sent("n", &config(7, &[("c", "3")]), 4);
        assert_eq!(told(&agents), ["b 3", "c 3"]);
        agents.reported("n", reported(7, 7), 5);
        assert!(told(&agents).is_empty());
    }
}
