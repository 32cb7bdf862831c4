//! Ephemeral storage: which pods have left too much on the node's disk, and which goes when the disk is short of space.
//!
//! Source: k8s.io/kubernetes/pkg/kubelet/eviction, `localStorageEviction`, `rankDiskPressureFunc`, `evictionMessage`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use gantry_nodeagent_api::{ContainerRole, PodConfig, PodUid, Volume, most_at_once};

use super::state::Pod;
use super::{Action, DiskSpace, PodUsage, RequestId, State};

/// The most files and directories of a pod that are counted, and the most of what it has open. One that has more is evicted, whether it has a limit or not: what
/// nobody can count has no bound.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// The disk has been short of space in so many measurements, one after the other, before anything goes.
const SHORT_IN_A_ROW: u32 = 2;
/// Milliseconds without shortage after which the node takes new pods again. Kubernetes waits five minutes; the node may be the
/// only one.
const RELIEF_MS: u64 = 30_000;
/// Who has less on the disk is not evicted for want of space: its end would not help.
const WORTH_BYTES: u64 = 1 << 20;
/// The same for files and directories.
const WORTH_ENTRIES: u64 = 1000;

/// What is known of the node's disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    space: DiskSpace,
    /// Measurements since the last remedy that found too little, one after the other.
    short_in_a_row: u32,
    /// Since when there was shortage no more: it counts until then.
    pressed_until_ms: u64,
    /// Why the node takes no new pods; empty when it does.
    pub(super) pressure: String,
    shed: Shed,
}

/// Whether unpacked layers that no pod uses are gone.
#[derive(Clone, Copy, Debug, Default)]
enum Shed {
    #[default]
    Due,
    UnderWay(RequestId),
    Done,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    Bytes,
    Entries,
}

/// The disk was measured.
pub(super) fn measured(state: &mut State, now_ms: u64, space: DiskSpace) {
    let disk = &mut state.disk;
    disk.space = space;
    let Some(short) = short(space) else {
        disk.short_in_a_row = 0;
        disk.shed = match disk.shed {
            Shed::Done => Shed::Due,
            other => other,
        };
        return;
    };
    disk.short_in_a_row += 1;
    disk.pressed_until_ms = now_ms + RELIEF_MS;
    if disk.pressure.is_empty() {
        disk.pressure = low(short, space);
    }
}

/// Unused layers are gone.
pub(super) fn shed(state: &mut State, id: RequestId) {
    if matches!(state.disk.shed, Shed::UnderWay(awaited) if awaited == id) {
        state.disk.shed = Shed::Done;
        state.disk.short_in_a_row = 0;
    }
}

/// Evicts who is above its own limits, and, one at a time, who takes most while the disk is short of space.
pub(super) fn run(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    for pod in state.pods.values_mut().filter(|pod| evictable(pod)) {
        if let (Some(config), Some(usage)) = (&pod.config, &pod.usage) {
            pod.evicted = exceeded(config, usage);
        }
    }
    relieve(state, now_ms, actions);
    let evicted = state
        .pods
        .iter()
        .filter_map(|(uid, pod)| Some((uid, pod.evicted.as_ref()?)));
    if !evicted.clone().eq(state.ledger.evicted.iter()) {
        let evicted: BTreeMap<PodUid, String> =
            evicted.map(|(uid, why)| (uid.clone(), why.clone())).collect();
        state.ledger.evicted = evicted;
        state.ledger_dirty = true;
    }
}

fn relieve(state: &mut State, now_ms: u64, actions: &mut Vec<Action>) {
    if state.disk.pressure.is_empty() {
        return;
    }
    let Some(short) = short(state.disk.space) else {
        if now_ms < state.disk.pressed_until_ms {
            return state.wake_at(state.disk.pressed_until_ms);
        }
        return state.disk.pressure.clear();
    };
    let going = state
        .pods
        .values()
        .any(|pod| pod.evicted.is_some() && !pod.released && !pod.stopping);
    if going {
        state.disk.short_in_a_row = 0;
    }
    if state.disk.short_in_a_row < SHORT_IN_A_ROW {
        return;
    }
    match state.disk.shed {
        Shed::UnderWay(_) => {}
        Shed::Due => {
            let id = state.next_id();
            state.disk.shed = Shed::UnderWay(id);
            actions.push(Action::ShedLayers { id });
        }
        Shed::Done => {
            let space = state.disk.space;
            let candidates = state.pods.values_mut().filter(|pod| evictable(pod));
            let victim = candidates
                .filter_map(|pod| Some((rank(pod, short)?, pod)))
                .max_by_key(|(rank, _)| *rank);
            if let Some((_, pod)) = victim {
                pod.evicted = Some(for_want(pod, short, space));
                // What it used, others may not.
                state.disk.shed = Shed::Due;
                state.disk.short_in_a_row = 0;
            }
        }
    }
}

pub(super) fn evictable(pod: &Pod) -> bool {
    pod.evicted.is_none() && pod.over.is_none() && !pod.stopping && !pod.released && pod.config.is_some()
}

