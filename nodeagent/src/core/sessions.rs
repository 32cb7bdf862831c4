//! How many sessions a pod carries, asked every two seconds, and twice a second while it drains.

use std::net::{IpAddr, Ipv4Addr};

use super::state::Pod;
use super::{Action, RequestId, State};

const PERIOD_MS: u64 = 2000;
const DRAINING_PERIOD_MS: u64 = 500;
/// Answers in a row without a count after which that is told: a program that has just started listens in a moment.
const TOLD_AFTER: u32 = 3;

/// The count and when to ask again.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    pub(super) count: Option<u64>,
    draining: bool,
    next_ms: u64,
    under_way: Option<RequestId>,
    /// Answers in a row that told no count.
    failures: u32,
}

impl Sessions {
    /// A count from before the drain says nothing about it: it is forgotten, and an answer to an older question too.
    pub(super) fn set_draining(&mut self, draining: bool) {
        if draining && !self.draining {
            *self = Self::default();
        }
        self.draining = draining;
    }

    /// Takes the answer in; why the count is not known, if that has been so for a while.
    pub(super) fn answered(&mut self, id: RequestId, result: Result<u64, String>) -> Option<String> {
        self.under_way.take_if(|awaited| *awaited == id)?;
        self.count = result.as_ref().ok().copied();
        let why = result.err();
        self.failures = match why {
            Some(_) => self.failures.saturating_add(1),
            None => 0,
        };
        why.filter(|_| self.failures >= TOLD_AFTER)
    }
}

pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    let synced = state.network.synced == Some(state.accepted());
    for uid in state.uids() {
        let pod = state.pods.get_mut(&uid).expect("just listed");
        let Some(probe) = pod.config.as_ref().and_then(|c| c.sessions.clone()) else {
            continue;
        };
        if pod.stopping || !pod.containers.values().any(super::state::Container::running) {
            pod.sessions.count = None;
            continue;
        }
        // While the drain is not in force yet, new sessions may still come: the count would mean nothing.
        if pod.sessions.under_way.is_some() || (pod.sessions.draining && !synced) {
            continue;
        }
        if now_ms < pod.sessions.next_ms {
            let next_ms = pod.sessions.next_ms;
            state.wake_at(next_ms);
            continue;
        }
        let period_ms = if pod.sessions.draining {
            DRAINING_PERIOD_MS
        } else {
            PERIOD_MS
        };
        let address = address_of(pod);
        let id = state.next_id();
        let pod = state.pods.get_mut(&uid).expect("just listed");
        pod.sessions.under_way = Some(id);
        pod.sessions.next_ms = now_ms + period_ms;
        actions.push(Action::ReadSessions {
            id,
            uid,
            address,
            probe,
        });
    }
}

/// Where the pod is asked.
pub(super) fn address_of(pod: &Pod) -> IpAddr {
    let config = pod.config.as_ref();
    let own = config.filter(|c| !c.host_network).and_then(|c| c.address);
    own.unwrap_or(Ipv4Addr::LOCALHOST).into()
}
