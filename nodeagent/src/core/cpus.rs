//! Putting limits in force in an order in which no CPU ever has two owners: a CPU is taken only when the kernel has
//! confirmed that nobody else is on it. So shrinks go first by themselves, and grows wait for them.

use gantry_nodeagent_api::{ContainerConfig, ContainerResources, memory_at_once};
use gantry_topology::CpuSet;

use super::state::{Container, Owned, Pod, UnderWay};
use super::{Action, Bounds, Limits, PodOp, State};

/// Milliseconds after which a memory limit that was below use is tried again.
pub(super) const MEMORY_RETRY_MS: u64 = 3000;

/// Asks for the limits that can be put in force now.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    let mut stuck = Vec::new();
    let mut awaited = CpuSet::new();
    let mut moving = false;
    for uid in state.uids() {
        let pod = &state.pods[&uid];
        let ends = pod.stopping || pod.over.is_some();
        moving |= pod.under_way.is_some() && !ends;
        if pod.under_way.is_some() || ends || !pod.prepared {
            continue;
        }
        let Some(config) = pod.config.clone() else {
            continue;
        };
        if now_ms < pod.backoff.not_before_ms {
            let at_ms = pod.backoff.not_before_ms;
            state.wake_at(at_ms);
            continue;
        }
        for wanted in &config.containers {
            forget_refusal(container_mut(state, &uid, &wanted.name), wanted);
            let next = next_limits(state, now_ms, &uid, wanted);
            let container = container_mut(state, &uid, &wanted.name);
            match next {
                Next::Done => container.cpu_message.clear(),
                Next::Wait(message) => {
                    container.cpu_message = message;
                    stuck.push((uid.clone(), wanted.name.clone()));
                    let own = &wanted.resources.cpus;
                    let shared = &state.ledger.config.shared_cpus;
                    awaited = awaited.union(if own.is_empty() { shared } else { own });
                }
                Next::Go(limits, message) => {
                    container.cpu_message = message;
                    apply(state, &uid, &wanted.name, limits, actions);
                    moving = true;
                    break;
                }
            }
        }
    }
    // Nothing moves, and some cannot: they wait for each other.
    if !moving && !leaving(state, &awaited) {
        stuck
            .iter()
            .any(|(uid, container)| park(state, uid, container, actions));
    }
    wake_for_memory(state, now_ms);
}

/// What was refused is not asked for any more: that it was means nothing now.
fn forget_refusal(container: &mut Container, wanted: &ContainerConfig) {
    let other = |refused: &mut super::state::MemoryRefused| !refused.is(&wanted.resources);
    if container.memory_refused.take_if(other).is_some() {
        container.limits_message.clear();
    }
}

/// Whether a pod that is being stopped, or has ended, holds any of these CPUs: it lets go of them by itself.
fn leaving(state: &State, cpus: &CpuSet) -> bool {
    let stopping = state
        .pods
        .values()
        .filter(|pod| pod.stopping || pod.over.is_some());
    stopping
        .flat_map(|pod| pod.containers.values())
        .any(|c| !c.owned.exclusive.is_disjoint(cpus) || !c.owned.shared.is_disjoint(cpus))
}

enum Next {
    /// As wanted.
    Done,
    /// Nothing can be done before others have moved.
    Wait(String),
    /// Put these in force; the message tells what is still missing.
    Go(Limits, String),
}

fn next_limits(state: &State, now_ms: u64, uid: &str, wanted: &ContainerConfig) -> Next {
    let nothing = Container::default();
    let container = state.pods[uid].containers.get(&wanted.name).unwrap_or(&nothing);
    let mut resources = wanted.resources.clone();
    if let (Some(refused), Some(current)) = (&container.memory_refused, &container.in_force)
        && refused.is(&resources)
        && now_ms < refused.retry_ms
    {
        resources.memory_bytes = current.resources.memory_bytes;
        resources.hugepages = current.resources.hugepages.clone();
    }
    let shared = &state.ledger.config.shared_cpus;
    let exclusive = !resources.cpus.is_empty();
    let taken = blocked(
        state,
        uid,
        &wanted.name,
        exclusive,
        if exclusive { &resources.cpus } else { shared },
    );
    let missing = if taken.is_empty() {
        String::new()
    } else {
        format!("waits for CPUs {taken} to be released")
    };
    let Some(limits) = choose(state, uid, &wanted.name, container, resources, &taken) else {
        let empty_pool = !exclusive && shared.is_empty();
        return Next::Wait(if empty_pool {
            "the node has no shared CPUs for it".to_owned()
        } else {
            missing
        });
    };
    let nodes_in_force = container.numa_nodes.as_deref() == Some(numa_nodes(&state.pods[uid]));
    match &container.in_force {
        Some(current) if *current == limits && nodes_in_force => {
            if missing.is_empty() {
                Next::Done
            } else {
                Next::Wait(missing)
            }
        }
        _ => Next::Go(limits, missing),
    }
}

