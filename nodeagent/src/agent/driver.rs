//! Runs the core: one task that feeds it events and hands out its actions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gantry_nodeagent_api::{ClaimId, NodeStatus, ProbeAction, Refused};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::dns::Table;
use super::entering::{self, Places};
use super::ledger::LedgerFile;
use super::network::Network;
use super::pods::Pods;
use super::turns::{Group, Turns};
use super::{hook, probe};
use crate::chain::chain;
use crate::core::{Action, Event, NetworkFaults, PodOp, State, step};

/// How many pods are prepared or torn down at once.
const HEAVY_AT_ONCE: usize = 4;

/// The core and all that it acts on.
pub(super) struct Driver {
    pub(super) state: State,
    pub(super) hands: Hands,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) clock: Clock,
}

/// What actions are done with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hands {
    pub(super) probe_places: Arc<Places>,
    pub(super) pods: Arc<Pods>,
    pub(super) network: Arc<Network>,
    pub(super) dns: watch::Sender<Option<Arc<Table>>>,
    pub(super) ledger: LedgerFile,
    pub(super) status: watch::Sender<Option<Arc<NodeStatus>>>,
    pub(super) refusals: mpsc::Sender<Refused>,
    pub(super) answers: mpsc::Sender<Event>,
    pub(super) heavy: Turns,
    /// The claims that are to be counted.
    pub(super) claims: watch::Sender<BTreeSet<ClaimId>>,
}

/// Milliseconds since the Unix epoch that never run backwards: the wall clock at the start, then the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start_ms: u64,
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            start_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(0),
            start: Instant::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.start_ms + u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

pub(super) fn heavy() -> Turns {
    Turns::new(HEAVY_AT_ONCE)
}

/// Whose turn heavy work takes. What is taken down has no configuration any more: all of it is one group.
fn group(op: &PodOp) -> Option<Group> {
    match op {
        PodOp::Prepare { pod, .. } => Some(Group {
            tenant: pod.namespace.clone(),
            labels: pod.labels.clone(),
        }),
        PodOp::Release { .. } | PodOp::Teardown => Some(Group {
            tenant: String::new(),
            labels: BTreeMap::new(),
        }),
        PodOp::Apply { .. } | PodOp::Start { .. } | PodOp::Signal { .. } => None,
    }
}

impl Driver {
    /// Until cancelled. Pods are left as they are.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let wake = self
                .state
                .wake_ms()
                .map(|at_ms| at_ms.saturating_sub(self.clock.now_ms()));
            let wake = Duration::from_millis(wake.unwrap_or(1000).min(60_000));
            // Every arm is cancel-safe: an event stays in the channel, and time passes anyway.
            let event = tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
                () = tokio::time::sleep(wake) => Event::Tick,
                () = cancel.cancelled() => return,
            };
            self.feed(event);
        }
    }

    /// One event, and what follows from it.
    pub(super) fn feed(&mut self, event: Event) {
        for action in step(&mut self.state, self.clock.now_ms(), event) {
            self.hands.act(action);
        }
    }
}

impl Hands {
    fn act(&self, action: Action) {
        match action {
            Action::Status(status) => {
                self.status.send_replace(Some(Arc::new(*status)));
            }
            Action::Refuse(refused) => {
                tracing::error!(
                    generation = refused.generation.0,
                    reason = refused.reason,
                    "configuration refused"
                );
                if self.refusals.try_send(refused).is_err() {
                    tracing::warn!("nobody to tell the refusal to");
                }
            }
            Action::Persist { id, ledger } => {
                let file = self.ledger.clone();
                let save = move || file.save(&ledger).map_err(|e| e.to_string());
                self.block(save, move |result| Event::Persisted { id, result });
            }
            Action::SyncNetwork { id, wanted } => {
                let (network, dns, pods) = (self.network.clone(), self.dns.clone(), self.pods.clone());
                let generation = wanted.generation.0;
                let sync = move || {
                    let result = network.sync(wanted.network.as_ref(), &wanted.services, &wanted.behind);
                    // Names need no services.
                    if let Some(node) = wanted.network {
                        dns.send_replace(Some(Arc::new(Table::new(
                            &node,
                            wanted.pods,
                            wanted.dns,
                            wanted.srv,
                        ))));
                        pods.knows(node);
                    }
                    let result = result.map_err(|failure| chain(&failure));
                    match &result {
                        Ok(faults) => log_faults(generation, faults),
                        Err(error) => {
                            tracing::error!(generation, error, "services cannot be brought in force");
                        }
                    }
                    result
                };
                self.block(sync, move |result| Event::NetworkSynced { id, result });
            }
            Action::Pod { id, uid, op } => self.pod(id, uid, op),
            Action::Probe {
                id,
                uid,
                container,
                address,
                probe,
            } => {
                let (pods, places) = (self.pods.clone(), self.probe_places.clone());
                let (of_pod, name) = (uid.clone(), container.clone());
                let work = async move {
                    // How long it waits for the other commands of its pod is not the container's time.
                    let _place = match probe.action {
                        ProbeAction::Exec { .. } => places.enter(&of_pod).await,
                        ProbeAction::HttpGet(_) | ProbeAction::TcpSocket { .. } => None,
                    };
                    let enter = || entering::command(&pods, &of_pod, &name);
                    probe::run(&probe, address, enter).await
                };
                self.tell(work, move |result| Event::Probed {
                    id,
                    uid,
                    container,
                    result,
                });
            }
            Action::Hook {
                id,
                uid,
                container,
                address,
                hook,
                timeout_ms,
            } => {
                let pods = self.pods.clone();
                let (of_pod, name) = (uid.clone(), container.clone());
                let work = async move {
                    let result = hook::run(hook, &pods, (&of_pod, &name), address, timeout_ms).await;
                    if let Err(error) = &result {
                        tracing::warn!(pod = of_pod, container = name, error, "a hook failed");
                    }
                    result
                };
                self.tell(work, move |result| Event::Hooked {
                    id,
                    uid,
                    container,
                    result,
                });
            }
            Action::ShedLayers { id } => {
                let pods = self.pods.clone();
                let shed = move || {
                    let result = pods.shed_layers().map_err(|failure| chain(&failure));
                    match &result {
                        Ok(layers) => {
                            tracing::info!(layers, "the disk is short of space: unused layers are removed")
                        }
                        Err(error) => tracing::warn!(error, "cannot remove unused layers"),
                    }
                    result
                };
                self.block(shed, move |_| Event::LayersShed { id });
            }
            Action::CountClaims(claims) => {
                self.claims.send_replace(claims);
            }
            Action::RemoveClaim { id, claim } => {
                let pods = self.pods.clone();
                let remove = move || {
                    let begun = Instant::now();
                    let result = pods.claims.remove(&claim).map_err(|failure| chain(&failure));
                    let took_ms = begun.elapsed().as_millis();
                    match &result {
                        Ok(()) => tracing::info!(claim, took_ms, "removed with all that was in it"),
                        Err(error) => tracing::warn!(claim, error, "cannot remove; trying again"),
                    }
                    result
                };
                self.block(remove, move |result| Event::ClaimRemoved { id, result });
            }
            Action::ReadSessions {
                id,
                uid,
                address,
                probe,
            } => {
                let of_pod = uid.clone();
                let work = async move {
                    let result = probe::sessions(&probe, address).await;
                    if let Err(error) = &result {
                        tracing::debug!(pod = of_pod, error, "cannot read the number of sessions");
                    }
                    result
                };
                self.tell(work, move |result| Event::Sessions { id, uid, result });
            }
        }
    }

