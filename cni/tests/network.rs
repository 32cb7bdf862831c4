//! Real packets between real namespaces through the real plugin and programs.

mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_ebpf::{Backend, BackendState, DropReason, Protocol, Service};
use serde_json::json;
use support::netns::{Netns, run_ip};
use support::peers::{ask, connect, serve, talk, udp_client};
use support::{Node, Pod, can_run, success};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 86, 0, 10);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn backend(pod: &Pod, port: u16, weight: u32) -> Backend {
    Backend {
        address: pod.ip,
        port,
        weight,
        state: BackendState::Active,
        udp_idle_s: 300,
    }
}

fn draining(pod: &Pod, port: u16) -> Backend {
    Backend {
        state: BackendState::Draining,
        ..backend(pod, port, 1)
    }
}

/// The same backends for UDP and TCP at VIP:5060.
fn both(backends: &[Backend]) -> [Service; 2] {
    [Protocol::Udp, Protocol::Tcp].map(|protocol| Service {
        vip: VIP,
        port: 5060,
        protocol,
        backends: backends.to_vec(),
    })
}

#[test]
fn pods_and_host_reach_each_other() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neta");
    let (a, b) = (node.pod("a"), node.pod("b"));
    let _server = serve(&b.ns, "b", 7000);
    for (ns, ip) in [(&a.ns, a.ip), (&node.ns, GATEWAY)] {
        let client = udp_client(ns, SocketAddrV4::new(ANY, 4000));
        let (name, seen, from) = ask(&client, (b.ip, 7000), 100).expect("UDP answer");
        assert_eq!(
            (name.as_str(), seen, from.ip()),
            ("b", format!("{ip}:4000"), b.ip.into())
        );
        // Larger than the MTU: fragments.
        assert!(ask(&client, (b.ip, 7000), 4000).is_some());
        let mut tcp = connect(ns, (b.ip, 7000)).unwrap();
        assert_eq!(talk(&mut tcp).unwrap().0, "b");
        ns.run(|| {
            let ping = std::process::Command::new("ping")
                .args(["-c1", "-W2", &b.ip.to_string()])
                .output();
            if let Ok(output) = ping {
                assert!(
                    output.status.success(),
                    "{}",
                    String::from_utf8_lossy(&output.stdout)
                );
            }
        });
    }
    // The host serves its pods, too: DNS will stand there.
    let _host = serve(&node.ns, "host", 53);
    let client = udp_client(&a.ns, SocketAddrV4::new(ANY, 0));
    let (name, seen, _) = ask(&client, (GATEWAY, 53), 10).expect("answer of the host");
    assert_eq!(name, "host");
    assert!(seen.starts_with(&a.ip.to_string()));
    assert_eq!(
        talk(&mut connect(&a.ns, (GATEWAY, 53)).unwrap()).unwrap().0,
        "host"
    );
    // An address without pod goes nowhere, and is counted.
    let before = node.datapath().counters().unwrap().drops[&DropReason::NoPod];
    client.send_to(b"x", (Ipv4Addr::new(10, 85, 0, 99), 1)).unwrap();
    assert_eq!(
        node.datapath().counters().unwrap().drops[&DropReason::NoPod],
        before + 1
    );
}

#[test]
fn services_answer_pods_the_host_and_the_backend_itself() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netb");
    let (a, b) = (node.pod("a"), node.pod("b"));
    let _server = serve(&b.ns, "b", 5080);
    let mut datapath = node.datapath();
    let report = datapath.sync_services(&both(&[backend(&b, 5080, 1)])).unwrap();
    assert_eq!((report.services_added, report.backends_added), (2, 2));
    assert_eq!(
        datapath.sync_services(&both(&[backend(&b, 5080, 1)])).unwrap(),
        Default::default()
    );
    // Another process finds the same state.
    assert_eq!(
        node.datapath()
            .sync_services(&both(&[backend(&b, 5080, 1)]))
            .unwrap(),
        Default::default()
    );
    // Two handles that take turns do not believe what they remember of each other's tables.
    for _ in 0..2 {
        for (handle, backends) in [
            (&mut datapath, vec![]),
            (&mut node.datapath(), vec![backend(&b, 5080, 1)]),
        ] {
            handle.sync_services(&both(&backends)).unwrap();
        }
    }
    // Pods see the client's address, except a pod that reaches itself.
    for (ns, bind, seen_as) in [
        (&a.ns, ANY, a.ip),
        (&node.ns, GATEWAY, GATEWAY),
        (&b.ns, ANY, VIP),
    ] {
        let client = udp_client(ns, SocketAddrV4::new(bind, 4000));
        for length in [100, 4000] {
            let (name, seen, from) = ask(&client, (VIP, 5060), length).expect("UDP answer");
            assert_eq!((name.as_str(), seen), ("b", format!("{seen_as}:4000")));
            assert_eq!(from.to_string(), format!("{VIP}:5060"));
        }
        let mut tcp = connect(ns, (VIP, 5060)).unwrap();
        let (name, seen) = talk(&mut tcp).unwrap();
        assert_eq!(name, "b");
        assert!(seen.starts_with(&format!("{seen_as}:")), "{seen}");
    }
    let stats = datapath.backend_stats().unwrap();
    assert_eq!(stats.iter().map(|s| s.new_flows).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(datapath.active_flows(60).unwrap().values().sum::<u64>(), 6);
    // No service on this port; nobody behind this one.
    let client = udp_client(&a.ns, SocketAddrV4::new(ANY, 0));
    client.send_to(b"x", (VIP, 1)).unwrap();
    datapath.sync_services(&both(&[])).unwrap();
    client.send_to(b"x", (VIP, 5060)).unwrap();
    let drops = datapath.counters().unwrap().drops;
    assert_eq!(
        (drops[&DropReason::NoService], drops[&DropReason::NoBackend]),
        (1, 1)
    );
}

