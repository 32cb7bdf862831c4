//! Subnets behind pods, as wanted: no entry for each address, the longest prefix counts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aya::maps::lpm_trie::Key;
use gantry_ebpf_common::MAX_SUBNETS;
use gantry_ebpf_common::layout::{Place, Pod, REALM_BITS, Realm, Sender};

use crate::claims::{Limits, PodSubnets, Subnet, SubnetLeftOut, admit};
use crate::datapath::Datapath;
use crate::error::DatapathError;
use crate::lock::Lock;
use crate::maps::{self, failed};
use crate::senders::{Sending, realm};

/// Subnets that the pods of one group have on a node.
pub const MAX_GROUP_SUBNETS: usize = 512;

const LIMITS: Limits = Limits {
    group: MAX_GROUP_SUBNETS,
    all: MAX_SUBNETS as usize,
};

/// How much a sync of subnets changed; all zero when the kernel had it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetReport {
    /// Subnets that are new, or behind another pod than before.
    pub written: usize,
    /// Subnets that are gone.
    pub removed: usize,
    /// What is not in force.
    pub left_out: Vec<SubnetLeftOut>,
}

impl Datapath {
    /// Makes the kernel's subnets those of the node's pods `desired`, which are all that there are on the pod network, with subnets
    /// or without; what cannot be in force is left out and named. What is in force and wanted is not touched.
    ///
    /// A pod need not be there yet; until then what is for those behind it is dropped. When it goes, so do its subnets.
    pub fn sync_subnets(&self, desired: &[PodSubnets]) -> Result<SubnetReport, DatapathError> {
        let _lock = Lock::take(&self.dir)?;
        self.write_realms(desired)?;
        let observed = self.subnets()?;
        let (wanted, left_out) = admit(|subnet| observed.get(subnet).copied(), desired, LIMITS);
        let mut report = SubnetReport {
            left_out,
            ..SubnetReport::default()
        };
        let mut gone = Vec::new();
        let mut map = maps::lpm_trie::<Place, u32>(&self.dir, maps::SUBNETS)?;
        // First: the maps have no room for both.
        for (subnet, owner) in &observed {
            match wanted.get(subnet) {
                Some(still) if still == owner => continue,
                Some(_) => {}
                None => {
                    report.removed += 1;
                    maps::forget_prefix(&mut map, maps::SUBNETS, &key(subnet))?;
                }
            }
            gone.push((*subnet, *owner));
        }
        for (subnet, owner) in &wanted {
            if observed.get(subnet) != Some(owner) {
                report.written += 1;
                map.insert(&key(subnet), owner, 0)
                    .map_err(failed("write", maps::SUBNETS))?;
            }
        }
        self.forget_flows_behind(&gone)?;
        Ok(report)
    }

    /// Forgets what is behind the pod with this address, and its flows.
    pub(crate) fn forget_subnets_of(&self, address: Ipv4Addr) -> Result<(), DatapathError> {
        let owner = u32::from(address);
        let mut gone: Vec<(Subnet, u32)> = self.subnets()?.into_iter().collect();
        gone.retain(|(_, of)| *of == owner);
        let mut map = maps::lpm_trie::<Place, u32>(&self.dir, maps::SUBNETS)?;
        for (subnet, _) in &gone {
            maps::forget_prefix(&mut map, maps::SUBNETS, &key(subnet))?;
        }
        self.forget_flows_behind(&gone)
    }

    /// The realm of each pod that has one, by its own address.
    pub(crate) fn realms(&self) -> Result<BTreeMap<u32, Realm>, DatapathError> {
        let senders = maps::hash::<u32, Sender>(&self.dir, maps::SENDERS)?;
        let senders: BTreeMap<u32, Realm> = maps::entries(&senders, maps::SENDERS)?
            .into_iter()
            .map(|(interface, sender)| (interface, sender.realm))
            .collect();
        let pods = maps::hash::<u32, Pod>(&self.dir, maps::PODS)?;
        let pods = maps::entries(&pods, maps::PODS)?.into_iter();
        Ok(pods
            .filter_map(|(ip, pod)| Some((ip, *senders.get(&pod.ifindex)?)))
            .collect())
    }

    fn subnets(&self) -> Result<BTreeMap<Subnet, u32>, DatapathError> {
        let map = maps::lpm_trie::<Place, u32>(&self.dir, maps::SUBNETS)?;
        let mut found = BTreeMap::new();
        for item in map.iter() {
            match item {
                Ok((key, owner)) => found.insert(subnet(&key), owner),
                // Its pod went a moment ago.
                Err(e) if maps::is_absent(&e) => continue,
                Err(e) => return Err(failed("read", maps::SUBNETS)(e)),
            };
        }
        Ok(found)
    }

    /// Pods that an earlier version has made have none yet.
    fn write_realms(&self, desired: &[PodSubnets]) -> Result<(), DatapathError> {
        let known = self.realms()?;
        for pod in desired {
            if known.get(&u32::from(pod.address)) == Some(&realm(&pod.realm)) {
                continue;
            }
            if let Some(entry) = self.pod(pod.address)?.filter(|entry| !entry.is_host) {
                let sending = Sending {
                    group: Some(&pod.group),
                    realm: Some(&pod.realm),
                };
                self.write_sender(entry.ifindex, &sending)?;
            }
        }
        Ok(())
    }
}

fn key(subnet: &Subnet) -> Key<Place> {
    let place = Place::of(&subnet.realm, subnet.net);
    Key::new(REALM_BITS + u32::from(subnet.prefix), place)
}

fn subnet(key: &Key<Place>) -> Subnet {
    let place = key.data();
    Subnet {
        realm: place.realm,
        net: u32::from_be_bytes(place.address),
        prefix: key.prefix_len().saturating_sub(REALM_BITS) as u8,
    }
}
