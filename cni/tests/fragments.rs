//! Fragments whose datagram never becomes whole hold the receiver's memory for reassembly: nobody has enough of them on its way
//! to take it from others. Each case once more with neither shares nor the room and the time that the plugin gives.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use gantry_ebpf::DropReason;
use support::netns::Netns;
use support::outside::{OUTSIDE, uplink};
use support::peers::{ask, serve, udp_client};
use support::raw::{Raw, udp};
use support::services::{VIP, backend, both};
use support::{ANY, Node, Pod, can_run};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
/// More than the kernel's 4 MiB hold.
const MANY: u16 = 8000;

/// What a pod sends, and to whom.
type Flood = fn(&Pod, (Ipv4Addr, u16));

/// Ordinary datagrams of three fragments each.
fn send_large(pod: &Pod, to: (Ipv4Addr, u16)) {
    let socket = udp_client(&pod.ns, SocketAddrV4::new(ANY, 0));
    for _ in 0..MANY {
        let _ = socket.send_to(&[b'x'; 4000], to);
    }
}

/// First fragments of datagrams that have no more.
fn send_first(pod: &Pod, to: (Ipv4Addr, u16)) {
    let raw = Raw::new(pod, GATEWAY);
    for id in 0..MANY {
        raw.send(&[&[8, 0], &udp(pod.ip, to, id, 0x2000, &[0; 1400])]);
    }
}

/// Later ones of datagrams that have no first.
fn send_later(pod: &Pod, to: (Ipv4Addr, u16)) {
    let raw = Raw::new(pod, GATEWAY);
    for id in 0..MANY {
        raw.send(&[&[8, 0], &udp(pod.ip, to, id, 0x2010, &[0; 1400])]);
    }
}

/// As the kernel has it.
fn as_usual(receiver: &Netns) {
    receiver.run(|| {
        for (name, value) in [("ipfrag_time", "30"), ("ipfrag_high_thresh", "4194304")] {
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
        }
    });
}

fn a_neighbours_large_datagrams_arrive(node: &Node, receiver: &Netns, to: (Ipv4Addr, u16), floods: &[Flood]) {
    let neighbour = node.pod("neighbour");
    let client = udp_client(&neighbour.ns, SocketAddrV4::new(ANY, 0));
    let dropped = || node.datapath().counters().unwrap().drops[&DropReason::FragmentBeyondShare];
    for (number, flood) in floods.iter().enumerate() {
        let before = dropped();
        flood(&node.pod(&format!("flood{number}")), to);
        assert!(dropped() > before, "flood {number}");
        assert!(ask(&client, to, 4000).is_some(), "flood {number}");
    }
    node.datapath().without_shares().unwrap();
    as_usual(receiver);
    floods[0](&node.pod("control"), to);
    assert!(ask(&client, to, 4000).is_none(), "the control");
}

#[test]
fn behind_a_service() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("fraga");
    let b = node.pod("b");
    let _server = serve(&b.ns, "b", 5060);
    node.datapath()
        .sync_services(&both(&[backend(&b, 5060, 1)]))
        .unwrap();
    a_neighbours_large_datagrams_arrive(&node, &b.ns, (VIP, 5060), &[send_first, send_large]);
}

#[test]
fn at_a_pod() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("fragb");
    let b = node.pod("b");
    let _server = serve(&b.ns, "b", 7000);
    a_neighbours_large_datagrams_arrive(&node, &b.ns, (b.ip, 7000), &[send_first, send_later]);
}

#[test]
fn at_the_host() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("fragc");
    node.pod("first");
    let _server = serve(&node.ns, "host", 7000);
    a_neighbours_large_datagrams_arrive(&node, &node.ns, (GATEWAY, 7000), &[send_first, send_later]);
}

#[test]
fn on_the_way_to_the_outside() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("fragd");
    let outside = uplink(&node);
    let _server = serve(&outside, "outside", 7000);
    a_neighbours_large_datagrams_arrive(&node, &node.ns, (OUTSIDE, 7000), &[send_first, send_later]);
}
