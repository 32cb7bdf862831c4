//! The scheduler: one queue of happenings in virtual time, and everything that handles them.

mod agents;
mod faults;
mod orchestrator;
mod queue;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use gantry_nodeagent::core::Event;
use gantry_nodeagent_api::NodeStatus;
use gantry_orchestrator::core::meta;

use crate::control::{Orchestrator, Store};
use crate::node::Node;
use crate::oracle::{self, Memory, Verdict};
use crate::rng::Rng;
use crate::traffic::Traffic;
use crate::{Failure, Oracle, Report, Sabotage, topology, users};
use queue::Entry;
pub(crate) use queue::{Happening, Up};

/// Users and faults act for so long.
const CHAOS_MS: u64 = 60_000;
/// Then everything has to come to rest within so long.
const SETTLE_MS: u64 = 400_000;
/// The virtual clock begins here (milliseconds since the Unix epoch), so that 0 still means never.
const EPOCH_MS: u64 = 1_000_000;

/// No report that is older than this is still on its way: longer than the latest delivery.
const REPORTED_MS: u64 = 4_000;

/// So many histories in a hundred have a flood.
const FLOODS: u64 = 25;

/// Lines of history in a failure.
const HISTORY_LINES: usize = 60;

/// One simulated world.
pub(crate) struct Sim {
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) store: Store,
    pub(crate) orchestrator: Orchestrator,
    pub(crate) nodes: Vec<Node>,
    pub(crate) traffic: Traffic,
    pub(crate) report: Report,
    pub(crate) healed: bool,
    pub(crate) sabotage: Option<Sabotage>,
    memory: Memory,
    queue: BinaryHeap<Reverse<Entry>>,
    numbers: u64,
    streams: u64,
    hosts_changed: bool,
    history: Option<VecDeque<String>>,
}

impl Sim {
    /// A world for a seed: 1 to 3 nodes, a catalog, nothing deployed.
    pub fn new(seed: u64, sabotage: Option<Sabotage>, tells: bool) -> Self {
        let mut rng = Rng::new(seed);
        let count = rng.between(1, 3);
        let nodes = (0..count)
            .map(|i| Node::new(format!("node-{i}"), topology::random(&mut rng)))
            .collect();
        let mut sim = Self {
            rng,
            now_ms: EPOCH_MS,
            store: Store::default(),
            orchestrator: Orchestrator::new(seed),
            nodes,
            traffic: Traffic::default(),
            report: Report {
                seed,
                ..Report::default()
            },
            healed: false,
            sabotage,
            memory: Memory::default(),
            queue: BinaryHeap::new(),
            numbers: 0,
            streams: 0,
            hosts_changed: false,
            history: tells.then(VecDeque::new),
        };
        users::publish(&mut sim.store);
        // In some histories only: every pass looks at all pods.
        if sim.rng.percent(FLOODS) {
            users::flood(&mut sim.store);
        }
        sim.orchestrator.forgets_unreadable = sabotage == Some(Sabotage::ForgetsUnreadable);
        if sabotage == Some(Sabotage::FloodsPass) {
            sim.orchestrator.limits.waiting_of_owner *= 5;
        }
        for node in 0..sim.nodes.len() {
            sim.after(0, 500, Happening::AgentStarts { node });
        }
        sim.after(0, 0, Happening::Tick);
        sim.after(500, 500, Happening::User);
        sim.after(3000, 9000, Happening::Fault);
        sim.after(5000, 15_000, Happening::Damage);
        sim.after(500, 500, Happening::Calls);
        sim.after(CHAOS_MS, CHAOS_MS, Happening::Heal);
        sim
    }

    /// Puts something into the queue, `low` to `high` milliseconds from now.
    pub(crate) fn after(&mut self, low: u64, high: u64, what: Happening) {
        let at_ms = self.now_ms + self.rng.between(low, high);
        self.numbers += 1;
        self.queue.push(Reverse(Entry {
            at_ms,
            number: self.numbers,
            what,
        }));
    }

    /// Runs to the end.
    pub fn run(mut self) -> Result<Report, Failure> {
        while let Some(Reverse(entry)) = self.queue.pop() {
            self.now_ms = entry.at_ms;
            self.report.steps += 1;
            self.traffic.expire(self.now_ms);
            let verdict = self.handle(entry.what).and_then(|()| self.look());
            if let Err((oracle, what)) = verdict {
                return Err(self.failure(oracle, what));
            }
            let is_late = self.now_ms > EPOCH_MS + CHAOS_MS + SETTLE_MS;
            let has_paused = self.orchestrator.alive && self.orchestrator.pass.is_none();
            if is_late || (self.healed && has_paused) {
                match oracle::at_rest(&self.store, &self.nodes, &self.orchestrator.agents) {
                    Ok(()) if self.traffic.sessions.is_empty() && self.is_quiet() => return Ok(self.finish()),
                    Err((oracle, what)) if is_late => return Err(self.failure(oracle, what)),
                    Ok(()) if is_late => {
                        let what = "all is as asked, and yet there is always something to do".to_owned();
                        return Err(self.failure(Oracle::Converges, what));
                    }
                    _ => {}
                }
            }
        }
        Err(self.failure(Oracle::Converges, "nothing happens any more".to_owned()))
    }

    /// The core has nothing left to do.
    fn is_quiet(&mut self) -> bool {
        let any = self.orchestrator.think(&self.store, self.now_ms);
        self.orchestrator.pass = None;
        if any {
            self.wake_orchestrator();
        }
        !any
    }

    fn finish(self) -> Report {
        let ended = self.store.objects.operations.values();
        let operations = ended
            .filter(|o| o.status.phase == gantry_api::OperationPhase::Succeeded)
            .count() as u64;
        Report {
            virtual_ms: self.now_ms - EPOCH_MS,
            plans: self.store.plan.id,
            operations,
            sessions: self.traffic.established,
            sessions_cut_by_faults: self.traffic.cut_by_faults,
            ..self.report
        }
    }

