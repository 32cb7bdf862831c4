//! The agents' shells: what their cores ask is done on the fake hosts, in time.

use gantry_nodeagent::core::{Action as AgentAction, Event, PodOp};

use super::{Happening, Sim, Up};

impl Sim {
    pub(super) fn start_agent(&mut self, node: usize) {
        if self.nodes[node].agent.is_some() {
            return;
        }
        self.note(|| format!("node-{node} agent starts"));
        let now_ms = self.now_ms;
        let actions = self.nodes[node].start(now_ms);
        self.carry_out(node, actions);
        self.after(10, 500, Happening::Dial { node });
    }

    /// Tells an agent something, and does what it asks.
    pub(super) fn tell(&mut self, node: usize, event: Event) {
        let now_ms = self.now_ms;
        let actions = self.nodes[node].tell(now_ms, event);
        self.carry_out(node, actions);
    }

    pub(super) fn carry_out(&mut self, node: usize, actions: Vec<AgentAction>) {
        let life = self.nodes[node].life;
        for action in actions {
            match action {
                AgentAction::Persist { id, ledger } => self.after(
                    1,
                    50,
                    Happening::Persist {
                        node,
                        life,
                        id,
                        ledger,
                    },
                ),
                AgentAction::Status(status) => self.send_up(node, Up::Status(status)),
                AgentAction::Refuse(refused) => self.send_up(node, Up::Refused(refused)),
                AgentAction::SyncNetwork { id, wanted } => {
                    self.after(
                        1,
                        50,
                        Happening::Network {
                            node,
                            life,
                            id,
                            wanted,
                        },
                    );
                }
                AgentAction::Pod { id, uid, mut op } => {
                    if let Some(sabotage) = self.sabotage {
                        sabotage.operation(&mut op, &self.nodes[node].topology);
                    }
                    let (low, high) = if matches!(op, PodOp::Prepare { .. } | PodOp::Teardown) {
                        (50, 2000)
                    } else {
                        (1, 100)
                    };
                    self.nodes[node].under_way.push((id, uid, op));
                    self.after(low, high, Happening::Work { node, life, id });
                }
                AgentAction::Probe {
                    id, uid, container, ..
                } => {
                    self.after(
                        1,
                        100,
                        Happening::Read {
                            node,
                            life,
                            id,
                            uid,
                            container: Some(container),
                        },
                    );
                }
                AgentAction::Hook { uid, .. } => unreachable!("{uid}: nobody here deploys a hook"),
                AgentAction::ShedLayers { .. } => unreachable!("nobody here measures a disk"),
                AgentAction::CountClaims(_) | AgentAction::RemoveClaim { .. } => {
                    unreachable!("nobody here has claims")
                }
                AgentAction::ReadSessions { id, uid, .. } => {
                    self.after(
                        1,
                        100,
                        Happening::Read {
                            node,
                            life,
                            id,
                            uid,
                            container: None,
                        },
                    );
                }
            }
        }
        self.schedule_wake(node);
    }

    pub(super) fn schedule_wake(&mut self, node: usize) {
        let Some(at_ms) = self.nodes[node]
            .agent
            .as_ref()
            .and_then(gantry_nodeagent::core::State::wake_ms)
        else {
            return;
        };
        let at_ms = at_ms.max(self.now_ms + 1);
        if at_ms < self.nodes[node].wake_ms {
            self.nodes[node].wake_ms = at_ms;
            let wait_ms = at_ms - self.now_ms;
            let life = self.nodes[node].life;
            self.after(wait_ms, wait_ms, Happening::Wake { node, life });
        }
    }

    pub(super) fn send_up(&mut self, node: usize, message: Up) {
        let Some(stream) = self.nodes[node].stream else {
            return;
        };
        for (low, high) in self.deliveries() {
            // A stream keeps its order (what a broken one still carried is told apart by its number); so late means all later.
            let at_ms = (self.now_ms + self.rng.between(low, high)).max(self.nodes[node].last_arrival_ms);
            self.nodes[node].last_arrival_ms = at_ms;
            let wait_ms = at_ms - self.now_ms;
            self.after(
                wait_ms,
                wait_ms,
                Happening::ToOrchestrator {
                    node,
                    stream,
                    message: message.clone(),
                },
            );
        }
    }

    pub(super) fn work(&mut self, node: usize, life: u64, id: u64) {
        if self.nodes[node].life != life {
            return;
        }
        let Some(at) = self.nodes[node]
            .under_way
            .iter()
            .position(|(other, ..)| *other == id)
        else {
            return;
        };
        let (_, uid, op) = self.nodes[node].under_way.remove(at);
        let (done, ended) = self.nodes[node].host.apply(&uid, &op, self.now_ms);
        self.hosts_changed = true;
        for (container, run) in ended {
            let event = Event::Container {
                uid: uid.clone(),
                container,
                run,
            };
            self.after(
                1,
                50,
                Happening::Answer {
                    node,
                    life,
                    event: Box::new(event),
                },
            );
        }
        self.tell(
            node,
            Event::PodDone {
                id,
                uid,
                result: Ok(done),
            },
        );
    }

    pub(super) fn read(&mut self, node: usize, life: u64, id: u64, uid: String, container: Option<String>) {
        if self.nodes[node].life != life {
            return;
        }
        let serves = self.nodes[node].host.serves(&uid);
        let event = match container {
            Some(container) => {
                let result = if serves {
                    Ok(())
                } else {
                    Err("connection refused".to_owned())
                };
                Event::Probed {
                    id,
                    uid,
                    container,
                    result,
                }
            }
            None => {
                let count = self.traffic.of(&uid);
                Event::Sessions {
                    id,
                    uid,
                    result: if serves {
                        Ok(count)
                    } else {
                        Err("connection refused".to_owned())
                    },
                }
            }
        };
        self.tell(node, event);
    }

    pub(super) fn dial(&mut self, node: usize) {
        if self.nodes[node].agent.is_none() || self.nodes[node].stream.is_some() {
            return;
        }
        if !self.orchestrator.alive {
            return self.after(500, 1500, Happening::Dial { node });
        }
        self.streams += 1;
        self.nodes[node].stream = Some(self.streams);
        self.nodes[node].last_arrival_ms = 0;
        let hello = self.nodes[node].hello();
        self.orchestrator.agents.connected(hello, self.now_ms);
        self.wake_orchestrator();
        self.tell(node, Event::Connected);
    }
}
