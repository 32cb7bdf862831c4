//! Devices in a network behind a pod, which forwards for them.

use std::net::Ipv4Addr;

use gantry_ebpf::PodSubnets;

use super::netns::{Netns, run_ip};
use super::{Node, Pod};

/// A device with this address in a /24, whose first address the pod has. `mtu`: of the link between them, bytes.
pub fn behind(node: &Node, pod: &Pod, address: Ipv4Addr, mtu: u32) -> Netns {
    let device = Netns::new(&node.path().join(format!("device-{}-{address}", pod.id)));
    let [a, b, c, _] = address.octets();
    let first = Ipv4Addr::new(a, b, c, 1).to_string();
    let path = device.path().to_str().unwrap().to_owned();
    let (near, mtu) = (format!("d{}", u32::from(address) & 0xffff), mtu.to_string());
    pod.ns.run(|| {
        run_ip(&[
            "link", "add", &near, "mtu", &mtu, "type", "veth", "peer", "name", "up0", "mtu", &mtu,
        ]);
        let file = std::fs::File::open(&path).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let there = format!("/proc/{}/fd/{fd}", std::process::id());
        run_ip(&["link", "set", "up0", "netns", &there]);
        run_ip(&["addr", "add", &format!("{first}/24"), "dev", &near]);
        run_ip(&["link", "set", &near, "up"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    });
    device.run(|| {
        run_ip(&["addr", "add", &format!("{address}/24"), "dev", "up0"]);
        run_ip(&["link", "set", "up0", "up"]);
        run_ip(&["route", "add", "default", "via", &first]);
    });
    device
}

/// These subnets behind the pod.
pub fn subnets(pod: &Pod, realm: &str, nets: &[(Ipv4Addr, u8)]) -> PodSubnets {
    PodSubnets {
        address: pod.ip,
        realm: realm.to_owned(),
        group: realm.to_owned(),
        subnets: nets.to_vec(),
    }
}
