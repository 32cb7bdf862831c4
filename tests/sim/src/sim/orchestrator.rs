//! The orchestrator's shell: it thinks, writes, and sends.

use gantry_nodeagent_api::NodeConfig;
use gantry_orchestrator::core::{Action, Key};

use super::{EPOCH_MS, Happening, Sim, Up, told};
use crate::damage;
use crate::oracle::{self, Verdict};

impl Sim {
    pub(super) fn wake_orchestrator(&mut self) {
        if self.orchestrator.alive && !self.orchestrator.dirty {
            self.orchestrator.dirty = true;
            if self.orchestrator.pass.is_none() {
                let life = self.orchestrator.life;
                self.after(1, 30, Happening::Think { life });
            }
        }
    }

    pub(super) fn think(&mut self, life: u64) {
        if !self.orchestrator.alive || self.orchestrator.life != life || self.orchestrator.pass.is_some() {
            return;
        }
        if self.orchestrator.think(&self.store, self.now_ms) {
            if let (Some(sabotage), Some(pass)) = (self.sabotage, &mut self.orchestrator.pass) {
                sabotage.decisions(&mut pass.actions, &self.store);
            }
            self.after(1, 15, Happening::Commit { life });
        }
    }

    pub(super) fn commit(&mut self, life: u64) -> Verdict {
        if !self.orchestrator.alive || self.orchestrator.life != life {
            return Ok(());
        }
        let Some(pass) = self.orchestrator.pass.take() else {
            return Ok(());
        };
        let before = self.store.plan.clone();
        let untouched = damage::untouched(&pass.actions, &pass.quarantine, &self.store);
        let taken = self.store.commit(&pass.actions);
        let news = std::mem::take(&mut self.orchestrator.dirty);
        let wrote = pass
            .actions
            .iter()
            .any(|a| !matches!(a, Action::SendConfig { .. } | Action::EmitEvent(_)));
        if taken {
            untouched?;
            oracle::bounded(&self.store)?;
            self.memory
                .pass(&pass.actions, &pass.agents, &before, &self.store)?;
            self.memory.operations(&pass.actions, &self.store, &self.nodes)?;
            // A crash between the write and the sending is a crash like any other: now and then.
            if !self.healed && self.rng.percent(1) {
                self.crash_orchestrator();
                return Ok(());
            }
            self.note_pass(&pass.actions);
            for action in pass.actions {
                match action {
                    Action::SendConfig { node, config } => self.send_config(&node, (*config).clone()),
                    Action::ForgetNode(node) => self.orchestrator.agents.forget(&node),
                    _ => {}
                }
            }
        }
        if wrote || !taken || news {
            self.wake_orchestrator();
        }
        Ok(())
    }

    pub(super) fn note_pass(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::CommitPlan { plan, .. } => {
                    self.note(|| format!("plan {} for {} pods", plan.id, plan.placements.len()))
                }
                Action::Create(o) => self.note(|| format!("create {} {}", o.kind(), Key::of(o.meta()))),
                Action::Update(o) => self.note(|| format!("update {} {}", o.kind(), Key::of(o.meta()))),
                Action::UpdateStatus(_) => {}
                Action::Delete { kind, key, .. } => self.note(|| format!("delete {kind} {key}")),
                Action::SendConfig { node, config } => {
                    self.note(|| format!("send {node} generation {}", config.generation.0))
                }
                Action::ForgetNode(node) => self.note(|| format!("forget {node}")),
                Action::Failed { at, why } => self.note(|| format!("failed at {at:?}: {why}")),
                Action::Render(rendering) => self.note(|| format!("render {}", rendering.key)),
                Action::RefusePlan(why) => self.note(|| format!("refuse a plan: {why:?}")),
                Action::EmitEvent(e) => {
                    self.note(|| format!("event {} {}: {} {}", e.kind, e.key, e.reason, e.message))
                }
            }
        }
    }

    pub(super) fn send_config(&mut self, name: &str, config: NodeConfig) {
        self.orchestrator.agents.sent(name, &config, self.now_ms);
        let Some(node) = self.nodes.iter().position(|n| n.name == name) else {
            return;
        };
        let Some(stream) = self.nodes[node].stream else {
            return;
        };
        if self
            .sabotage
            .is_some_and(|s| s.swallows_config(self.now_ms - EPOCH_MS))
        {
            return;
        }
        for (low, high) in self.deliveries() {
            self.after(
                low,
                high,
                Happening::ToAgent {
                    node,
                    stream,
                    config: Box::new(config.clone()),
                },
            );
        }
    }

    /// When a message arrives: once, never, twice, late. Faultless once faults have stopped.
    pub(super) fn deliveries(&mut self) -> Vec<(u64, u64)> {
        let normal = (1, 20);
        match self.rng.between(0, 99) {
            _ if self.healed => vec![normal],
            0..4 => vec![],
            4..8 => vec![normal, (1, 3000)],
            8..16 => vec![(20, 3000)],
            _ => vec![normal],
        }
    }

    pub(super) fn arrive(&mut self, node: usize, stream: u64, message: Up) {
        if self.nodes[node].stream != Some(stream) || !self.orchestrator.alive {
            return;
        }
        let name = self.nodes[node].name.clone();
        if let Up::Status(status) = &message {
            self.note(|| told(&name, status));
        }
        match message {
            Up::Status(status) => self.orchestrator.agents.reported(&name, *status, self.now_ms),
            Up::Refused(refused) => {
                let (generation, reason) = (refused.generation, refused.reason);
                self.orchestrator.agents.refused(&name, generation, &reason);
            }
        }
        self.wake_orchestrator();
    }

    pub(super) fn start_orchestrator(&mut self) {
        if !self.orchestrator.alive {
            self.orchestrator.alive = true;
            self.orchestrator.dirty = false;
            for node in self.store.objects.nodes.keys() {
                self.orchestrator.agents.expect(&node.name, self.now_ms);
            }
            self.wake_orchestrator();
        }
    }
}
