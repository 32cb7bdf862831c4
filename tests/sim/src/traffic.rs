//! Calls: clients on every host set up sessions through the virtual addresses, as the host's datapath has them.

use std::collections::BTreeMap;

use gantry_nodeagent_api::Backend;
use gantry_orchestrator::core::meta;

use crate::control::Store;
use crate::node::Node;
use crate::rng::Rng;

/// A pod that was hit is taken out of service when that is heard of, which may be when it serves again: restarts, late messages
/// and an orchestrator that is away come to this at most.
const AFTERMATH_MS: u64 = 30_000;

/// One established session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Index of the client's node, and its boots when the session began: a flow lives in the datapath of one boot.
    pub client: (usize, u64),
    /// `namespace/name` of the service.
    pub service: String,
    /// The pod that has it.
    pub pod: String,
    /// Uid of the function that the pod is of.
    pub function: String,
    /// When it began.
    pub began_ms: u64,
    /// When it ends by itself.
    pub ends_ms: u64,
    /// A fault has hit its pod since it began, or so shortly before that what the fault set off may still cut it.
    pub excused: bool,
}

/// All sessions.
#[derive(Default)]
pub(crate) struct Traffic {
    pub sessions: Vec<Session>,
    pub established: u64,
    pub cut_by_faults: u64,
    /// When each pod was last hit by a fault.
    hit_ms: BTreeMap<String, u64>,
}

impl Traffic {
    /// Tries to set up some sessions.
    pub fn call(&mut self, nodes: &[Node], store: &Store, rng: &mut Rng, now_ms: u64) {
        for (index, client) in nodes.iter().enumerate() {
            for (service, config) in &client.host.network.services {
                let Some(port) = config.ports.first() else {
                    continue;
                };
                let open: Vec<&Backend> = port.backends.iter().filter(|b| !b.draining).collect();
                if !rng.percent(40) {
                    continue;
                }
                let Some(backend) = rng.pick(&open) else { continue };
                if nodes.iter().any(|n| n.host.serves(&backend.pod)) {
                    self.established += 1;
                    let longest_ms = if rng.percent(20) { 45_000 } else { 8_000 };
                    let length_ms = rng.between(200, longest_ms);
                    self.sessions.push(Session {
                        client: (index, client.host.boots),
                        service: service.clone(),
                        pod: backend.pod.clone(),
                        function: function_of(store, &backend.pod),
                        began_ms: now_ms,
                        ends_ms: now_ms + length_ms,
                        excused: self
                            .hit_ms
                            .get(&backend.pod)
                            .is_some_and(|at| now_ms < at + AFTERMATH_MS),
                    });
                }
            }
        }
    }

    /// A fault hits a pod: the sessions that it has are not protected any more.
    pub fn hit(&mut self, pod: &str, now_ms: u64) {
        self.hit_ms.insert(pod.to_owned(), now_ms);
        let its = self.sessions.iter_mut().filter(|s| s.pod == pod);
        its.for_each(|s| s.excused = true);
    }

    /// Sessions that ended by themselves go.
    pub fn expire(&mut self, now_ms: u64) {
        self.sessions.retain(|s| s.ends_ms > now_ms);
    }

    /// How many sessions a pod carries.
    pub fn of(&self, pod: &str) -> u64 {
        self.sessions.iter().filter(|s| s.pod == pod).count() as u64
    }

    /// Sessions that have just been cut, taken out.
    pub fn cut(&mut self, nodes: &[Node]) -> Vec<Session> {
        let lives = |s: &Session| {
            let client = &nodes[s.client.0].host;
            let ports = client
                .network
                .services
                .get(&s.service)
                .map(|c| c.ports.as_slice())
                .unwrap_or_default();
            let routed = ports.iter().flat_map(|p| &p.backends).any(|b| b.pod == s.pod);
            client.boots == s.client.1 && routed && nodes.iter().any(|n| n.host.serves(&s.pod))
        };
        let (alive, cut) = std::mem::take(&mut self.sessions).into_iter().partition(lives);
        self.sessions = alive;
        cut
    }
}

/// Uid of the function that a pod is of; empty if it is of none, or gone.
fn function_of(store: &Store, pod: &str) -> String {
    let mut pods = store.objects.pods.values();
    let found = pods.find(|p| meta::uid(&p.metadata) == pod);
    found
        .and_then(|p| meta::controller_uid(&p.metadata))
        .unwrap_or_default()
        .to_owned()
}
