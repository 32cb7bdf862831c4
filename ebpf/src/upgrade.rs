//! What a version with the layout before this one has pinned: services and flows are taken over while packets go on.
//!
//! Maps whose form is still the same are used on. The others are set aside under another name, where the old
//! programs go on reading them; the new ones are filled from them before the new programs take over.

use std::path::{Path, PathBuf};

use aya::maps::PerCpuArray;

use crate::error::DatapathError;
use crate::maps::{self, failed};
use crate::pins;

/// The layout that can be taken over.
pub const FORMER_LAYOUT: u32 = 4;

/// The one map whose size is another one now, under the name where it is set aside.
const FORMER_DROPS: &str = "DROPS_4";

/// Makes room for the maps of this version. Repeatable: what an attempt that did not end has made goes.
pub fn set_aside(dir: &Path) -> Result<(), DatapathError> {
    let (from, to) = (dir.join(maps::DROPS), dir.join(FORMER_DROPS));
    if to.exists() {
        return pins::remove_file(&from);
    }
    std::fs::rename(&from, &to).map_err(pins::failed("set aside", &from))
}

/// Fills the maps of this version from those set aside.
pub fn take_over(dir: &Path) -> Result<(), DatapathError> {
    let former: PerCpuArray<_, u64> = maps::per_cpu_array(dir, FORMER_DROPS)?;
    let mut new: PerCpuArray<_, u64> = maps::per_cpu_array(dir, maps::DROPS)?;
    for reason in 0..former.len() {
        let values = former.get(&reason, 0).map_err(failed("read", FORMER_DROPS))?;
        new.set(reason, values, 0).map_err(failed("write", maps::DROPS))?;
    }
    Ok(())
}

/// The pins of the former layout that this version has no use for.
pub fn leftovers(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::iter::once(dir.join(FORMER_DROPS))
}
