//! Between pods and what lies beyond the node.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Command;

use serde_json::json;
use support::netns::{Netns, run_ip};
use support::outside::{OUTSIDE, uplink};
use support::peers::{ask, connect, serve, talk, udp_client};
use support::services::{VIP, backend, both};
use support::{ANY, Node, can_run, success};

#[test]
fn pods_reach_the_outside_as_the_host() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netf");
    let outside = uplink(&node);
    let a = node.pod("a");
    let _server = serve(&outside, "outside", 7000);
    let client = udp_client(&a.ns, SocketAddrV4::new(ANY, 0));
    let target = (OUTSIDE, 7000);
    for length in [100, 4000] {
        let (name, seen, _) =
            ask(&client, target, length).unwrap_or_else(|| panic!("no UDP answer to {length} bytes"));
        assert_eq!(name, "outside");
        assert!(seen.starts_with("192.0.2.1:"), "{seen}");
    }
    let (_, seen) = talk(&mut connect(&a.ns, target).unwrap()).unwrap();
    assert!(seen.starts_with("192.0.2.1:"), "{seen}");
    // And the outside reaches services, with its own address, where it has a route.
    let _inside = serve(&a.ns, "a", 5060);
    node.datapath()
        .sync_services(&both(&[backend(&a, 5060, 1)]))
        .unwrap();
    let client = udp_client(&outside, SocketAddrV4::new(ANY, 4000));
    let (name, seen, from) = ask(&client, (VIP, 5060), 100).expect("UDP answer");
    assert_eq!(
        (name.as_str(), seen.as_str(), from.ip()),
        ("a", "192.0.2.2:4000", VIP.into())
    );
    assert_eq!(talk(&mut connect(&outside, (VIP, 5060)).unwrap()).unwrap().0, "a");
}

#[test]
fn what_was_lost_of_the_hosts_side_comes_back() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netj");
    let outside = uplink(&node);
    let a = node.pod("a");
    let (_outside, _inside) = (serve(&outside, "outside", 7000), serve(&a.ns, "a", 7000));
    let host = || success(node.run(&["host"], &[], &node.config(json!({}))));
    let answers = |ns: &Netns, to: Ipv4Addr| {
        let client: UdpSocket = udp_client(ns, SocketAddrV4::new(ANY, 0));
        ask(&client, (to, 7000), 10).map(|(name, ..)| name)
    };
    let works = |when: &str| {
        assert_eq!(answers(&a.ns, OUTSIDE).as_deref(), Some("outside"), "{when}");
        assert_eq!(answers(&node.ns, a.ip).as_deref(), Some("a"), "{when}");
    };
    works("at first");
    host();
    works("after nothing was lost");
    node.ns.run(|| {
        assert!(
            Command::new("nft")
                .args(["flush", "ruleset"])
                .status()
                .unwrap()
                .success()
        );
        run_ip(&["route", "flush", "dev", "ghnetj"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    });
    host();
    works("after all was lost");
}
