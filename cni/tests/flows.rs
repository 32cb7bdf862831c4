//! Flows through services while backends come, drain and go.

mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gantry_ebpf::{Backend, Protocol, Service};
use support::peers::{ask, connect, serve, talk, udp_client};
use support::services::{VIP, backend, both, draining};
use support::{ANY, Node, Pod, can_run, wait_until};

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
    let asked: [AtomicU32; 5] = Default::default();
    let goes_on = |asked: &AtomicU32| {
        asked.fetch_add(1, Ordering::Relaxed);
        !stop.load(Ordering::Relaxed)
    };
    let talk_on = |asked: &AtomicU32| {
        let socket = udp_client(&client.ns, SocketAddrV4::new(ANY, 0));
        let mut stream = connect(&client.ns, (VIP, 5060)).unwrap();
        let mut answers = || {
            let udp = ask(&socket, (VIP, 5060), 10).expect("an answer to each question");
            (udp.0, talk(&mut stream).unwrap().0)
        };
        let first = answers();
        while goes_on(asked) {
            assert_eq!(answers(), first, "flows stay where they are");
        }
    };
    let come_anew = |asked: &AtomicU32| {
        while goes_on(asked) {
            let socket = udp_client(&client.ns, SocketAddrV4::new(ANY, 0));
            ask(&socket, (VIP, 5060), 10).expect("a new flow finds a backend at any time");
        }
    };
    std::thread::scope(|s| {
        let _at_end = StopAtEnd(&stop);
        let (newcomer, talkers) = asked.split_first().unwrap();
        s.spawn(|| come_anew(newcomer));
        for asked in talkers {
            s.spawn(|| talk_on(asked));
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        let enough = || asked.iter().all(|n| n.load(Ordering::Relaxed) > 10);
        for round in 0u32.. {
            if round >= 60 && enough() {
                break;
            }
            assert!(Instant::now() < deadline, "answers to each: {asked:?}");
            // All stay, with other weights; all but one of them drain, in turns.
            let state = |i: u32| (round + i).is_multiple_of(4) || (round / 4).is_multiple_of(2);
            let one = |(i, pod): (usize, &Pod)| match state(i as u32) {
                true => backend(pod, 5060, 1 + (round + i as u32) % 5),
                false => draining(pod, 5060),
            };
            let all: Vec<_> = pods.iter().enumerate().map(one).collect();
            datapath.sync_services(&both(&all)).unwrap();
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
    let flows = |pod: &Pod| {
        let stats = datapath.backend_stats().unwrap();
        stats.iter().find(|s| s.key.address == pod.ip).unwrap().new_flows
    };
    wait_until("all flows are counted", || flows(&b) + flows(&c) == 2000);
    assert!(
        (440..560).contains(&flows(&b)),
        "500 expected on the light one, found {}",
        flows(&b)
    );
}
