//! Claims: directories that outlive pods. One that an accepted configuration has listed and the accepted one does not any more goes,
//! once no pod has it; of one that no configuration ever listed nobody has said that it may go. One with more in it than it may
//! have costs its writers their life, and no pod begins with it until it has grown or been emptied.

use std::collections::{BTreeMap, BTreeSet};

use gantry_nodeagent_api::{ClaimConfig, ClaimId, Generation, PodConfig};

use super::backoff::Backoff;
use super::storage::{self, MAX_ENTRIES};
use super::{Action, Ledger, RequestId, State};

/// What [`gantry_nodeagent_api::NodeStatus::full_claims`] says of one whose files nobody can count.
const UNCOUNTABLE: u64 = u64::MAX;

/// What is known of claims, and what is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// As in the ledger, which follows.
    pub(super) known: BTreeSet<ClaimId>,
    pub(super) full: BTreeMap<ClaimId, u64>,
    removal: Option<(RequestId, ClaimId)>,
    backoff: Backoff,
    /// Those that are being counted again and again.
    counted: BTreeSet<ClaimId>,
}

impl Claims {
    pub(super) fn of(ledger: &Ledger) -> Self {
        Self {
            known: ledger.claims.clone(),
            full: ledger.full_claims.clone(),
            ..Self::default()
        }
    }
}

/// A claim was counted.
pub(super) fn counted(state: &mut State, id: &ClaimId, bytes: u64, entries: u64) {
    let Some(size_bytes) = listed(state, id).map(|claim| claim.size_bytes) else {
        return;
    };
    let found = match entries > MAX_ENTRIES {
        true => UNCOUNTABLE,
        false => bytes,
    };
    if found > size_bytes {
        state.claims.full.insert(id.clone(), found);
    } else {
        state.claims.full.remove(id);
    }
}

/// A removal has ended.
pub(super) fn removed(state: &mut State, now_ms: u64, id: RequestId, result: &Result<(), String>) {
    let Some((_, claim)) = state.claims.removal.take_if(|(awaited, _)| *awaited == id) else {
        return;
    };
    match result {
        Ok(()) if listed(state, &claim).is_none() => {
            state.claims.backoff.reset();
            state.claims.known.remove(&claim);
        }
        Ok(()) => {}
        Err(_) => state.claims.backoff.failed(now_ms),
    }
}

/// Looks at all claims.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    recall(state);
    evict(state);
    let used = used(state);
    count(state, used.as_ref(), actions);
    remove(state, now_ms, used.as_ref(), actions);
    let (ledger, claims) = (&mut state.ledger, &state.claims);
    if (&ledger.claims, &ledger.full_claims) != (&claims.known, &claims.full) {
        ledger.claims.clone_from(&claims.known);
        ledger.full_claims.clone_from(&claims.full);
        state.ledger_dirty = true;
    }
}

/// Why no pod can begin with what it asks for, if so.
pub(super) fn obstacle(state: &State, pod: &PodConfig) -> Option<String> {
    let full = pod.claims().find(|id| state.claims.full.contains_key(*id));
    if let Some(claim) = full.and_then(|id| listed(state, id)) {
        return Some(format!(
            "persistentvolumeclaim {:?} is full: more is in it than its size {}; no pod begins with it until it has grown or been emptied",
            claim.name,
            storage::quantity(claim.size_bytes)
        ));
    }
    let (_, going) = state.claims.removal.as_ref()?;
    let waits = pod.claims().any(|id| id == going);
    waits.then(|| "waits for the removal of what was in its volume".to_owned())
}

fn listed<'a>(state: &'a State, id: &ClaimId) -> Option<&'a ClaimConfig> {
    state.ledger.config.claims.as_ref()?.get(id)
}

/// What is listed is known from then on. One that has grown is full no more, and of one that is gone nobody asks.
fn recall(state: &mut State) {
    let Some(listed) = &state.ledger.config.claims else {
        return;
    };
    state.claims.known.extend(listed.keys().cloned());
    let is_full =
        |id: &ClaimId, bytes: &mut u64| listed.get(id).is_some_and(|claim| *bytes > claim.size_bytes);
    state.claims.full.retain(is_full);
}

/// Pods that can write to a full claim.
fn evict(state: &mut State) {
    if state.claims.full.is_empty() {
        return;
    }
    let (full, claims) = (&state.claims.full, &state.ledger.config.claims);
    for pod in state.pods.values_mut().filter(|pod| storage::evictable(pod)) {
        let Some(config) = pod.config.as_ref().filter(|_| pod.prepared || has_run(pod)) else {
            continue;
        };
        let found = full.iter().find(|(id, _)| config.writes_claim(id));
        let claim = found.and_then(|(id, bytes)| Some((claims.as_ref()?.get(id)?, *bytes)));
        pod.evicted = claim.map(|(claim, bytes)| exceeds(claim, bytes));
    }
}

fn has_run(pod: &super::state::Pod) -> bool {
    pod.containers.values().any(|c| c.run.is_some())
}

/// In the words that Kubernetes has for an emptyDir.
fn exceeds(claim: &ClaimConfig, bytes: u64) -> String {
    let name = &claim.name;
    if bytes == UNCOUNTABLE {
        return format!(
            "PersistentVolumeClaim {name:?} has more than {MAX_ENTRIES} files and directories in it, or nests them too deeply to be counted."
        );
    }
    let size = storage::quantity(claim.size_bytes);
    format!("Usage of PersistentVolumeClaim {name:?} exceeds its size {size:?}.")
}

/// Claims of pods of which anything may be on the node; `None`: there is one that nobody knows anything of.
fn used(state: &State) -> Option<BTreeSet<ClaimId>> {
    let there = state.pods.values().filter(|pod| pod.touched && !pod.released);
    let configs = there.map(|pod| pod.config.as_ref());
    let known: Option<Vec<_>> = configs.collect();
    Some(
        known?
            .into_iter()
            .flat_map(|config| config.claims())
            .cloned()
            .collect(),
    )
}

/// Those that somebody can fill, and those that have to become emptier. All others stay as they are.
fn count(state: &mut State, used: Option<&BTreeSet<ClaimId>>, actions: &mut Vec<Action>) {
    let Some(listed) = &state.ledger.config.claims else {
        return;
    };
    let is_due = |id: &&ClaimId| {
        let is_used = used.is_none_or(|used| used.contains(*id));
        is_used || state.claims.full.contains_key(*id)
    };
    let due: BTreeSet<ClaimId> = listed.keys().filter(is_due).cloned().collect();
    if due != state.claims.counted {
        state.claims.counted.clone_from(&due);
        actions.push(Action::CountClaims(due));
    }
}

/// One at a time: nobody waits for it.
fn remove(state: &mut State, now_ms: u64, used: Option<&BTreeSet<ClaimId>>, actions: &mut Vec<Action>) {
    if state.accepted() == Generation(0) || state.claims.removal.is_some() {
        return;
    }
    let (Some(listed), Some(used)) = (&state.ledger.config.claims, used) else {
        return;
    };
    let mut known = state.claims.known.iter();
    let Some(claim) = known.find(|id| !listed.contains_key(*id) && !used.contains(*id)) else {
        return;
    };
    let claim = claim.clone();
    let at_ms = state.claims.backoff.not_before_ms;
    if now_ms < at_ms {
        return state.wake_at(at_ms);
    }
    let id = state.next_id();
    state.claims.removal = Some((id, claim.clone()));
    actions.push(Action::RemoveClaim { id, claim });
}
