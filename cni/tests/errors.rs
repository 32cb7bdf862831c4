//! ICMP errors: who is believed, and what clients of a service learn.

mod support;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};

use gantry_ebpf::{DropReason, PodSubnets, Protocol, Service};
use serde_json::json;
use support::icmp::{FRAGMENTATION_NEEDED, PORT_UNREACHABLE, Quoted, REDIRECT, learnt_mtu, send_error};
use support::netns::Netns;
use support::outside::{OUTSIDE, uplink};
use support::peers::{ask, serve, udp_client};
use support::services::{VIP, backend, both};
use support::{ANY, Node, can_run, wait_until};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
/// What is said to be the MTU of a path.
const MTU: u32 = 900;

/// What a UDP socket that is connected there learns when it sends.
fn told(ns: &Netns, to: (Ipv4Addr, u16)) -> ErrorKind {
    let socket = udp_client(ns, SocketAddrV4::new(ANY, 0));
    socket.connect(to).unwrap();
    socket.send(b"x").unwrap();
    socket.recv(&mut [0; 16]).unwrap_err().kind()
}

#[test]
fn a_pod_tells_errors_only_about_what_was_sent_to_it() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netr1");
    let neighbour = node.pod_with("neighbour", json!({"realm": "a"}));
    let (peer, forger) = (node.pod("peer"), node.pod("forger"));
    let router = node.pod_with("router", json!({"realm": "a"}));
    let call = udp_client(&neighbour.ns, SocketAddrV4::new(ANY, 5060));
    call.connect((peer.ip, 7777)).unwrap();
    call.set_nonblocking(true).unwrap();
    let of_the_call = Quoted::udp((neighbour.ip, 5060), (peer.ip, 7777));
    let say = |from: &Netns| {
        send_error(from, neighbour.ip, PORT_UNREACHABLE, 0, of_the_call);
        for (to, about) in [
            (neighbour.ip, VIP),
            (neighbour.ip, OUTSIDE),
            (GATEWAY, peer.ip),
            (GATEWAY, OUTSIDE),
        ] {
            send_error(from, to, FRAGMENTATION_NEEDED, MTU, Quoted::echo(to, about));
        }
    };
    let counted = || node.datapath().counters().unwrap().drops[&DropReason::ForgedError];
    let learnt = || {
        let neighbours = [VIP, OUTSIDE].map(|about| learnt_mtu(&neighbour.ns, about));
        (neighbours, learnt_mtu(&node.ns, peer.ip))
    };
    say(&forger.ns);
    // No pod says who else is the way, not even about what was sent to it.
    let way = Quoted::echo(neighbour.ip, forger.ip);
    send_error(&forger.ns, neighbour.ip, REDIRECT, peer.ip.into(), way);
    wait_until("what is forged is counted", || counted() == 6);
    assert_eq!(call.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(learnt(), ([None, None], None));
    // About itself it is believed.
    let own = Quoted::echo(neighbour.ip, forger.ip);
    send_error(&forger.ns, neighbour.ip, FRAGMENTATION_NEEDED, MTU, own);
    wait_until("the neighbour hears of its own packet", || {
        learnt_mtu(&neighbour.ns, forger.ip) == Some(MTU)
    });
    // The control: one that a network is behind tells of what was sent there, and is believed; of nothing else, and nobody who
    // cannot have sent it.
    let behind = PodSubnets {
        address: router.ip,
        realm: "a".to_owned(),
        group: "a".to_owned(),
        subnets: vec![(OUTSIDE, 32)],
    };
    node.datapath().sync_subnets(&[behind]).unwrap();
    say(&router.ns);
    wait_until("the path is known", || learnt() == ([None, Some(MTU)], None));
    assert_eq!(call.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let question = Quoted::echo(peer.ip, OUTSIDE);
    send_error(&router.ns, peer.ip, FRAGMENTATION_NEEDED, MTU, question);
    wait_until("the rest is counted", || counted() == 11);
    assert_eq!(learnt_mtu(&peer.ns, OUTSIDE), None);
}

#[test]
fn a_port_without_a_listener_refuses_directly_and_through_a_service() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netr2");
    let outside = uplink(&node);
    let (client, b) = (node.pod("client"), node.pod("b"));
    let service = Service {
        vip: VIP,
        port: 5060,
        protocol: Protocol::Udp,
        backends: vec![backend(&b, 5080, 1)],
    };
    node.datapath().sync_services(&[service]).unwrap();
    assert_eq!(told(&client.ns, (b.ip, 5080)), ErrorKind::ConnectionRefused);
    // The backend reaches itself.
    for (who, ns) in [
        ("pod", &client.ns),
        ("host", &node.ns),
        ("itself", &b.ns),
        ("outside", &outside),
    ] {
        assert_eq!(told(ns, (VIP, 5060)), ErrorKind::ConnectionRefused, "{who}");
    }
}

#[test]
fn the_mtu_behind_a_service_reaches_its_clients() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netr3");
    let (client, b) = (node.pod("client"), node.pod("b"));
    let _server = serve(&b.ns, "b", 5060);
    node.datapath()
        .sync_services(&both(&[backend(&b, 5060, 1)]))
        .unwrap();
    let socket = udp_client(&client.ns, SocketAddrV4::new(ANY, 4000));
    // The kernel learns only what a socket has sent.
    socket.connect((VIP, 5060)).unwrap();
    assert!(ask(&socket, (VIP, 5060), 10).is_some());
    let question = Quoted::udp((client.ip, 4000), (b.ip, 5060));
    send_error(&b.ns, client.ip, FRAGMENTATION_NEEDED, MTU, question);
    wait_until("the client knows the path to the service", || {
        learnt_mtu(&client.ns, VIP) == Some(MTU)
    });
    assert_eq!(learnt_mtu(&client.ns, b.ip), None);
}
