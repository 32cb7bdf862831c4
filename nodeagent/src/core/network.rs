//! Services, subnets and names follow every accepted configuration; subnets also the pods that they are behind.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gantry_nodeagent_api::PodUid;

use super::{Action, Behind, NetworkFaults, NetworkWanted, State};

pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    let config = &state.ledger.config;
    let wanted = config.generation;
    let in_force = state.network.synced == Some(wanted) && !state.network.stale;
    if state.network.under_way.is_some() || in_force || wanted.0 == 0 {
        return;
    }
    if now_ms < state.network.backoff.not_before_ms {
        return state.wake_at(state.network.backoff.not_before_ms);
    }
    let wanted = NetworkWanted {
        generation: wanted,
        network: config.network.clone(),
        services: config.services.clone(),
        pods: addresses(state),
        behind: behind(state),
        dns: config.dns.clone(),
        srv: config.srv.clone(),
    };
    let id = state.next_id();
    state.network.under_way = Some((id, wanted.generation));
    state.network.stale = false;
    actions.push(Action::SyncNetwork {
        id,
        wanted: Box::new(wanted),
    });
}

/// Whose pods are where. Those that are being stopped go on, and are known to nobody else any more.
fn addresses(state: &State) -> BTreeMap<Ipv4Addr, String> {
    let stopping = state.pods.values().filter_map(|pod| pod.config.as_deref());
    stopping
        .chain(state.ledger.config.pods.values())
        .filter(|pod| !pod.host_network)
        .filter_map(|pod| Some((pod.address?, pod.namespace.clone())))
        .collect()
}

/// What is behind pods as long as they are there, be it that they are being stopped.
fn behind(state: &State) -> BTreeMap<PodUid, Behind> {
    let there = state.pods.iter().filter(|(_, pod)| !pod.released);
    there
        .filter_map(|(uid, pod)| {
            let config = pod.config.as_deref().filter(|config| !config.host_network)?;
            let behind = Behind {
                address: config.address?,
                name: config.name.clone(),
                namespace: config.namespace.clone(),
                group: config.share_group(),
                subnets: config.subnets.clone(),
            };
            Some((uid.clone(), behind))
        })
        .collect()
}

/// The network is as it was wanted, but for these faults; or it is not.
pub(super) fn synced(state: &mut State, now_ms: u64, id: u64, result: Result<NetworkFaults, String>) {
    let Some((_, generation)) = state.network.under_way.take_if(|(awaited, _)| *awaited == id) else {
        return;
    };
    match result {
        Ok(faults) => {
            state.network.faults = faults;
            state.network.synced = Some(generation);
            state.network.backoff.reset();
            state.network.message.clear();
        }
        Err(message) => {
            state.network.backoff.failed(now_ms);
            state.network.stale = true;
            state.network.message = message;
        }
    }
}
