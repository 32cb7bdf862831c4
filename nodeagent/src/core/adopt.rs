//! A new agent on a node where things may be: ledger and kernel together tell what runs.

use std::sync::Arc;

use gantry_nodeagent_api::{ContainerResources, PodUid};
use gantry_topology::CpuSet;

use super::state::{Container, HookState, Owned, Pod};
use super::{Exit, Limits, Observed, ObservedContainer, State, accept};

/// Exit code of a container whose shim was found dead: as after SIGKILL.
pub(super) const KILLED: i32 = 137;

/// Takes over what was found. Running pods go on running, leaving ones go on leaving.
pub(super) fn start(state: &mut State, now_ms: u64, observed: Observed) {
    if state.started {
        return;
    }
    state.started = true;
    let sets: Vec<CpuSet> = observed
        .pods
        .values()
        .flat_map(|pod| pod.containers.values())
        .filter_map(|c| c.limits.as_ref().map(|(_, cpus)| cpus.clone()))
        .collect();
    for (uid, found) in observed.pods {
        // Of those that are to stay the accepted configuration tells, below.
        let config = state.ledger.leaving.get(&uid).cloned().map(Arc::new);
        let mut pod = Pod {
            config,
            prepared: found.shim,
            released: found.released,
            evicted: state.ledger.evicted.get(&uid).cloned(),
            touched: true,
            ..Pod::default()
        };
        for (name, container) in found.containers {
            let exclusive = is_exclusive(state, &uid, &name, &container, &sets);
            let mut container = adopt(container, found.shim, exclusive, now_ms);
            container.guessed = exclusive && is_of_the_pool(state, &uid, &name);
            pod.containers.insert(name, container);
        }
        state.pods.insert(uid, pod);
    }
    accept::adopt_config(state);
}

fn adopt(found: ObservedContainer, shim: bool, exclusive: bool, now_ms: u64) -> Container {
    let mut run = found.run;
    let presumed = !shim && run.as_ref().is_some_and(|run| run.exit.is_none());
    if let (Some(run), true) = (&mut run, presumed) {
        run.exit = Some(Exit::with(KILLED, now_ms));
    }
    let mut container = Container {
        presumed,
        last_attempt: run.as_ref().map(|r| r.attempt),
        outdated: !shim,
        // A former agent has seen to it, as far as can be known.
        post_start: HookState::Done,
        before: found.before,
        run,
        image_id: found.image_id,
        ..Container::default()
    };
    if let Some((resources, cpus)) = found.limits {
        let none = CpuSet::new();
        let (own, shared_cpus) = if exclusive { (cpus, none) } else { (none, cpus) };
        container.owned = Owned {
            exclusive: own.clone(),
            shared: shared_cpus.clone(),
        };
        container.in_force = Some(Limits {
            resources: ContainerResources {
                cpus: own,
                ..resources
            },
            shared_cpus,
        });
    }
    container
}

/// Whether what a container runs on is taken as its own. The kernel does not say; but an exclusive set never meets another,
/// and to take a set that nobody else is on as exclusive for a moment is safe, whereas the opposite is not.
fn is_exclusive(state: &State, uid: &PodUid, name: &str, found: &ObservedContainer, sets: &[CpuSet]) -> bool {
    let Some((_, cpus)) = &found.limits else {
        return false;
    };
    if is_of_the_pool(state, uid, name) && *cpus == state.ledger.config.shared_cpus {
        return false;
    }
    sets.iter().filter(|other| !other.is_disjoint(cpus)).count() <= 1
}

fn is_of_the_pool(state: &State, uid: &PodUid, name: &str) -> bool {
    let pod = state.ledger.config.pods.get(uid);
    let wanted = pod.and_then(|pod| pod.containers.iter().find(|c| c.name == name));
    wanted.is_some_and(|c| c.resources.cpus.is_empty())
}