    fn pod(&self, id: u64, uid: String, op: PodOp) {
        let (pods, heavy, name) = (self.pods.clone(), self.heavy.clone(), uid.clone());
        let work = async move {
            let _turn = match group(&op) {
                Some(group) => Some(heavy.enter(group).await),
                None => None,
            };
            let what = describe(&op);
            let perform = move || {
                let begun = Instant::now();
                let result = pods.perform(&name, op);
                let took_ms = begun.elapsed().as_millis();
                match &result {
                    Ok(_) => tracing::info!(pod = name, operation = what, took_ms, "done"),
                    Err(failure) => tracing::warn!(
                        pod = name,
                        operation = what,
                        took_ms,
                        error = failure.message,
                        "failed"
                    ),
                }
                result
            };
            tokio::task::spawn_blocking(perform)
                .await
                .unwrap_or_else(|_| Err(format!("{what}: {PANICKED}").into()))
        };
        self.tell(work, move |result| Event::PodDone { id, uid, result });
    }

    /// Does something that blocks and tells how it went, as [`Self::tell`] does.
    fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
        answer: impl FnOnce(Result<T, String>) -> Event + Send + 'static,
    ) {
        let work = tokio::task::spawn_blocking(work);
        self.tell(
            async { work.await.unwrap_or_else(|_| Err(PANICKED.to_owned())) },
            answer,
        );
    }

    fn tell<T: Send + 'static, E: From<String> + Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
        answer: impl FnOnce(Result<T, E>) -> Event + Send + 'static,
    ) {
        tokio::spawn(tell(self.answers.clone(), work, answer));
    }
}

/// What the core is told of work that panicked: like any other failure, it is tried again.
const PANICKED: &str = "the agent has an error in itself; see its log";

/// Does something and tells how it went, whatever happens: the core waits for the answer, and does nothing for the object until it
/// comes.
async fn tell<T: Send + 'static, E: From<String> + Send + 'static>(
    answers: mpsc::Sender<Event>,
    work: impl Future<Output = Result<T, E>> + Send + 'static,
    answer: impl FnOnce(Result<T, E>) -> Event,
) {
    let result = tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Err(PANICKED.to_owned().into()));
    // Fails only when the agent ends.
    let _ = answers.send(answer(result)).await;
}

fn log_faults(generation: u64, faults: &NetworkFaults) {
    for (pod, why) in &faults.subnets {
        tracing::warn!(generation, pod, why, "a subnet does not lead to the pod");
    }
    for (service, fault) in &faults.services {
        let (reason, message) = (fault.reason.as_str(), &fault.message);
        tracing::warn!(
            generation,
            service,
            reason,
            message,
            "the service is not wholly in force"
        );
    }
}

fn describe(op: &PodOp) -> &'static str {
    match op {
        PodOp::Prepare { .. } => "prepare",
        PodOp::Apply { .. } => "apply",
        PodOp::Start { .. } => "start",
        PodOp::Signal { kill: false, .. } => "terminate",
        PodOp::Signal { kill: true, .. } => "kill",
        PodOp::Release { .. } => "release",
        PodOp::Teardown => "teardown",
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::core::{FailureKind, PodFailure};

    #[tokio::test]
    async fn work_that_panics_is_answered_as_a_failure() {
        let (answers, mut events) = mpsc::channel(1);
        let work =
            std::future::poll_fn(|_| -> Poll<Result<_, PodFailure>> { panic!("as a full log once did") });
        let uid = "a".to_owned();
        tell(answers, work, |result| Event::PodDone { id: 7, uid, result }).await;
        let failed = |result: &Result<_, PodFailure>| {
            let failure = result.as_ref().unwrap_err();
            failure.kind == FailureKind::Other && failure.message == PANICKED
        };
        assert!(matches!(events.recv().await, Some(Event::PodDone { id: 7, result, .. }) if failed(&result)));
    }
}