/// The nearest to what is wanted that may be put in force now.
fn choose(
    state: &State,
    uid: &str,
    name: &str,
    container: &Container,
    resources: ContainerResources,
    taken: &CpuSet,
) -> Option<Limits> {
    let pool = &state.ledger.config.shared_cpus;
    if resources.cpus.is_empty() {
        let shared_cpus = pool.difference(taken);
        return (!shared_cpus.is_empty()).then_some(Limits {
            resources,
            shared_cpus,
        });
    }
    let free = resources.cpus.difference(taken);
    let own = |cpus: CpuSet| Limits {
        resources: ContainerResources {
            cpus,
            ..resources.clone()
        },
        shared_cpus: CpuSet::new(),
    };
    if taken.is_empty() {
        return Some(own(free));
    }
    // Not all of it: a new container waits, one in the shared pool stays there, one with own CPUs takes what it can.
    // What a failed change left behind is unknown: the pool makes it known again.
    let to_pool = match &container.in_force {
        Some(current) => current.resources.cpus.is_empty(),
        None if container.owned == Owned::default() => return None,
        None => true,
    };
    if to_pool {
        let shared_cpus = pool.difference(&blocked(state, uid, name, false, pool));
        if !shared_cpus.is_empty() {
            let none = ContainerResources {
                cpus: CpuSet::new(),
                ..resources
            };
            return Some(Limits {
                resources: none,
                shared_cpus,
            });
        }
    }
    (!free.is_empty()).then(|| own(free))
}

/// The part of `cpus` that others may be running on, so that this container must not.
fn blocked(state: &State, uid: &str, name: &str, exclusive: bool, cpus: &CpuSet) -> CpuSet {
    let mut taken = CpuSet::new();
    for (other_uid, other_name, own, shared) in state.cpu_owners() {
        if other_uid == uid && other_name == name {
            continue;
        }
        if !own.is_disjoint(cpus) {
            taken = taken.union(&own.intersection(cpus));
        }
        if exclusive && !shared.is_disjoint(cpus) {
            taken = taken.union(&shared.intersection(cpus));
        }
    }
    taken
}

/// Of containers that wait for each other's CPUs, one steps aside into the shared pool for a moment. False if this one cannot.
fn park(state: &mut State, uid: &str, name: &str, actions: &mut Vec<Action>) -> bool {
    let Some(current) = state.pods[uid]
        .containers
        .get(name)
        .and_then(|c| c.in_force.clone())
    else {
        return false;
    };
    let pool = &state.ledger.config.shared_cpus;
    let shared_cpus = pool.difference(&blocked(state, uid, name, false, pool));
    if current.resources.cpus.is_empty() || shared_cpus.is_empty() {
        return false;
    }
    let resources = ContainerResources {
        cpus: CpuSet::new(),
        ..current.resources
    };
    apply(
        state,
        uid,
        name,
        Limits {
            resources,
            shared_cpus,
        },
        actions,
    );
    true
}

fn apply(state: &mut State, uid: &str, name: &str, limits: Limits, actions: &mut Vec<Action>) {
    let id = state.next_id();
    let container = container_mut(state, uid, name);
    container.owned.exclusive = container.owned.exclusive.union(&limits.resources.cpus);
    container.owned.shared = container.owned.shared.union(&limits.shared_cpus);
    let pod = state.pods.get_mut(uid).expect("the caller has just looked at it");
    let bounds = bounds(pod, name, limits);
    pod.under_way = Some((
        id,
        UnderWay::Apply {
            container: name.to_owned(),
            bounds: bounds.clone(),
        },
    ));
    let op = PodOp::Apply {
        container: name.to_owned(),
        bounds,
    };
    actions.push(Action::Pod {
        id,
        uid: uid.to_owned(),
        op,
    });
}

/// All that a container is held to when it has these limits.
pub(super) fn bounds(pod: &Pod, name: &str, limits: Limits) -> Bounds {
    Bounds {
        pod_memory_bytes: pod_memory(pod, name, &limits),
        numa_nodes: numa_nodes(pod).to_vec(),
        limits,
    }
}

/// The most that a pod's containers may have at once, when this one has these limits; 0 if one of them has none. One whose
/// limit is still to become smaller counts with what it has.
fn pod_memory(pod: &Pod, name: &str, limits: &Limits) -> u64 {
    let all = pod.config.iter().flat_map(|config| &config.containers);
    let bytes = |wanted: &ContainerConfig| {
        let in_force = pod.containers.get(&wanted.name).and_then(|c| c.in_force.as_ref());
        match in_force.map(|l| l.resources.memory_bytes) {
            _ if wanted.name == name => limits.resources.memory_bytes,
            _ if wanted.resources.memory_bytes == 0 => 0,
            Some(bytes) => bytes.max(wanted.resources.memory_bytes),
            None => wanted.resources.memory_bytes,
        }
    };
    memory_at_once(all.map(|wanted| (wanted.role, bytes(wanted))))
}

/// NUMA nodes whose memory a pod may use; empty means all.
fn numa_nodes(pod: &Pod) -> &[u32] {
    pod.config.as_ref().map_or(&[], |config| &config.numa_nodes)
}

fn container_mut<'a>(state: &'a mut State, uid: &str, name: &str) -> &'a mut Container {
    let pod = state.pods.get_mut(uid).expect("the caller has just looked at it");
    pod.containers.entry(name.to_owned()).or_default()
}

fn wake_for_memory(state: &mut State, now_ms: u64) {
    let retries = state
        .pods
        .values()
        .flat_map(|p| p.containers.values())
        .filter_map(|c| Some(c.memory_refused.as_ref()?.retry_ms));
    if let Some(next_ms) = retries.filter(|retry_ms| *retry_ms > now_ms).min() {
        state.wake_at(next_ms);
    }
}
