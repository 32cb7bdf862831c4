//! What a version with the layout before this one has pinned: services and flows are taken over while packets go on.
//!
//! Maps whose form is still the same are used on. The others are set aside under another name, where the old
//! programs go on reading them; the new ones are filled from them before the new programs take over.

use std::path::{Path, PathBuf};

use aya::maps::PerCpuArray;
use gantry_ebpf_common::MAGLEV_SLOTS;
use gantry_ebpf_common::layout::{Backend, BackendStats, Service, ServiceKey, Table};

use crate::error::DatapathError;
use crate::maps::{self, failed};
use crate::pins;

/// The layout that can be taken over.
pub const FORMER_LAYOUT: u32 = 3;

/// Its Maglev tables: one array for all services.
const FORMER_TABLES: &str = "MAGLEV";

/// Maps of its whose size is another one now, and the names under which they are set aside.
const CHANGED: [(&str, &str); 4] = [
    (maps::SERVICES, "SERVICES_3"),
    (maps::BACKENDS, "BACKENDS_3"),
    (maps::BACKEND_STATS, "BACKEND_STATS_3"),
    (maps::DROPS, "DROPS_3"),
];

/// Makes room for the maps of this version. Repeatable: what an attempt that did not end has made goes.
pub fn set_aside(dir: &Path) -> Result<(), DatapathError> {
    for (name, aside) in CHANGED {
        let (from, to) = (dir.join(name), dir.join(aside));
        if to.exists() {
            pins::remove_file(&from)?;
        } else {
            std::fs::rename(&from, &to).map_err(pins::failed("set aside", &from))?;
        }
    }
    pins::remove_file(&dir.join(maps::TABLES))
}

/// Fills the maps of this version from those set aside.
pub fn take_over(dir: &Path) -> Result<(), DatapathError> {
    let [services, backends, stats, drops] = CHANGED.map(|(_, aside)| aside);
    let former = maps::hash::<ServiceKey, Service>(dir, services)?;
    let slots = maps::array::<u32>(dir, FORMER_TABLES)?;
    let mut tables = maps::hash::<u32, Table>(dir, maps::TABLES)?;
    for (_, service) in maps::entries(&former, services)? {
        let mut table: Table = [0; size_of::<Table>() / size_of::<u32>()];
        for (slot, id) in (0..MAGLEV_SLOTS).zip(&mut table) {
            let at = service.index * MAGLEV_SLOTS + slot;
            *id = slots.get(&at, 0).map_err(failed("read", FORMER_TABLES))?;
        }
        let written = tables.insert(service.index, table, 0);
        written.map_err(failed("write", maps::TABLES))?;
    }
    copy::<u32, Backend>(dir, backends, maps::BACKENDS)?;
    copy::<ServiceKey, Service>(dir, services, maps::SERVICES)?;
    let former = maps::per_cpu_hash::<u32, BackendStats>(dir, stats)?;
    let mut new = maps::per_cpu_hash::<u32, BackendStats>(dir, maps::BACKEND_STATS)?;
    for item in former.iter() {
        let (id, values) = item.map_err(failed("read", stats))?;
        new.insert(id, values, 0)
            .map_err(failed("write", maps::BACKEND_STATS))?;
    }
    let former: PerCpuArray<_, u64> = maps::per_cpu_array(dir, drops)?;
    let mut new: PerCpuArray<_, u64> = maps::per_cpu_array(dir, maps::DROPS)?;
    for reason in 0..former.len() {
        let values = former.get(&reason, 0).map_err(failed("read", drops))?;
        new.set(reason, values, 0).map_err(failed("write", maps::DROPS))?;
    }
    Ok(())
}

fn copy<K: aya::Pod, V: aya::Pod>(
    dir: &Path,
    from: &'static str,
    to: &'static str,
) -> Result<(), DatapathError> {
    let former = maps::hash::<K, V>(dir, from)?;
    let mut new = maps::hash::<K, V>(dir, to)?;
    for (key, value) in maps::entries(&former, from)? {
        new.insert(key, value, 0).map_err(failed("write", to))?;
    }
    Ok(())
}

/// The pins of the former layout that this version has no use for.
pub fn leftovers(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let names = CHANGED.map(|(_, aside)| aside);
    names
        .into_iter()
        .chain([FORMER_TABLES])
        .map(move |name| dir.join(name))
}
