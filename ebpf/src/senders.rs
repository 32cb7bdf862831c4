//! What pods may send: on whose share of the flow tables, from which addresses.

use gantry_ebpf_common::layout::{FORWARDS, Sender};
use sha2::{Digest, Sha256};

use crate::datapath::Datapath;
use crate::error::DatapathError;
use crate::lock::Lock;
use crate::maps::{self, failed};

/// How a pod sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending<'a> {
    /// Pods of one group have one share of the flow tables; `None`: it has one alone.
    pub group: Option<&'a str>,
    /// It forwards what others send (a UPF, a GGSN), from other addresses than its own. Not from those of pods, of services or of the
    /// node, nor from where the node knows no way back to.
    pub forwards: bool,
}

impl Datapath {
    /// Says how the pod behind this interface sends, before it does. Of an interface of which nothing is said a pod sends from its own
    /// address, and has a share alone.
    pub fn set_sender(&self, ifindex: u32, sending: &Sending<'_>) -> Result<(), DatapathError> {
        let name = sending.group.map_or([0; 16], digest);
        // Two that come at once are in one group, too.
        let _lock = Lock::take(&self.dir)?;
        let mut map = maps::hash::<u32, Sender>(&self.dir, maps::SENDERS)?;
        let known = match sending.group {
            Some(_) => maps::entries(&map, maps::SENDERS)?,
            None => Vec::new(),
        };
        let first = known.iter().find(|(_, sender)| sender.name == name);
        let sender = Sender {
            group: first.map_or(ifindex, |(_, sender)| sender.group),
            flags: if sending.forwards { FORWARDS } else { 0 },
            name,
        };
        map.insert(ifindex, sender, 0)
            .map_err(failed("write", maps::SENDERS))
    }

    pub(crate) fn forget_sender(&self, ifindex: u32) -> Result<(), DatapathError> {
        let mut map = maps::hash::<u32, Sender>(&self.dir, maps::SENDERS)?;
        maps::forget(&mut map, maps::SENDERS, &ifindex)
    }
}

/// Long enough that nobody finds a name that has another's.
fn digest(name: &str) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(name).into();
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}