#[test]
fn one_socket_talks_to_a_pod_directly_and_through_its_service() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netc");
    let (a, b) = (node.pod("a"), node.pod("b"));
    let _server = serve(&b.ns, "b", 5060);
    node.datapath()
        .sync_services(&both(&[backend(&b, 5060, 1)]))
        .unwrap();
    let client = udp_client(&a.ns, SocketAddrV4::new(ANY, 5060));
    for _ in 0..3 {
        for target in [VIP, b.ip] {
            let (_, _, from) = ask(&client, (target, 5060), 10).expect("answer");
            assert_eq!(from.ip(), target, "the answer comes from where the question went");
        }
    }
}

#[test]
fn an_address_that_comes_back_has_no_past() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neth");
    let (a, b) = (node.pod("a"), node.pod("b"));
    let mut datapath = node.datapath();
    datapath.sync_services(&both(&[backend(&b, 5060, 1)])).unwrap();
    let client = udp_client(&a.ns, SocketAddrV4::new(ANY, 5060));
    {
        let _server = serve(&b.ns, "b", 5060);
        assert!(ask(&client, (VIP, 5060), 10).is_some());
    }
    datapath.sync_services(&both(&[])).unwrap();
    assert_eq!(datapath.active_flows(60).unwrap().len(), 0);
    success(node.command("DEL", &b, json!({})));
    let mut next = node.bare_pod("next");
    let asked = json!({"runtimeConfig": {"ips": [format!("{}/32", b.ip)]}});
    success(node.command("ADD", &next, asked));
    next.ip = b.ip;
    // From the service's port to the client's: but this pod never was a backend.
    let sender = udp_client(&next.ns, SocketAddrV4::new(ANY, 5060));
    sender.send_to(b"hello", (a.ip, 5060)).unwrap();
    let (_, from) = client.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from.ip(), next.ip);
}

#[test]
fn established_flows_survive_scaling_and_draining() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netd");
    let (client, b, c) = (node.pod("client"), node.pod("b"), node.pod("c"));
    let (_sb, _sc) = (serve(&b.ns, "b", 5060), serve(&c.ns, "c", 5060));
    let mut datapath = node.datapath();
    datapath.sync_services(&both(&[backend(&b, 5060, 1)])).unwrap();
    let udp: Vec<_> = (0..8)
        .map(|_| udp_client(&client.ns, SocketAddrV4::new(ANY, 0)))
        .collect();
    let mut tcp: Vec<_> = (0..4)
        .map(|_| connect(&client.ns, (VIP, 5060)).unwrap())
        .collect();
    let mut all_on = |wanted: &str, when: &str| {
        for socket in &udp {
            assert_eq!(
                ask(socket, (VIP, 5060), 10).expect("UDP answer").0,
                wanted,
                "{when}"
            );
        }
        for stream in &mut tcp {
            assert_eq!(talk(stream).unwrap().0, wanted, "{when}");
        }
    };
    let fresh = |n: usize| -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for _ in 0..n {
            let socket = udp_client(&client.ns, SocketAddrV4::new(ANY, 0));
            *names
                .entry(ask(&socket, (VIP, 5060), 10).expect("UDP answer").0)
                .or_default() += 1;
            let mut stream = connect(&client.ns, (VIP, 5060)).unwrap();
            *names.entry(talk(&mut stream).unwrap().0).or_default() += 1;
        }
        names
    };
    all_on("b", "alone");
    datapath
        .sync_services(&both(&[backend(&b, 5060, 1), backend(&c, 5060, 1)]))
        .unwrap();
    all_on("b", "after scale-out");
    assert_eq!(fresh(20).len(), 2, "new flows go to both");
    datapath
        .sync_services(&both(&[draining(&b, 5060), backend(&c, 5060, 1)]))
        .unwrap();
    all_on("b", "while draining");
    assert_eq!(
        fresh(20).into_keys().collect::<Vec<_>>(),
        ["c"],
        "a draining backend gets no new flows"
    );
    // The pod leaves another service that it serves, too: nothing to do with this one.
    let other = |backends: &[Backend]| {
        both(backends).map(|s| Service {
            vip: Ipv4Addr::new(10, 86, 0, 11),
            ..s
        })
    };
    let own = both(&[draining(&b, 5060), backend(&c, 5060, 1)]);
    let with_other = |backends: &[Backend]| [own.clone(), other(backends)].concat();
    datapath
        .sync_services(&with_other(&[backend(&b, 5060, 1)]))
        .unwrap();
    datapath.sync_services(&with_other(&[])).unwrap();
    all_on("b", "after another service has lost the pod");
    // Gone: UDP flows move with their next packet, TCP connections end.
    datapath.sync_services(&both(&[backend(&c, 5060, 1)])).unwrap();
    for socket in &udp {
        assert_eq!(ask(socket, (VIP, 5060), 10).expect("UDP answer").0, "c");
    }
}

