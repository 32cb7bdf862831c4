//! The maps, pinned by these names. Layouts: `gantry_ebpf_common::layout`.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap};
use gantry_ebpf_common::layout::{
    Backend, BackendStats, Config, Flow, FlowKey, Fragment, FragmentKey, Place, Pod, Reverse, Sender,
    Service, ServiceKey, Table,
};
use gantry_ebpf_common::reason::{DropReason, Path};
use gantry_ebpf_common::share::Share;
use gantry_ebpf_common::{
    MAX_BACKENDS, MAX_FLOWS, MAX_FLOWS_BEYOND, MAX_FRAGMENTS, MAX_PODS, MAX_REASONS, MAX_SERVICES,
    MAX_SUBNETS,
};

#[map]
pub static CONFIG: Array<Config> = Array::pinned(1, 0);
#[map]
pub static PODS: HashMap<u32, Pod> = HashMap::pinned(MAX_PODS, 0);
#[map]
pub static SENDERS: HashMap<u32, Sender> = HashMap::pinned(MAX_PODS, 0);
/// Own address of the pod that a subnet is behind.
#[map]
pub static SUBNETS: LpmTrie<Place, u32> = LpmTrie::pinned(MAX_SUBNETS, 0);
#[map]
pub static SERVICES: HashMap<ServiceKey, Service> = HashMap::pinned(2 * MAX_SERVICES, BPF_F_NO_PREALLOC);
#[map]
pub static TABLES: HashMap<u32, Table> = HashMap::pinned(2 * MAX_SERVICES, BPF_F_NO_PREALLOC);
#[map]
pub static BACKENDS: HashMap<u32, Backend> = HashMap::pinned(2 * MAX_BACKENDS, BPF_F_NO_PREALLOC);
#[map]
pub static BACKEND_STATS: PerCpuHashMap<u32, BackendStats> =
    PerCpuHashMap::pinned(2 * MAX_BACKENDS, BPF_F_NO_PREALLOC);
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(MAX_FLOWS, 0);
#[map]
pub static REVERSE: LruHashMap<FlowKey, Reverse> = LruHashMap::pinned(MAX_FLOWS, 0);
/// Of flows beyond their groups' shares: see `gantry_ebpf_common::share`.
#[map]
pub static FLOWS_BEYOND: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(MAX_FLOWS_BEYOND, 0);
#[map]
pub static REVERSE_BEYOND: LruHashMap<FlowKey, Reverse> = LruHashMap::pinned(MAX_FLOWS_BEYOND, 0);
#[map]
pub static SHARES: LruHashMap<u32, Share> = LruHashMap::pinned(MAX_PODS, 0);
/// [`BEYOND`] and [`UNBOUND`].
#[map]
pub static FLAGS: Array<u32> = Array::pinned(2, 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment> = LruHashMap::pinned(MAX_FRAGMENTS, 0);
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(MAX_REASONS, 0);
#[map]
pub static PATHS: PerCpuArray<u64> = PerCpuArray::pinned(Path::ALL.len() as u32, 0);

/// Of map FLAGS: there are, or were, flows beyond a share. Until then nobody looks for them.
pub const BEYOND: u32 = 0;
/// Of map FLAGS: nobody has a share. Set by tests only.
pub const UNBOUND: u32 = 1;

/// Is this flag set?
#[inline(always)]
pub fn flag(which: u32) -> bool {
    FLAGS.get(which).is_some_and(|set| *set != 0)
}

/// The group that has its share together: everybody who is in none is one.
#[inline(always)]
pub fn group(entered: u32) -> u32 {
    // SAFETY: userspace replaces entries whole.
    unsafe { SENDERS.get(&entered) }.map_or(entered, |sender| sender.group)
}

/// Adds one to an entry of a counter map.
#[inline(always)]
fn increment(map: &PerCpuArray<u64>, index: u32) {
    if let Some(value) = map.get_ptr_mut(index) {
        // SAFETY: the entry is this CPU's, and a program is not interrupted by itself on one CPU.
        unsafe { *value += 1 }
    }
}

/// Counts a dropped packet.
#[inline(always)]
pub fn count_drop(reason: DropReason) {
    increment(&DROPS, reason as u32);
}

/// Counts a packet that goes on.
#[inline(always)]
pub fn count_path(path: Path) {
    increment(&PATHS, path as u32);
}
