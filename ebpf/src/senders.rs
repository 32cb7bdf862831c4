//! Who sends through an interface: on whose share of the flow tables, and whose subnets it reaches.

use gantry_ebpf_common::layout::{Realm, Sender};
use sha2::{Digest, Sha256};

use crate::datapath::Datapath;
use crate::error::DatapathError;
use crate::lock::Lock;
use crate::maps::{self, failed};

/// How a pod sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sending<'a> {
    /// Pods of one group have one share of the flow tables; `None`: it has one alone.
    pub group: Option<&'a str>,
    /// Pods of one realm reach what is behind each other; `None`: it reaches nothing behind others, and nothing can be behind it.
    pub realm: Option<&'a str>,
}

impl Datapath {
    /// Says how the pod behind this interface sends, before it does. One of which nothing is said has a share alone, and no realm.
    pub fn set_sender(&self, ifindex: u32, sending: &Sending<'_>) -> Result<(), DatapathError> {
        // Two that come at once are in one group, too.
        let _lock = Lock::take(&self.dir)?;
        self.write_sender(ifindex, sending)
    }

    /// The same, by whoever has the lock.
    pub(crate) fn write_sender(&self, ifindex: u32, sending: &Sending<'_>) -> Result<(), DatapathError> {
        let name = sending.group.map_or([0; 16], digest);
        let mut map = maps::hash::<u32, Sender>(&self.dir, maps::SENDERS)?;
        let known = match sending.group {
            Some(_) => maps::entries(&map, maps::SENDERS)?,
            None => Vec::new(),
        };
        let first = known.iter().find(|(_, sender)| sender.name == name);
        let sender = Sender {
            group: first.map_or(ifindex, |(_, sender)| sender.group),
            realm: sending.realm.map_or([0; 3], realm),
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

/// The number of a realm. Made of its name alone, so nobody has to remember which was given to whom; long enough that nobody finds a
/// name that has another's.
pub(crate) fn realm(name: &str) -> Realm {
    let digest: [u8; 32] = Sha256::digest(format!("realm {name}")).into();
    let word = |at: usize| u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]);
    [word(0), word(4), word(8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_have_numbers_of_their_own() {
        assert_eq!(realm("a"), realm("a"));
        assert_ne!(realm("a"), realm("b"));
        assert_ne!(realm(""), [0; 3]);
    }
}
