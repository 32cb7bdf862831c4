//! What is wrong with a pod that goes on: told as long as it happens, and a while.

use std::collections::BTreeMap;

use gantry_nodeagent_api::Trouble;

use super::{PodRef, State};

/// How long one is told after it was last seen, in milliseconds: longer than what looks for them takes to look again.
const KEPT_MS: u64 = 60_000;

/// Words, and until when they are told.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles(BTreeMap<Trouble, (String, u64)>);

impl Troubles {
    pub(super) fn note(&mut self, now_ms: u64, trouble: Trouble, message: String) {
        self.0.insert(trouble, (message, now_ms + KEPT_MS));
    }

    pub(super) fn clear(&mut self, trouble: Trouble) {
        self.0.remove(&trouble);
    }

    pub(super) fn told(&self) -> BTreeMap<Trouble, String> {
        let told = self
            .0
            .iter()
            .map(|(trouble, (message, _))| (*trouble, message.clone()));
        told.collect()
    }
}

/// Somebody has seen one.
pub(super) fn seen(state: &mut State, now_ms: u64, pod: &PodRef, trouble: Trouble, message: String) {
    let found = match pod {
        PodRef::Uid(uid) => state.pods.get_mut(uid),
        PodRef::Address(address) => {
            let own = |config: &gantry_nodeagent_api::PodConfig| config.address == Some(*address);
            let mut pods = state.pods.values_mut();
            pods.find(|pod| !pod.released && pod.config.as_deref().is_some_and(own))
        }
    };
    if let Some(pod) = found {
        pod.troubles.note(now_ms, trouble, message);
    }
}

/// Forgets those of long ago.
pub(super) fn run(state: &mut State, now_ms: u64) {
    let mut next_ms = None;
    for pod in state.pods.values_mut() {
        pod.troubles.0.retain(|_, (_, until_ms)| now_ms < *until_ms);
        let ends = pod.troubles.0.values().map(|(_, until_ms)| *until_ms);
        next_ms = next_ms.into_iter().chain(ends).min();
    }
    if let Some(at_ms) = next_ms {
        state.wake_at(at_ms);
    }
}
