//! Typed access to the pinned maps, opened when used.

use std::path::Path;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use gantry_ebpf_common::MAX_FLOWS;

use crate::error::DatapathError;

/// Names of the maps as in `prog/src/maps.rs`.
pub const CONFIG: &str = "CONFIG";
pub const PODS: &str = "PODS";
pub const SENDERS: &str = "SENDERS";
pub const SUBNETS: &str = "SUBNETS";
pub const SERVICES: &str = "SERVICES";
pub const TABLES: &str = "TABLES";
pub const BACKENDS: &str = "BACKENDS";
pub const BACKEND_STATS: &str = "BACKEND_STATS";
pub const FLOWS: &str = "FLOWS";
pub const REVERSE: &str = "REVERSE";
pub const FLOWS_BEYOND: &str = "FLOWS_BEYOND";
pub const REVERSE_BEYOND: &str = "REVERSE_BEYOND";
pub const SHARES: &str = "SHARES";
pub const FLAGS: &str = "FLAGS";
pub const FRAGMENTS: &str = "FRAGMENTS";
pub const DROPS: &str = "DROPS";
pub const PATHS: &str = "PATHS";

/// All of them.
pub const ALL: [&str; 17] = [
    CONFIG,
    PODS,
    SENDERS,
    SUBNETS,
    SERVICES,
    TABLES,
    BACKENDS,
    BACKEND_STATS,
    FLOWS,
    REVERSE,
    FLOWS_BEYOND,
    REVERSE_BEYOND,
    SHARES,
    FLAGS,
    FRAGMENTS,
    DROPS,
    PATHS,
];

/// Makes the error of an operation on a map.
pub fn failed(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map {
        operation,
        map,
        source,
    }
}

fn open(dir: &Path, name: &'static str) -> Result<Map, DatapathError> {
    MapData::from_pin(dir.join(name))
        .and_then(Map::from_map_data)
        .map_err(failed("open", name))
}

macro_rules! opener {
    ($(#[$doc:meta])* $function:ident, $kind:ident < $($p:ident),* >) => {
        $(#[$doc])*
        pub fn $function<$($p: Pod),*>(dir: &Path, name: &'static str)
            -> Result<$kind<MapData, $($p),*>, DatapathError> {
            $kind::try_from(open(dir, name)?).map_err(failed("open", name))
        }
    };
}

opener!(/** Opens a hash map (LRU or not). */ hash, HashMap<K, V>);
opener!(/** Opens a map of longest prefixes. */ lpm_trie, LpmTrie<K, V>);
opener!(/** Opens an array. */ array, Array<V>);
opener!(/** Opens a per-CPU array. */ per_cpu_array, PerCpuArray<V>);
opener!(/** Opens a per-CPU hash map. */ per_cpu_hash, PerCpuHashMap<K, V>);

/// The entries of a map that the kernel changes meanwhile: each one that stays is among them. An entry
/// that vanishes under the reader sends it back to the start, hence the bound.
pub fn entries<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<Vec<(K, V)>, DatapathError> {
    let mut found = Vec::new();
    for item in map.iter().take(2 * MAX_FLOWS as usize) {
        match item {
            Ok(entry) => found.push(entry),
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(failed("read", name)(e)),
        }
    }
    Ok(found)
}

/// Removes an entry; fine if there is none.
pub fn forget<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<(), DatapathError> {
    match map.remove(key) {
        Err(e) if !is_absent(&e) => Err(failed("remove an entry of", name)(e)),
        _ => Ok(()),
    }
}

/// Removes a prefix; fine if there is none.
pub fn forget_prefix<K: Pod, V: Pod>(
    map: &mut LpmTrie<MapData, K, V>,
    name: &'static str,
    key: &Key<K>,
) -> Result<(), DatapathError> {
    match map.remove(key) {
        Err(e) if !is_absent(&e) => Err(failed("remove an entry of", name)(e)),
        _ => Ok(()),
    }
}

/// Does the error say that there is no such entry?
pub fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(e) => e.io_error.raw_os_error() == Some(nix::libc::ENOENT),
        _ => false,
    }
}
