//! What a version with the layout before this one has pinned: services and flows are taken over while packets go on.
//!
//! Maps whose form is still the same are used on. The others are set aside under another name, where the old
//! programs go on reading them; the new ones are filled from them before the new programs take over.

use std::path::{Path, PathBuf};

use gantry_ebpf_common::layout::Sender;

use crate::error::DatapathError;
use crate::maps::{self, failed};
use crate::pins;

/// The layout that can be taken over.
pub const FORMER_LAYOUT: u32 = 5;

/// The one map with another form now whose entries go on, under the name where it is set aside.
const FORMER_SENDERS: &str = "SENDERS_5";

/// Its values.
#[repr(C)]
#[derive(Clone, Copy)]
struct FormerSender {
    group: u32,
    /// Whether it forwarded, for which nothing is let through any more.
    _flags: u32,
    name: [u8; 16],
}

// SAFETY: repr(C), integers and an array of integers, without padding.
unsafe impl aya::Pod for FormerSender {}

/// Makes room for the maps of this version. Repeatable: what an attempt that did not end has made goes.
pub fn set_aside(dir: &Path) -> Result<(), DatapathError> {
    // What of a datagram is under way is over in milliseconds; the old programs keep theirs.
    pins::remove_file(&dir.join(maps::FRAGMENTS))?;
    let (from, to) = (dir.join(maps::SENDERS), dir.join(FORMER_SENDERS));
    if to.exists() {
        return pins::remove_file(&from);
    }
    std::fs::rename(&from, &to).map_err(pins::failed("set aside", &from))
}

/// Fills the maps of this version from those set aside. Which realm a pod is of says whoever syncs subnets next.
pub fn take_over(dir: &Path) -> Result<(), DatapathError> {
    let former = maps::hash::<u32, FormerSender>(dir, FORMER_SENDERS)?;
    let mut new = maps::hash::<u32, Sender>(dir, maps::SENDERS)?;
    for (interface, sender) in maps::entries(&former, FORMER_SENDERS)? {
        let sender = Sender {
            group: sender.group,
            realm: [0; 3],
            name: sender.name,
        };
        new.insert(interface, sender, 0)
            .map_err(failed("write", maps::SENDERS))?;
    }
    Ok(())
}

/// The pins of the former layout that this version has no use for.
pub fn leftovers(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::iter::once(dir.join(FORMER_SENDERS))
}
