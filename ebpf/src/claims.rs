//! Pure: which of the wanted subnets are in force. Each stands or falls alone: what cannot is left out and named, and everything
//! else goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use gantry_ebpf_common::layout::Realm;

use crate::senders::realm;

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one group.
    pub group: usize,
    /// Of all.
    pub all: usize,
}

/// A subnet as its realm knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// Whose.
    pub realm: Realm,
    /// First address.
    pub net: u32,
    /// Length of its prefix in bits.
    pub prefix: u8,
}

impl Subnet {
    /// Is the address one of its own?
    pub fn holds(&self, address: u32) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0);
        address & mask == self.net & mask
    }
}

/// A pod, and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSubnets {
    /// Own address of the pod; it need not be there yet.
    pub address: Ipv4Addr,
    /// Pods of one realm reach what is behind each other, those of others never.
    pub realm: String,
    /// Pods of one group have one share of what all use together.
    pub group: String,
    /// Network address and prefix length of each.
    pub subnets: Vec<(Ipv4Addr, u8)>,
}

/// A wanted subnet that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetLeftOut {
    /// Own address of the pod that wants it.
    pub pod: Ipv4Addr,
    /// Which: network address and prefix length.
    pub subnet: (Ipv4Addr, u8),
    /// Why.
    pub why: SubnetWhy,
}

/// Why a subnet is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubnetWhy {
    /// It is behind another pod of the realm.
    Taken {
        /// Own address of that pod.
        by: Ipv4Addr,
    },
    /// The group has as many as it may have.
    Share {
        /// How many.
        most: usize,
    },
    /// The node's table is full; what is in force stays.
    Full,
}

impl fmt::Display for SubnetLeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (net, prefix) = self.subnet;
        write!(f, "subnet {net}/{prefix} does not lead to it: ")?;
        match self.why {
            SubnetWhy::Taken { by } => write!(f, "the pod at {by} has it"),
            SubnetWhy::Share { most } => write!(f, "together with others it has {most} already"),
            SubnetWhy::Full => write!(f, "the node's table of subnets is full"),
        }
    }
}