    fn failure(&self, oracle: Oracle, what: String) -> Failure {
        let history = self.history.iter().flatten().cloned().collect();
        Failure {
            seed: self.report.seed,
            at_ms: self.now_ms - EPOCH_MS,
            step: self.report.steps,
            oracle,
            what,
            history,
        }
    }

    /// Remembers something for whoever reads a failure.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let Some(history) = &mut self.history else { return };
        if history.len() == HISTORY_LINES {
            history.pop_front();
        }
        history.push_back(format!("{} {}", self.now_ms - EPOCH_MS, line()));
    }

    /// The oracles that look at hosts and sessions.
    fn look(&mut self) -> Verdict {
        if !std::mem::take(&mut self.hosts_changed) {
            return Ok(());
        }
        self.memory.hosts(&self.nodes)?;
        for session in self.traffic.cut(&self.nodes) {
            let was_reported = session.began_ms + REPORTED_MS < self.now_ms;
            if was_reported && !self.nodes.iter().any(|n| n.host.serves(&session.pod)) {
                self.memory.lost(&self.store, &session.pod);
            }
            let rebooted = self.nodes[session.client.0].host.boots != session.client.1;
            if rebooted || session.excused || self.undeployed(&session.function) {
                self.traffic.cut_by_faults += 1;
                continue;
            }
            let what = format!(
                "a session on pod {} of {} was cut, {} ms before its end",
                session.pod,
                session.service,
                session.ends_ms - self.now_ms
            );
            return Err((Oracle::Sessions, what));
        }
        Ok(())
    }

    /// The function with that uid is gone, or going.
    fn undeployed(&self, uid: &str) -> bool {
        let mut functions = self.store.objects.functions.values();
        functions
            .find(|f| meta::uid(&f.metadata) == uid)
            .is_none_or(|f| f.metadata.deletion_timestamp.is_some())
    }

    fn handle(&mut self, what: Happening) -> Verdict {
        match what {
            Happening::Tick => {
                self.wake_orchestrator();
                self.after(1000, 1000, Happening::Tick);
            }
            Happening::Think { life } => self.think(life),
            Happening::Commit { life } => return self.commit(life),
            Happening::ToAgent { node, stream, config } => {
                if self.nodes[node].stream == Some(stream) {
                    self.tell(node, Event::Config(config));
                }
            }
            Happening::ToOrchestrator {
                node,
                stream,
                message,
            } => self.arrive(node, stream, message),
            Happening::Answer { node, life, event } => {
                if self.nodes[node].life == life {
                    self.tell(node, *event);
                }
            }
            Happening::Work { node, life, id } => self.work(node, life, id),
            Happening::Read {
                node,
                life,
                id,
                uid,
                container,
            } => self.read(node, life, id, uid, container),
            Happening::Persist {
                node,
                life,
                id,
                ledger,
            } => {
                if self.nodes[node].life == life {
                    self.nodes[node].disk = *ledger;
                    self.hosts_changed = true;
                    self.tell(node, Event::Persisted { id, result: Ok(()) });
                }
            }
            Happening::Network {
                node,
                life,
                id,
                wanted,
            } => {
                if self.nodes[node].life == life {
                    self.note(|| {
                        format!(
                            "node-{node} network of generation {} in force",
                            wanted.generation.0
                        )
                    });
                    self.nodes[node].host.network = *wanted;
                    self.hosts_changed = true;
                    self.tell(
                        node,
                        Event::NetworkSynced {
                            id,
                            result: Ok(Default::default()),
                        },
                    );
                }
            }
            Happening::Wake { node, life } => {
                if self.nodes[node].life == life {
                    self.nodes[node].wake_ms = u64::MAX;
                    self.tell(node, Event::Tick);
                }
            }
            Happening::AgentStarts { node } => self.start_agent(node),
            Happening::OrchestratorStarts => self.start_orchestrator(),
            Happening::Dial { node } => self.dial(node),
            Happening::Damage => self.damage(),
            Happening::User => {
                if !self.healed {
                    users::act(&mut self.store, &mut self.rng, self.now_ms);
                    self.wake_orchestrator();
                    self.after(200, 8000, Happening::User);
                }
            }
            Happening::Fault => {
                if !self.healed {
                    self.fault();
                    self.after(2000, 12_000, Happening::Fault);
                }
            }
            Happening::Calls => {
                if !self.healed {
                    self.traffic
                        .call(&self.nodes, &self.store, &mut self.rng, self.now_ms);
                    self.after(200, 1000, Happening::Calls);
                }
            }
            // A pass on its way was thought out over what could be read then.
            Happening::Heal if self.orchestrator.pass.is_some() => self.after(1, 20, Happening::Heal),
            Happening::Heal => {
                self.healed = true;
                self.store.mend();
                users::calm_down(&mut self.store);
                self.wake_orchestrator();
            }
        }
        Ok(())
    }
}

/// A report in one line: generations accepted and applied, and each pod's phase, readiness and sessions.
fn told(name: &str, status: &NodeStatus) -> String {
    let pods = status.pods.iter().map(|(uid, pod)| {
        let sessions = pod.sessions.map(|s| s.to_string()).unwrap_or_default();
        format!(
            "{}:{:?}{}{sessions}",
            &uid[..4],
            pod.phase,
            if pod.ready { "+" } else { "-" }
        )
    });
    let pods: Vec<String> = pods.collect();
    format!(
        "{name} reports {}/{} {}",
        status.accepted.0,
        status.applied.0,
        pods.join(" ")
    )
}
