//! Faults: agents, hosts, the orchestrator, streams and containers fail.

use gantry_nodeagent::core::Event;
use gantry_orchestrator::core::{Agents, Rendered};

use super::{Happening, Sim};
use crate::damage;

impl Sim {
    pub(super) fn crash_orchestrator(&mut self) {
        self.report.faults += 1;
        self.note(|| "the orchestrator dies".to_owned());
        self.orchestrator.alive = false;
        self.orchestrator.life += 1;
        self.orchestrator.pass = None;
        self.orchestrator.agents = Agents::default();
        self.orchestrator.rendered = Rendered::default();
        for node in 0..self.nodes.len() {
            if self.nodes[node].stream.take().is_some() {
                self.after(100, 3000, Happening::Dial { node });
            }
        }
        self.after(100, 15_000, Happening::OrchestratorStarts);
    }

    pub(super) fn fault(&mut self) {
        self.report.faults += 1;
        let node = usize::try_from(self.rng.between(0, self.nodes.len() as u64 - 1)).unwrap_or(0);
        match self.rng.between(0, 9) {
            0..3 => self.crash_agent(node),
            3 => {
                self.crash_agent(node);
                let pods: Vec<String> = self.nodes[node].host.pods.keys().cloned().collect();
                pods.iter().for_each(|pod| self.traffic.hit(pod, self.now_ms));
                self.nodes[node].host.reboot();
                self.hosts_changed = true;
            }
            4 | 5 => {
                if self.orchestrator.alive {
                    self.crash_orchestrator();
                }
            }
            6 | 7 => self.hang_up(node),
            _ => self.kill_container(node),
        }
    }

    /// Bytes in the store are mended, others damaged; not while a pass is on its way that was thought out over what could be read then.
    pub(super) fn damage(&mut self) {
        if self.healed {
            return;
        }
        if self.orchestrator.pass.is_some() {
            return self.after(1, 20, Happening::Damage);
        }
        self.store.mend();
        if self.rng.percent(60) {
            damage::strike(&mut self.store, &mut self.rng);
        }
        let damaged: Vec<String> = self
            .store
            .damaged
            .keys()
            .map(|(k, key)| format!("{k} {key}"))
            .collect();
        self.note(|| format!("cannot be read: {}", damaged.join(", ")));
        self.wake_orchestrator();
        self.after(1000, 12_000, Happening::Damage);
    }

    /// The agent dies; what it had asked for is done or not.
    pub(super) fn crash_agent(&mut self, node: usize) {
        if self.nodes[node].agent.take().is_none() {
            return;
        }
        self.note(|| format!("node-{node} agent dies"));
        self.nodes[node].life += 1;
        for (_, uid, op) in std::mem::take(&mut self.nodes[node].under_way) {
            if self.rng.percent(50) {
                self.nodes[node].host.apply(&uid, &op, self.now_ms);
                self.hosts_changed = true;
            }
        }
        if self.nodes[node].stream.take().is_some() {
            let name = self.nodes[node].name.clone();
            self.orchestrator.agents.disconnected(&name, self.now_ms);
            self.wake_orchestrator();
        }
        self.after(100, 10_000, Happening::AgentStarts { node });
    }

    pub(super) fn kill_container(&mut self, node: usize) {
        let running: Vec<(String, String)> = self.nodes[node]
            .host
            .cpu_use()
            .map(|(uid, name, ..)| (uid.to_owned(), name.to_owned()))
            .collect();
        let Some((uid, container)) = self.rng.pick(&running).cloned() else {
            return;
        };
        self.traffic.hit(&uid, self.now_ms);
        let Some(run) = self.nodes[node].host.end(&uid, &container, 137, self.now_ms) else {
            return;
        };
        self.hosts_changed = true;
        let life = self.nodes[node].life;
        self.after(
            1,
            50,
            Happening::Answer {
                node,
                life,
                event: Box::new(Event::Container { uid, container, run }),
            },
        );
    }

    /// A stream breaks; the agent dials again.
    pub(super) fn hang_up(&mut self, node: usize) {
        if self.nodes[node].stream.take().is_some() {
            let name = self.nodes[node].name.clone();
            self.orchestrator.agents.disconnected(&name, self.now_ms);
            self.wake_orchestrator();
        }
        self.after(100, 3000, Happening::Dial { node });
    }
}
