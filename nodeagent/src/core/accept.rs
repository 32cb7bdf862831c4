//! Taking a configuration: newer only, saved before it counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_nodeagent_api::{Generation, NodeConfig, PodConfig, PodUid, Refused};

use super::state::{Pod, Saving};
use super::{Action, Ledger, State};

/// Judges a waiting configuration, and makes the list of pods that of the accepted one.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    if state.saving.is_none() && now_ms >= state.save_backoff.not_before_ms {
        if let Some(config) = state.incoming.take() {
            judge(state, *config, actions);
        }
    } else if state.incoming.is_some() && state.saving.is_none() {
        state.wake_at(state.save_backoff.not_before_ms);
    }
    sync_pods(state);
}

/// A configuration came in: the newest one waits its turn.
pub(super) fn receive(state: &mut State, config: Box<NodeConfig>, actions: &mut Vec<Action>) {
    let saving = state
        .saving
        .as_ref()
        .map(|saving| saving.ledger.config.generation);
    let newest = saving.max(state.incoming.as_ref().map(|waiting| waiting.generation));
    match newest {
        Some(newest) if newest > config.generation => {
            refuse(
                config.generation,
                format!("generation {} came before, and is newer", newest.0),
                actions,
            );
        }
        _ => state.incoming = Some(config),
    }
}

fn judge(state: &mut State, config: NodeConfig, actions: &mut Vec<Action>) {
    let (new, accepted) = (config.generation, state.accepted());
    if let Err(reason) = check_cluster(state, &config) {
        return refuse(new, reason, actions);
    }
    if new < accepted {
        return refuse(
            new,
            format!("generation {} is accepted already, and is newer", accepted.0),
            actions,
        );
    }
    if new == accepted {
        if config == state.ledger.config {
            state.status_due = true;
        } else {
            refuse(
                new,
                "a configuration of this generation with other content is accepted already".to_owned(),
                actions,
            );
        }
        return;
    }
    let ledger = successor(state, config);
    persist(state, ledger, actions);
}

/// Whether the store behind a configuration knows this node. On the word of one that does not, no pod is stopped.
fn check_cluster(state: &State, config: &NodeConfig) -> Result<(), String> {
    const WAY_OUT: &str = "this node's pods go on as they are. Give the control plane its own store back \
                           (`gantry restore FILE`), or stop them with `gantry down`";
    let own = &state.ledger.config.cluster;
    if *own == config.cluster {
        return Ok(());
    }
    if !own.is_empty() {
        let theirs = &config.cluster;
        return Err(format!(
            "it comes from the store of cluster `{theirs}`, and this node belongs to cluster {own}; {WAY_OUT}"
        ));
    }
    // The first id that is heard: the ledger is of the first version, or lost. A store that is this node's names its pods
    // until they are gone.
    let mut known = state
        .pods
        .keys()
        .filter(|uid| !state.ledger.leaving.contains_key(*uid));
    if known.clone().next().is_none() || known.any(|uid| config.pods.contains_key(uid)) {
        return Ok(());
    }
    Err(format!(
        "pods run on this node, and the store of cluster {} knows none of them; {WAY_OUT}",
        config.cluster
    ))
}

fn refuse(generation: Generation, reason: String, actions: &mut Vec<Action>) {
    actions.push(Action::Refuse(Refused { generation, reason }));
}

/// The ledger with `config` in place of the accepted one; what was there and is not in it any more is leaving.
fn successor(state: &State, config: NodeConfig) -> Ledger {
    let mut leaving = state.ledger.leaving.clone();
    for (uid, pod) in &state.pods {
        if let (Some(old), false) = (&pod.config, config.pods.contains_key(uid)) {
            leaving.insert(uid.clone(), PodConfig::clone(old));
        }
    }
    let mut claims = state.claims.known.clone();
    claims.extend(config.claims.iter().flat_map(|listed| listed.keys().cloned()));
    Ledger {
        config,
        leaving,
        claims,
        evicted: state.ledger.evicted.clone(),
        full_claims: state.claims.full.clone(),
    }
}

