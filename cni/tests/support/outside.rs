//! What lies beyond the node.

use std::net::Ipv4Addr;

use super::Node;
use super::netns::{Netns, run_ip};

/// An address there.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A network behind the node, which has a default route there.
pub fn uplink(node: &Node) -> Netns {
    let outside = Netns::new(&node.path().join("outside"));
    let outside_path = outside.path().to_str().unwrap().to_owned();
    node.ns.run(|| {
        run_ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        let file = std::fs::File::open(&outside_path).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let path = format!("/proc/{}/fd/{fd}", std::process::id());
        run_ip(&["link", "set", "up1", "netns", &path]);
        run_ip(&["addr", "add", "192.0.2.1/24", "dev", "up0"]);
        run_ip(&["link", "set", "up0", "up"]);
        run_ip(&["route", "add", "default", "via", "192.0.2.2"]);
        // As strict as distributions set it.
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
    });
    outside.run(|| {
        run_ip(&["addr", "add", "192.0.2.2/24", "dev", "up1"]);
        run_ip(&["link", "set", "up1", "up"]);
        run_ip(&["route", "add", "10.86.0.0/16", "via", "192.0.2.1"]);
    });
    outside
}
