//! Devices behind pods: real packets through a pod that forwards, in both directions, and none between two realms.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use gantry_ebpf::DropReason;
use serde_json::json;
use support::devices::{behind, subnets};
use support::icmp::learnt_mtu;
use support::netns::{Netns, run_ip};
use support::outside::{OUTSIDE, uplink};
use support::peers::{ask, connect, serve, talk, udp_client};
use support::services::{VIP, backend, both};
use support::{ANY, Node, can_run, success, wait_until};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 45, 0, 0), 16);
const PART: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 45, 1, 0), 24);
const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 45, 0, 7);
const OF_PART: Ipv4Addr = Ipv4Addr::new(10, 45, 1, 7);
const MTU: u32 = 1500;

fn realm(name: &str) -> serde_json::Value {
    json!({"realm": name, "shareGroup": name})
}

/// Who answers there, and what they see, by UDP whole and in pieces, and by TCP.
fn talks(from: &Netns, to: (Ipv4Addr, u16), name: &str, seen_as: Ipv4Addr) {
    let client = udp_client(from, SocketAddrV4::new(ANY, 4000));
    for length in [100, 4000] {
        let (who, seen, at) = ask(&client, to, length).expect("UDP answer");
        assert_eq!(
            (who.as_str(), seen),
            (name, format!("{seen_as}:4000")),
            "{length}"
        );
        assert_eq!(at.ip(), to.0);
    }
    let (who, seen) = talk(&mut connect(from, to).unwrap()).unwrap();
    assert_eq!(who, name);
    assert!(seen.starts_with(&format!("{seen_as}:")), "{seen}");
}

fn is_silent(from: &Netns, to: (Ipv4Addr, u16)) {
    let client = udp_client(from, SocketAddrV4::new(ANY, 0));
    assert!(ask(&client, to, 10).is_none(), "{to:?}");
}

#[test]
fn a_device_talks_to_pods_services_and_names_and_they_to_it() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("beha");
    let (owner, b) = (node.pod_with("owner", realm("a")), node.pod_with("b", realm("a")));
    let device = behind(&node, &owner, DEVICE, MTU);
    let wanted = [subnets(&owner, "a", &[POOL])];
    node.datapath().sync_subnets(&wanted).unwrap();
    node.datapath()
        .sync_services(&both(&[backend(&b, 5080, 1)]))
        .unwrap();
    let _servers = [
        serve(&b.ns, "b", 5080),
        serve(&device, "device", 7000),
        serve(&node.ns, "host", 53),
    ];
    let drops = || node.datapath().counters().unwrap().drops;
    talks(&device, (b.ip, 5080), "b", DEVICE);
    talks(&device, (VIP, 5060), "b", DEVICE);
    // One socket, both ways in turn.
    let client = udp_client(&device, SocketAddrV4::new(ANY, 5060));
    for to in [(VIP, 5060), (b.ip, 5080), (VIP, 5060)] {
        assert_eq!(ask(&client, to, 10).expect("answer").2.ip(), to.0);
    }
    talks(&b.ns, (DEVICE, 7000), "device", b.ip);
    // Names are asked in its owner's place.
    let client = udp_client(&device, SocketAddrV4::new(ANY, 4001));
    for length in [100, 4000] {
        let (who, seen, at) = ask(&client, (GATEWAY, 53), length).expect("answer of the host");
        assert_eq!((who.as_str(), at.ip()), ("host", GATEWAY.into()));
        assert!(seen.starts_with(&format!("{}:", owner.ip)), "{seen}");
    }
    assert_eq!(
        talk(&mut connect(&device, (GATEWAY, 53)).unwrap()).unwrap().0,
        "host"
    );
    assert!(drops().values().all(|count| *count == 0), "{:?}", drops());

    // An address that is nobody's, from behind the owner and from the owner itself.
    let foreign = Ipv4Addr::new(10, 46, 0, 7);
    for ns in [&device, &owner.ns] {
        ns.run(|| run_ip(&["addr", "add", &format!("{foreign}/32"), "dev", "lo"]));
        let socket = udp_client(ns, SocketAddrV4::new(foreign, 4000));
        let before = drops()[&DropReason::ForeignSource];
        socket.send_to(b"x", (b.ip, 5080)).unwrap();
        wait_until("the drop is counted", || {
            drops()[&DropReason::ForeignSource] == before + 1
        });
    }
    // Nor may a pod that nothing is behind use the device's.
    b.ns.run(|| run_ip(&["addr", "add", &format!("{DEVICE}/32"), "dev", "lo"]));
    let socket = udp_client(&b.ns, SocketAddrV4::new(DEVICE, 4000));
    socket.send_to(b"x", (owner.ip, 5080)).unwrap();
    wait_until("the drop is counted", || drops()[&DropReason::ForeignSource] == 3);
    b.ns.run(|| run_ip(&["addr", "del", &format!("{DEVICE}/32"), "dev", "lo"]));

    // Gone with the wish, back with it, gone with the pod.
    node.datapath()
        .sync_subnets(&[subnets(&owner, "a", &[])])
        .unwrap();
    is_silent(&device, (b.ip, 5080));
    assert_eq!(node.datapath().sync_subnets(&wanted).unwrap().written, 1);
    talks(&device, (VIP, 5060), "b", DEVICE);
    success(node.command("DEL", &owner, json!({})));
    let socket = udp_client(&b.ns, SocketAddrV4::new(ANY, 0));
    let stack = || node.datapath().counters().unwrap().paths[&gantry_ebpf::PacketPath::Stack];
    let before = stack();
    socket.send_to(b"x", (DEVICE, 7000)).unwrap();
    wait_until("it is an address beyond the node again", || stack() == before + 1);
    assert_eq!(node.datapath().sync_subnets(&[]).unwrap(), Default::default());
}

