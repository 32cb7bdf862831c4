//! Real packets between real namespaces through the real plugin and programs.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use gantry_ebpf::{DropReason, Protocol, Service};
use serde_json::json;
use support::netns::run_ip;
use support::peers::{ask, connect, serve, talk, udp_client};
use support::services::{VIP, backend, both};
use support::{ANY, Node, Pod, can_run, success, wait_until};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);

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
    let to_nobody = || node.datapath().counters().unwrap().drops[&DropReason::NoPod];
    let before = to_nobody();
    client.send_to(b"x", (Ipv4Addr::new(10, 85, 0, 99), 1)).unwrap();
    wait_until("the drop is counted", || to_nobody() == before + 1);
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
    // No service on this port; nobody behind this one. The others keep their backend: a connection that still closes counts no drop.
    let nobodys = Service {
        vip: VIP,
        port: 2,
        protocol: Protocol::Udp,
        backends: vec![],
    };
    let [udp, tcp] = both(&[backend(&b, 5080, 1)]);
    datapath.sync_services(&[udp, tcp, nobodys]).unwrap();
    let client = udp_client(&a.ns, SocketAddrV4::new(ANY, 0));
    client.send_to(b"x", (VIP, 1)).unwrap();
    client.send_to(b"x", (VIP, 2)).unwrap();
    wait_until("both drops are counted", || {
        let drops = datapath.counters().unwrap().drops;
        (drops[&DropReason::NoService], drops[&DropReason::NoBackend]) == (1, 1)
    });
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
fn a_pod_can_send_as_soon_as_it_is_added() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neti");
    let server = node.pod("server");
    let _server = serve(&server.ns, "server", 5060);
    for i in 0..16 {
        let pod = node.pod(&format!("p{i}"));
        let client = udp_client(&pod.ns, SocketAddrV4::new(ANY, 5060));
        assert!(ask(&client, (server.ip, 5060), 10).is_some(), "pod {i}");
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
fn a_pod_sends_as_itself() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netk");
    let (a, b, c) = (
        node.pod("a"),
        node.pod("b"),
        node.pod_with("c", json!({"realm": "a"})),
    );
    let (beyond, of_the_node) = (Ipv4Addr::new(203, 0, 113, 5), Ipv4Addr::new(198, 51, 100, 1));
    node.ns.run(|| {
        run_ip(&["addr", "add", &format!("{of_the_node}/32"), "dev", "lo"]);
        // The host would know the way back.
        run_ip(&["route", "add", "203.0.113.0/24", "dev", "ghnetk"]);
    });
    let send_as = |from: &Pod, source: Ipv4Addr| {
        let address = format!("{source}/32");
        from.ns.run(|| run_ip(&["addr", "add", &address, "dev", "lo"]));
        let socket = udp_client(&from.ns, SocketAddrV4::new(source, 4000));
        for to in [b.ip, GATEWAY] {
            let _ = socket.send_to(b"x", (to, 7000));
        }
    };
    let dropped = |count| {
        wait_until("the drops are counted", || {
            node.datapath().counters().unwrap().drops[&DropReason::ForeignSource] == count
        });
    };
    // The gateway's last: then the pod takes it for itself. What a pod may configure changes nothing.
    c.ns.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    for (from, count) in [(&a, 9), (&c, 18)] {
        for source in [
            beyond,
            VIP,
            of_the_node,
            if from.ip == a.ip { c.ip } else { a.ip },
            GATEWAY,
        ] {
            send_as(from, source);
        }
        dropped(count);
    }
}
