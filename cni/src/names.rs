//! Names and MAC addresses, all derived: whoever knows the configuration and the target can find and
//! remove what an attachment made, without any record of it.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use crate::environment::Target;

/// Hardware address.
pub type Mac = [u8; 6];

/// Length of what tells an instance's pods apart. Fixed, so that no instance's names are another's; long enough
/// that none is a host device's. The longest name has 15 bytes (IFNAMSIZ - 1).
const POD_DIGITS: usize = 8;

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

/// Host's end of a pod's link.
pub fn pod_link(instance: &str, target: &Target) -> String {
    let digest = digest(&[instance, &target.container, &target.ifname]);
    pod_link_prefix(instance) + &hex::encode(&digest[..POD_DIGITS / 2])
}

/// Is this the name of some pod's link of the instance?
pub fn is_pod_link(instance: &str, name: &str) -> bool {
    let rest = name.strip_prefix(&pod_link_prefix(instance));
    rest.is_some_and(|r| r.len() == POD_DIGITS && r.chars().all(|c| c.is_ascii_hexdigit()))
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
            assert!(name.len() <= 15);
            assert!(is_pod_link(instance, &name));
            assert_ne!(name, pod_link(instance, &b));
            assert!(!is_pod_link(instance, &host_device(instance)));
        }
        assert!(!is_pod_link("ab12cd", &pod_link("xy", &a)));
        // One instance's name begins with the other's, and what follows looks like digits.
        for (short, long) in [("ab", "ab12cd"), ("a", "ab12cd"), ("h", "h12345")] {
            assert!(!is_pod_link(short, &pod_link(long, &a)));
            assert!(!is_pod_link(long, &pod_link(short, &a)));
            assert!(!is_pod_link(short, &host_device(long)));
        }
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
