//! Names and MAC addresses, all derived: whoever knows the configuration and the target can find and
//! remove what an attachment made, without any record of it.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use crate::environment::Target;

/// Hardware address.
pub type Mac = [u8; 6];

/// Longest interface name (IFNAMSIZ - 1).
const NAME_BYTES: usize = 15;

/// The device through which the host talks to pods.
pub fn host_device(instance: &str) -> String {
    format!("gh{instance}")
}

/// Its peer, which carries the program.
pub fn host_peer(instance: &str) -> String {
    format!("gp{instance}")
}

/// What the host's ends of all pods' links start with.
pub fn pod_link_prefix(instance: &str) -> String {
    format!("g{instance}")
}

/// Host's end of a pod's link: always of full length, so never the name of the host device.
pub fn pod_link(instance: &str, target: &Target) -> String {
    let digest = digest(&[instance, &target.container, &target.ifname]);
    let mut name = pod_link_prefix(instance) + &hex::encode(digest);
    name.truncate(NAME_BYTES);
    name
}

/// Is this the name of some pod's link of the instance?
pub fn is_pod_link(instance: &str, name: &str) -> bool {
    let rest = name.strip_prefix(&pod_link_prefix(instance));
    name.len() == NAME_BYTES && rest.is_some_and(|r| r.chars().all(|c| c.is_ascii_hexdigit()))
}

/// The nft table of an instance.
pub fn nft_table(instance: &str) -> String {
    format!("gantry_{instance}")
}

/// MAC address of a link that has no address of its own: locally administered, from its name.
pub fn mac_of_link(name: &str) -> Mac {
    let d = digest(&[name]);
    [0x0e, d[0], d[1], d[2], d[3], d[4]]
}

/// MAC address of a pod, from its address.
pub fn mac_of_pod(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Usual notation.
pub fn show_mac(mac: &Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_do_not_meet() {
        let a = Target {
            container: "c1".into(),
            ifname: "eth0".into(),
        };
        let b = Target {
            container: "c1".into(),
            ifname: "eth1".into(),
        };
        for instance in ["a", "ab12cd"] {
            let name = pod_link(instance, &a);
            assert_eq!(name.len(), NAME_BYTES);
            assert!(is_pod_link(instance, &name));
            assert_ne!(name, pod_link(instance, &b));
            assert!(!is_pod_link(instance, &host_device(instance)));
        }
        assert!(!is_pod_link("ab12cd", &pod_link("xy", &a)));
    }

    #[test]
    fn macs_are_local_unicast() {
        for mac in [mac_of_link("x"), mac_of_pod(Ipv4Addr::new(10, 85, 0, 2))] {
            assert_eq!(mac[0] & 3, 2);
        }
        assert_eq!(
            show_mac(&mac_of_pod(Ipv4Addr::new(10, 85, 0, 2))),
            "0a:58:0a:55:00:02"
        );
    }
}