/// Too little is free. File systems that count no inodes say 0 of both.
fn short(space: DiskSpace) -> Option<Short> {
    if space.free_bytes < space.kept_bytes {
        Some(Short::Bytes)
    } else {
        (space.free_entries < space.kept_entries).then_some(Short::Entries)
    }
}

/// Which of its own limits a pod is above, in the words of Kubernetes.
fn exceeded(config: &PodConfig, usage: &PodUsage) -> Option<String> {
    if usage.entries > MAX_ENTRIES {
        return Some(format!(
            "Pod has more than {MAX_ENTRIES} files and directories in its ephemeral local storage, or nests them too deeply to be counted, or has more than that many open."
        ));
    }
    for (name, volume) in &config.volumes {
        if let Volume::EmptyDir { limit_bytes } = volume
            && *limit_bytes > 0
            && usage.volume(name) > *limit_bytes
        {
            let limit = quantity(*limit_bytes);
            return Some(format!(
                "Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}."
            ));
        }
    }
    let limits = config
        .containers
        .iter()
        .map(|c| (c.role, c.ephemeral_storage.limit_bytes));
    let limit_bytes = most_at_once(limits);
    if limit_bytes > 0 && total(config, usage) > limit_bytes {
        let limit = quantity(limit_bytes);
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}."
        ));
    }
    let lasting = config.containers.iter().filter(|c| c.role != ContainerRole::Init);
    lasting
        .map(|c| (&c.name, c.ephemeral_storage.limit_bytes))
        .find(|(name, limit_bytes)| *limit_bytes > 0 && usage.container(name) > *limit_bytes)
        .map(|(name, limit_bytes)| {
            let limit = quantity(limit_bytes);
            format!("Container {name} exceeded its local ephemeral storage limit {limit:?}.")
        })
}

/// Containers and volumes on the disk; what comes from ConfigMaps and the like does not count.
fn total(config: &PodConfig, usage: &PodUsage) -> u64 {
    let volumes = config.volumes.iter();
    let volumes = volumes.filter(|(_, v)| matches!(v, Volume::EmptyDir { .. }));
    let containers = config.containers.iter().map(|c| usage.container(&c.name));
    containers
        .chain(volumes.map(|(name, _)| usage.volume(name)))
        .fold(0, u64::saturating_add)
}

/// Who goes first, by: takes more than it asked for; of those that do not, carries no calls; takes most beyond it. `None`: it
/// has so little that its end would not help.
fn rank(pod: &Pod, short: Short) -> Option<(bool, Reverse<bool>, i128)> {
    let (config, usage) = (pod.config.as_ref()?, pod.usage.as_ref()?);
    let requests = config
        .containers
        .iter()
        .map(|c| (c.role, c.ephemeral_storage.request_bytes));
    // Nobody asks for files.
    let (used, worth, asked) = match short {
        Short::Bytes => (total(config, usage), WORTH_BYTES, most_at_once(requests)),
        Short::Entries => (usage.entries, WORTH_ENTRIES, 0),
    };
    let beyond = i128::from(used) - i128::from(asked);
    let carries_calls = pod.sessions.count.is_some_and(|count| count > 0);
    let greedy = beyond > 0;
    (used >= worth).then_some((greedy, Reverse(carries_calls && !greedy), beyond))
}

fn low(short: Short, space: DiskSpace) -> String {
    match short {
        Short::Bytes => format!(
            "The node was low on resource: ephemeral-storage. Threshold quantity: {}, available: {}.",
            quantity(space.kept_bytes),
            quantity(space.free_bytes)
        ),
        Short::Entries => format!(
            "The node was low on resource: inodes. Threshold quantity: {}, available: {}.",
            space.kept_entries, space.free_entries
        ),
    }
}

fn for_want(pod: &Pod, short: Short, space: DiskSpace) -> String {
    let mut message = low(short, space);
    let (Some(config), Some(usage), Short::Bytes) = (&pod.config, &pod.usage, short) else {
        return message;
    };
    for container in &config.containers {
        let (used, asked) = (
            usage.container(&container.name),
            container.ephemeral_storage.request_bytes,
        );
        if used > asked {
            message += &format!(
                " Container {} was using {}, request is {}, has larger consumption of ephemeral-storage.",
                container.name,
                quantity(used),
                quantity(asked)
            );
        }
    }
    message
}

/// An amount as a quantity of Kubernetes, the shortest: `10Mi`, `10M`, `12345`.
pub(super) fn quantity(bytes: u64) -> String {
    let units = [
        ("Gi", 1 << 30),
        ("Mi", 1 << 20),
        ("Ki", 1 << 10),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("k", 1000),
    ];
    let whole = units
        .into_iter()
        .filter(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    let texts = whole.map(|(name, unit)| format!("{}{name}", bytes / unit));
    texts.min_by_key(String::len).unwrap_or_else(|| bytes.to_string())
}
