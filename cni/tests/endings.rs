//! What clients of a service see when its backends are not ready, and when they are gone.

mod support;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use gantry_ebpf::{Backend, Datapath, DropReason};
use serde_json::json;
use support::netns::Netns;
use support::peers::{ask, connect, serve, talk, udp_client};
use support::services::{VIP, backend, both, draining};
use support::{ANY, Node, can_run, success};

/// Flows of each protocol in the test of readiness.
const FLOWS: usize = 100;
/// How often readiness goes and comes back; `ROUNDS=50` in the environment for the whole measure.
const ROUNDS: usize = 4;
/// Within what clients have to be told that their peer is gone.
const TOLD: Duration = Duration::from_secs(1);

fn sync(node: &Node, datapath: &mut Datapath, backends: &[Backend]) {
    let services = both(backends);
    node.ns.run(|| datapath.sync_services(&services).unwrap());
}

fn connected_udp(ns: &Netns) -> UdpSocket {
    let socket = udp_client(ns, SocketAddrV4::new(ANY, 0));
    socket.connect((VIP, 5060)).unwrap();
    socket
}

/// Waits for the end of a connection over which nothing is sent.
fn ends(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(TOLD)).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Ok(_) => panic!("nothing was asked"),
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn two_hundred_flows_stay_whole_over_readiness_of_one_and_of_all() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("nete1");
    let (client, b, c) = (node.pod("client"), node.pod("b"), node.pod("c"));
    let _servers = (serve(&b.ns, "b", 5060), serve(&c.ns, "c", 5060));
    let mut datapath = node.datapath();
    let all = [backend(&b, 5060, 1), backend(&c, 5060, 1)];
    sync(&node, &mut datapath, &all);
    let udp: Vec<UdpSocket> = (0..FLOWS)
        .map(|_| udp_client(&client.ns, SocketAddrV4::new(ANY, 0)))
        .collect();
    let mut tcp: Vec<TcpStream> = (0..FLOWS)
        .map(|_| connect(&client.ns, (VIP, 5060)).unwrap())
        .collect();
    let mut served_by = || -> Vec<String> {
        let answers = udp.iter().map(|s| ask(s, (VIP, 5060), 10).expect("UDP answer").0);
        let mut names: Vec<String> = answers.collect();
        names.extend(tcp.iter_mut().map(|s| talk(s).expect("TCP answer").0));
        names
    };
    let at_first = served_by();
    let rounds = std::env::var("ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap());
    for round in 0..rounds {
        let (one, none) = (
            [draining(&b, 5060), backend(&c, 5060, 1)],
            [draining(&b, 5060), draining(&c, 5060)],
        );
        for state in [&one[..], &none, &one, &all] {
            sync(&node, &mut datapath, state);
            assert_eq!(served_by(), at_first, "round {round}");
        }
    }
}

#[test]
fn a_service_that_nobody_serves_refuses_at_once_pods_and_host() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("nete2");
    let (client, b) = (node.pod("client"), node.pod("b"));
    let _server = serve(&b.ns, "b", 5060);
    let mut datapath = node.datapath();
    sync(&node, &mut datapath, &[backend(&b, 5060, 1)]);
    let mut established = connect(&client.ns, (VIP, 5060)).unwrap();
    sync(&node, &mut datapath, &[draining(&b, 5060)]);
    for ns in [&client.ns, &node.ns] {
        for port in [5060, 5061] {
            let begun = Instant::now();
            let refused = connect(ns, (VIP, port)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "TCP {port}");
            let socket = udp_client(ns, SocketAddrV4::new(ANY, 0));
            socket.connect((VIP, port)).unwrap();
            socket.send(b"x").unwrap();
            let refused = socket.recv(&mut [0; 16]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "UDP {port}");
            assert!(begun.elapsed() < TOLD, "{port}: {:?}", begun.elapsed());
        }
    }
    assert_eq!(talk(&mut established).unwrap().0, "b");
    let drops = datapath.counters().unwrap().drops;
    assert_eq!(
        (drops[&DropReason::NoBackend], drops[&DropReason::NoService]),
        (4, 4)
    );
}

#[test]
fn clients_that_say_nothing_are_told_that_their_backend_left() {
    if !can_run("netns") {
        return;
    }
    for others in [true, false] {
        let node = Node::new("nete3");
        let (client, b, c) = (node.pod("client"), node.pod("b"), node.pod("c"));
        let _servers = (serve(&b.ns, "b", 5060), serve(&c.ns, "c", 5060));
        let mut datapath = node.datapath();
        sync(&node, &mut datapath, &[backend(&b, 5060, 1)]);
        let mut streams: Vec<TcpStream> = [&client.ns, &node.ns]
            .map(|ns| connect(ns, (VIP, 5060)).unwrap())
            .into();
        streams.iter_mut().for_each(|s| drop(talk(s).unwrap()));
        let socket = connected_udp(&client.ns);
        socket.send(b"x").unwrap();
        socket.recv(&mut [0; 64]).unwrap();
        let rest = if others {
            vec![backend(&c, 5060, 1)]
        } else {
            vec![]
        };
        sync(&node, &mut datapath, &rest);
        for stream in &mut streams {
            assert!(ends(stream), "TCP, others: {others}");
        }
        socket.set_read_timeout(Some(TOLD)).unwrap();
        let told = socket.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(told.kind(), ErrorKind::ConnectionRefused, "UDP, others: {others}");
    }
}

#[test]
fn clients_that_say_nothing_are_told_that_their_pod_is_gone() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("nete4");
    let (client, b) = (node.pod("client"), node.pod("b"));
    // The server's sockets outlive the pod's interface here: its kernel cannot tell anybody.
    let _server = serve(&b.ns, "b", 5060);
    let mut datapath = node.datapath();
    sync(&node, &mut datapath, &[backend(&b, 5060, 1)]);
    let mut streams: Vec<TcpStream> = (0..50)
        .map(|_| connect(&client.ns, (VIP, 5060)).unwrap())
        .collect();
    streams.iter_mut().for_each(|s| drop(talk(s).unwrap()));
    success(node.command("DEL", &b, json!({})));
    let begun = Instant::now();
    for stream in &mut streams {
        assert!(ends(stream));
    }
    assert!(begun.elapsed() < TOLD, "{:?}", begun.elapsed());
}

#[test]
fn the_last_words_of_a_process_reach_its_clients() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("nete5");
    let (client, b) = (node.pod("client"), node.pod("b"));
    let server = serve(&b.ns, "b", 5060);
    let mut datapath = node.datapath();
    sync(&node, &mut datapath, &[draining(&b, 5060)]);
    sync(&node, &mut datapath, &[backend(&b, 5060, 1)]);
    let mut streams: Vec<TcpStream> = (0..50)
        .map(|_| connect(&client.ns, (VIP, 5060)).unwrap())
        .collect();
    streams.iter_mut().for_each(|s| drop(talk(s).unwrap()));
    // The process ends, its namespace is still there: the kernel says so for it.
    drop(server);
    let begun = Instant::now();
    for stream in &mut streams {
        assert!(ends(stream));
    }
    assert!(begun.elapsed() < TOLD, "{:?}", begun.elapsed());
}