#[test]
fn what_is_for_beyond_the_node_its_owner_masquerades() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("behb");
    let outside = uplink(&node);
    let owner = node.pod_with("owner", realm("a"));
    let device = behind(&node, &owner, DEVICE, MTU);
    node.datapath()
        .sync_subnets(&[subnets(&owner, "a", &[POOL])])
        .unwrap();
    let _server = serve(&outside, "outside", 7000);
    is_silent(&device, (OUTSIDE, 7000));
    let drops = || node.datapath().counters().unwrap().drops[&DropReason::BehindToOutside];
    assert_eq!(drops(), 1);
    owner.ns.run(|| {
        let rule = "add table ip t; add chain ip t c { type nat hook postrouting priority srcnat; }; \
            add rule ip t c ip saddr 10.45.0.0/16 oifname eth0 masquerade";
        let status = std::process::Command::new("nft").arg(rule).status().unwrap();
        assert!(status.success());
    });
    talks_out(&device);
    assert_eq!(drops(), 1);
}

fn talks_out(device: &Netns) {
    let client = udp_client(device, SocketAddrV4::new(ANY, 4001));
    assert_eq!(ask(&client, (OUTSIDE, 7000), 10).expect("answer").0, "outside");
}

#[test]
fn two_realms_have_the_same_pool_and_the_longest_prefix_counts() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("behc");
    let pod = |name: &str, of: &str| node.pod_with(name, realm(of));
    let (owner, part, b) = (pod("owner", "a"), pod("part", "a"), pod("b", "a"));
    let (other_owner, other) = (pod("other-owner", "b"), pod("other", "b"));
    let device = behind(&node, &owner, DEVICE, MTU);
    let of_part = behind(&node, &part, OF_PART, MTU);
    let other_device = behind(&node, &other_owner, DEVICE, MTU);
    let wanted = [
        subnets(&owner, "a", &[POOL]),
        subnets(&part, "a", &[PART]),
        subnets(&other_owner, "b", &[POOL]),
    ];
    node.datapath().sync_subnets(&wanted).unwrap();
    let _servers = [
        serve(&device, "device", 7000),
        serve(&of_part, "part", 7000),
        serve(&other_device, "other", 7000),
        serve(&b.ns, "b", 5080),
        serve(&other.ns, "otherpod", 5080),
    ];
    talks(&b.ns, (DEVICE, 7000), "device", b.ip);
    talks(&b.ns, (OF_PART, 7000), "part", b.ip);
    talks(&device, (OF_PART, 7000), "part", DEVICE);
    talks(&other.ns, (DEVICE, 7000), "other", other.ip);
    talks(&device, (b.ip, 5080), "b", DEVICE);
    talks(&other_device, (other.ip, 5080), "otherpod", DEVICE);
    let drops = || node.datapath().counters().unwrap().drops[&DropReason::OtherRealm];
    assert_eq!(drops(), 0);
    is_silent(&device, (other.ip, 5080));
    is_silent(&other_device, (b.ip, 5080));
    assert_eq!(drops(), 2);
    // Through a service of one the other's device is told at once, and the one's goes on.
    node.datapath()
        .sync_services(&both(&[backend(&b, 5080, 1)]))
        .unwrap();
    talks(&device, (VIP, 5060), "b", DEVICE);
    let refused = connect(&other_device, (VIP, 5060)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    talks(&device, (VIP, 5060), "b", DEVICE);
}

#[test]
fn a_narrow_path_to_a_device_is_told_directly_and_through_a_service() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("behd");
    let (owner, b) = (node.pod_with("owner", realm("a")), node.pod_with("b", realm("a")));
    let narrow = 1000;
    let (one, two) = (DEVICE, OF_PART);
    let devices = [one, two].map(|address| behind(&node, &owner, address, narrow));
    node.datapath()
        .sync_subnets(&[subnets(&owner, "a", &[POOL])])
        .unwrap();
    node.datapath()
        .sync_services(&both(&[backend(&b, 5080, 1)]))
        .unwrap();
    let _server = serve(&b.ns, "b", 5080);
    for (device, address, to) in [(&devices[0], one, (b.ip, 5080)), (&devices[1], two, (VIP, 5060))] {
        let client = udp_client(device, SocketAddrV4::new(ANY, 4000));
        // The question comes in pieces; the answer is too large for the last link, and says that it must stay whole.
        let first = ask(&client, to, 1200);
        wait_until("the pod knows the path", || {
            learnt_mtu(&b.ns, address) == Some(narrow)
        });
        assert!(first.is_none(), "{to:?}");
        assert!(ask(&client, to, 1200).is_some(), "{to:?}");
    }
    // A port without a listener.
    let socket = udp_client(&b.ns, SocketAddrV4::new(ANY, 0));
    socket.connect((one, 9)).unwrap();
    socket.send(b"x").unwrap();
    let refused = socket.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
