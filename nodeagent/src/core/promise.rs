//! What memory a pod was promised and may still use. A smaller promise counts once its limit is in force: until then the node
//! cannot promise the rest to others. What a container may use beyond its promise was never promised to it.

use gantry_nodeagent_api::{ContainerConfig, most_at_once};

use super::State;
use super::state::{Container, Pod};
use crate::guard;

/// Notes what is promised now.
pub(super) fn run(state: &mut State) {
    for pod in state.pods.values_mut() {
        for wanted in pod.config.iter().flat_map(|config| &config.containers) {
            if let Some(container) = pod.containers.get_mut(&wanted.name) {
                container.promised_bytes = promised(container, wanted);
            }
        }
    }
}

fn promised(container: &Container, wanted: &ContainerConfig) -> Option<u64> {
    let in_force = container.in_force.as_ref()?.resources.memory_bytes;
    let (request, limit) = (wanted.memory_request_bytes, wanted.resources.memory_bytes);
    if in_force == limit {
        return Some(request);
    }
    // A former agent knew: what is limited to its promise now was so before.
    let before = container
        .promised_bytes
        .unwrap_or(if request == limit { in_force } else { 0 });
    Some(before.max(request))
}

/// The promise to all containers that may be there at once; one that no configuration knows may use all that it can.
pub(super) fn of(pod: &Pod, known: &[ContainerConfig]) -> u64 {
    let bytes = |c: &Container| {
        let in_force = c.in_force.as_ref().map(|l| l.resources.memory_bytes);
        let promised = c.promised_bytes.filter(|_| !guard::off("promised-memory"));
        in_force.map_or(0, |limit| promised.unwrap_or(limit))
    };
    let wanted = known
        .iter()
        .map(|w| (w.role, pod.containers.get(&w.name).map_or(0, bytes)));
    let unknown = pod
        .containers
        .iter()
        .filter(|(name, _)| !known.iter().any(|c| c.name == **name));
    most_at_once(wanted) + unknown.map(|(_, c)| bytes(c)).sum::<u64>()
}