fn persist(state: &mut State, ledger: Ledger, actions: &mut Vec<Action>) {
    let id = state.next_id();
    let ledger = Box::new(ledger);
    state.saving = Some(Saving {
        id,
        ledger: ledger.clone(),
    });
    actions.push(Action::Persist { id, ledger });
}

/// The ledger is on the disk, or it is not.
pub(super) fn persisted(
    state: &mut State,
    now_ms: u64,
    id: u64,
    result: Result<(), String>,
    actions: &mut Vec<Action>,
) {
    let Some(saving) = state.saving.take_if(|s| s.id == id) else {
        return;
    };
    let accepts = saving.ledger.config.generation > state.accepted();
    match result {
        Ok(()) => {
            state.save_backoff.reset();
            state.ledger = *saving.ledger;
            if accepts {
                adopt_config(state);
            }
        }
        Err(message) => {
            state.save_backoff.failed(now_ms);
            state.ledger_dirty = true;
            if accepts {
                let config = saving.ledger.config;
                refuse(
                    config.generation,
                    format!("cannot save the ledger: {message}; it is tried again"),
                    actions,
                );
                state.incoming.get_or_insert(Box::new(config));
            }
        }
    }
}

/// Brings what is known of each pod to the accepted configuration. One whose part of it makes no sense stays as it is.
pub(super) fn adopt_config(state: &mut State) {
    let draining: BTreeSet<&PodUid> = (state.ledger.config.services.values())
        .flat_map(|service| &service.ports)
        .flat_map(|port| &port.backends)
        .filter(|backend| backend.draining)
        .map(|backend| &backend.pod)
        .collect();
    let config = &state.ledger.config;
    let holds = |uid: &PodUid| state.pods.get(uid).is_some_and(|pod| pod.touched);
    state.faults = config.faults(holds);
    for (uid, fault) in &state.faults {
        tracing::error!(pod = uid, fault, "the pod's configuration is not followed");
    }
    for (uid, pod) in &mut state.pods {
        if let Some(config) = config.pods.get(uid)
            && !state.faults.contains_key(uid)
            && pod.config.as_deref() != Some(config)
        {
            pod.config = Some(Arc::new(config.clone()));
        }
        pod.sessions.set_draining(draining.contains(uid));
    }
    state.network.backoff.reset();
    state.status_due = true;
}

fn sync_pods(state: &mut State) {
    // Before the first configuration nothing is known about what was found: it stays.
    if state.accepted() > Generation(0) {
        for uid in state.uids() {
            let wanted = state.wants(&uid) || state.keeps(&uid);
            let pod = state.pods.get_mut(&uid).expect("just listed");
            pod.stopping |= !wanted;
            if pod.stopping && !pod.touched && pod.under_way.is_none() {
                state.pods.remove(&uid);
            }
        }
    }
    let missing: Vec<PodUid> = (state.ledger.config.pods.keys())
        .filter(|uid| !state.pods.contains_key(*uid) && state.wants(uid))
        .cloned()
        .collect();
    for uid in missing {
        let config = state.ledger.config.pods.get(&uid).cloned().map(Arc::new);
        let evicted = state.ledger.evicted.get(&uid).cloned();
        state.pods.insert(
            uid,
            Pod {
                config,
                evicted,
                ..Pod::default()
            },
        );
    }
    let before = state.ledger.leaving.len();
    let pods = &state.pods;
    state.ledger.leaving.retain(|uid, _| pods.contains_key(uid));
    state.ledger_dirty |= state.ledger.leaving.len() != before;
}

/// Saves what changed besides the configuration.
pub(super) fn save(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    if !state.ledger_dirty || state.saving.is_some() {
        return;
    }
    if now_ms < state.save_backoff.not_before_ms {
        return state.wake_at(state.save_backoff.not_before_ms);
    }
    state.ledger_dirty = false;
    let ledger = state.ledger.clone();
    persist(state, ledger, actions);
}