/// Says stop when it goes, also in a panic: else the scope would wait for ever.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_answer_is_lost_while_services_change_under_load() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netg");
    let client = node.pod("client");
    let pods: Vec<Pod> = ["b", "c", "d", "e"].iter().map(|id| node.pod(id)).collect();
    let _servers: Vec<_> = pods.iter().map(|p| serve(&p.ns, &p.id, 5060)).collect();
    let mut datapath = node.datapath();
    datapath
        .sync_services(&both(&[backend(&pods[0], 5060, 1)]))
        .unwrap();
    let stop = AtomicBool::new(false);
    let stopped = || stop.load(Ordering::Relaxed);
    std::thread::scope(|s| {
        let at_end = StopAtEnd(&stop);
        let talker = |_| {
            s.spawn(|| {
                let socket = udp_client(&client.ns, SocketAddrV4::new(ANY, 0));
                let mut stream = connect(&client.ns, (VIP, 5060)).unwrap();
                let first = (
                    ask(&socket, (VIP, 5060), 10).unwrap().0,
                    talk(&mut stream).unwrap().0,
                );
                let mut asked = 0;
                while !stopped() {
                    let udp = ask(&socket, (VIP, 5060), 10)
                        .expect("an answer to each question")
                        .0;
                    assert_eq!(
                        (udp, talk(&mut stream).unwrap().0),
                        first,
                        "flows stay where they are"
                    );
                    asked += 1;
                }
                asked
            })
        };
        let talkers: Vec<_> = (0..4).map(talker).collect();
        for round in 0..60u32 {
            // All stay, with other weights; all but one of them drain, in turns.
            let state = |i: u32| (round + i).is_multiple_of(4) || (round / 4).is_multiple_of(2);
            let one = |(i, pod): (usize, &Pod)| match state(i as u32) {
                true => backend(pod, 5060, 1 + (round + i as u32) % 5),
                false => draining(pod, 5060),
            };
            let all: Vec<_> = pods.iter().enumerate().map(one).collect();
            datapath.sync_services(&both(&all)).unwrap();
        }
        drop(at_end);
        for talker in talkers {
            assert!(talker.join().unwrap() > 10);
        }
    });
    assert!(datapath.counters().unwrap().drops.values().all(|n| *n == 0));
}

#[test]
fn new_flows_spread_by_weight() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("nete");
    let (client, b, c) = (node.pod("client"), node.pod("b"), node.pod("c"));
    let mut datapath = node.datapath();
    let service = Service {
        vip: VIP,
        port: 5060,
        protocol: Protocol::Udp,
        backends: vec![backend(&b, 5060, 1), backend(&c, 5060, 3)],
    };
    datapath.sync_services(std::slice::from_ref(&service)).unwrap();
    for port in 20_000..22_000 {
        let socket = udp_client(&client.ns, SocketAddrV4::new(ANY, port));
        socket.send_to(b"x", (VIP, 5060)).unwrap();
    }
    let stats = datapath.backend_stats().unwrap();
    let flows = |pod: &Pod| stats.iter().find(|s| s.key.address == pod.ip).unwrap().new_flows;
    assert_eq!(flows(&b) + flows(&c), 2000);
    assert!(
        (440..560).contains(&flows(&b)),
        "500 expected on the light one, found {}",
        flows(&b)
    );
}

#[test]
fn pods_reach_the_outside_as_the_host() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netf");
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
    let a = node.pod("a");
    let _server = serve(&outside, "outside", 7000);
    let client = udp_client(&a.ns, SocketAddrV4::new(ANY, 0));
    let target = (Ipv4Addr::new(192, 0, 2, 2), 7000);
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