/// The subnets that are to be in force, with the own address of the pod that each is behind, and what is left out. Those that the
/// kernel has (`has`: behind whom) stay where they are, so that none has to leave for a newer one; then the order of the list counts.
pub fn admit(
    has: impl Fn(&Subnet) -> Option<u32>,
    desired: &[PodSubnets],
    limits: Limits,
) -> (BTreeMap<Subnet, u32>, Vec<SubnetLeftOut>) {
    let mut claims: Vec<(&PodSubnets, (Ipv4Addr, u8), Subnet)> = Vec::new();
    for pod in desired {
        let realm = realm(&pod.realm);
        claims.extend(pod.subnets.iter().map(|(net, prefix)| {
            let subnet = Subnet {
                realm,
                net: u32::from(*net),
                prefix: *prefix,
            };
            (pod, (*net, *prefix), subnet)
        }));
    }
    claims.sort_by_key(|(pod, _, subnet)| has(subnet) != Some(u32::from(pod.address)));
    let mut admitted: BTreeMap<Subnet, u32> = BTreeMap::new();
    let mut of_group: BTreeMap<&str, usize> = BTreeMap::new();
    let mut left_out = Vec::new();
    for (pod, subnet, key) in claims {
        let address = u32::from(pod.address);
        let used = of_group.entry(&pod.group).or_default();
        let why = match admitted.get(&key) {
            Some(by) if *by == address => continue,
            Some(by) => SubnetWhy::Taken {
                by: Ipv4Addr::from(*by),
            },
            None if *used == limits.group => SubnetWhy::Share { most: limits.group },
            None if admitted.len() == limits.all => SubnetWhy::Full,
            None => {
                *used += 1;
                admitted.insert(key, address);
                continue;
            }
        };
        left_out.push(SubnetLeftOut {
            pod: pod.address,
            subnet,
            why,
        });
    }
    (admitted, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Limits = Limits { group: 100, all: 100 };
    const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 45, 0, 0), 16);

    fn pod(last: u8, realm: &str, subnets: &[(Ipv4Addr, u8)]) -> PodSubnets {
        PodSubnets {
            address: Ipv4Addr::new(10, 85, 0, last),
            realm: realm.to_owned(),
            group: "group".to_owned(),
            subnets: subnets.to_vec(),
        }
    }

    fn nets(count: u8) -> Vec<(Ipv4Addr, u8)> {
        (0..count).map(|i| (Ipv4Addr::new(10, i, 0, 0), 16)).collect()
    }

    fn owners(admitted: &BTreeMap<Subnet, u32>) -> Vec<u8> {
        admitted.values().map(|ip| ip.to_be_bytes()[3]).collect()
    }

    #[test]
    fn the_first_of_a_realm_keeps_it_and_the_other_is_told_who_that_is() {
        let wanted = [pod(2, "a", &[POOL]), pod(3, "a", &[POOL, POOL])];
        let (admitted, left_out) = admit(|_| None, &wanted, ROOMY);
        assert_eq!(owners(&admitted), [2]);
        assert_eq!(
            left_out[0].to_string(),
            "subnet 10.45.0.0/16 does not lead to it: the pod at 10.85.0.2 has it"
        );
        // Whoever has it is the first.
        let has = |_: &Subnet| Some(u32::from(Ipv4Addr::new(10, 85, 0, 3)));
        let (admitted, left_out) = admit(has, &wanted, ROOMY);
        assert_eq!((owners(&admitted), left_out.len()), (vec![3], 1));
        // One that is gone keeps nothing.
        let has = |_: &Subnet| Some(u32::from(Ipv4Addr::new(10, 85, 0, 9)));
        assert_eq!(owners(&admit(has, &wanted, ROOMY).0), [2]);
    }

    #[test]
    fn another_realm_and_another_length_are_other_subnets() {
        let within = (POOL.0, 24);
        let wanted = [pod(2, "a", &[POOL]), pod(3, "b", &[POOL]), pod(4, "a", &[within])];
        let (admitted, left_out) = admit(|_| None, &wanted, ROOMY);
        assert_eq!((admitted.len(), left_out.len()), (3, 0));
    }

    #[test]
    fn a_subnet_that_is_listed_twice_by_one_pod_is_one() {
        let (admitted, left_out) = admit(|_| None, &[pod(2, "a", &[POOL, POOL])], ROOMY);
        assert_eq!((admitted.len(), left_out.len()), (1, 0));
    }

    #[test]
    fn what_is_beyond_a_bound_is_left_out_and_what_is_in_force_stays() {
        let limits = [Limits { group: 2, ..ROOMY }, Limits { all: 2, ..ROOMY }];
        let wanted = [pod(2, "a", &nets(2)), pod(3, "b", &nets(1))];
        let has = |subnet: &Subnet| (subnet.realm == realm("b")).then_some(u32::from(wanted[1].address));
        for limits in limits {
            let (admitted, left_out) = admit(has, &wanted, limits);
            assert_eq!(admitted.len(), 2);
            assert!(admitted.keys().any(|s| s.realm == realm("b")));
            assert_eq!((left_out.len(), left_out[0].pod), (1, wanted[0].address));
        }
        // Another group has its own.
        let other = PodSubnets {
            group: "other".to_owned(),
            ..wanted[1].clone()
        };
        let (_, left_out) = admit(|_| None, &[wanted[0].clone(), other], limits[0]);
        assert!(left_out.is_empty());
    }

    #[test]
    fn which_addresses_a_subnet_holds() {
        let subnet = |net: [u8; 4], prefix| Subnet {
            realm: [0; 3],
            net: u32::from_be_bytes(net),
            prefix,
        };
        let pool = subnet([10, 45, 0, 0], 16);
        assert!(pool.holds(0x0a2d_0001) && pool.holds(0x0a2d_ffff) && !pool.holds(0x0a2e_0000));
        let one = subnet([10, 45, 0, 7], 32);
        assert!(one.holds(0x0a2d_0007) && !one.holds(0x0a2d_0006));
    }
}
