//! The kernel has one table of neighbours for all network namespaces (`arp_tbl`, `nd_tbl`), and refuses everybody an entry when
//! it is full. What pods put into it is nothing that stays: each case once more without what keeps it so.

mod support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::socket::{MsgFlags, SockaddrIn, sendto, setsockopt, sockopt::BindToDevice};
use serde_json::json;
use support::netns::{Netns, run_ip};
use support::peers::{ask, serve, udp_client};
use support::raw::Raw;
use support::{ANY, Node, can_run, success};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
/// Few beside what the table holds (1,024): other tests run beside this one.
const MANY: u8 = 100;

fn ip(ns: &Netns, args: &[&str]) -> String {
    let output = ns.run(|| Command::new("ip").args(args).output().unwrap());
    String::from_utf8(output.stdout).unwrap()
}

/// Entries that are neither for good nor free to go when room is needed (`neigh_forced_gc`, net/core/neighbour.c).
fn held(ns: &Netns, family: &str) -> usize {
    let all = ip(ns, &[family, "neigh", "show", "nud", "all"]);
    let free = |line: &str| line.ends_with(" PERMANENT") || line.ends_with(" NOARP");
    all.lines().filter(|line| !free(line.trim_end())).count()
}

#[test]
fn a_pod_fills_no_table_of_neighbours() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neiga");
    let pod = node.pod("a");
    let socket = udp_client(&pod.ns, SocketAddrV4::new(ANY, 0));
    setsockopt(&socket, BindToDevice, &"eth0".into()).unwrap();
    let direct = MsgFlags::from_bits_retain(libc::MSG_DONTROUTE);
    let everybody = || {
        for host in 0..MANY {
            let to = SockaddrIn::new(11, 0, 0, host, 9);
            let _ = sendto(socket.as_raw_fd(), b"x", &to, direct);
        }
    };
    everybody();
    assert_eq!(held(&pod.ns, "-4"), 0);
    pod.ns.run(|| run_ip(&["link", "set", "eth0", "arp", "on"]));
    everybody();
    assert!(held(&pod.ns, "-4") >= MANY.into(), "the control");
}

#[test]
fn a_pods_link_has_no_ipv6() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neigb");
    let pod = node.pod("a");
    let (index, socket) = pod.ns.run(|| {
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        (index, UdpSocket::bind(any).unwrap())
    });
    let all = || -> Vec<bool> {
        let one = |host: u8| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100 + u16::from(host));
        let sent = |host| socket.send_to(b"x", SocketAddrV6::new(one(host), 9, 0, index));
        (0..MANY).map(|host| sent(host).is_ok()).collect()
    };
    assert!(!all().contains(&true));
    assert_eq!(held(&pod.ns, "-6"), 0);
    // The control: as soon as the link has an address.
    pod.ns.run(|| {
        run_ip(&["link", "set", "eth0", "arp", "on"]);
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
    });
    support::wait_until("the control", || {
        all().contains(&true) && held(&pod.ns, "-6") >= MANY.into()
    });
    // Its own self stays.
    let itself = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 7000, 0, 0);
    let (here, there) = pod.ns.run(|| {
        (
            UdpSocket::bind(itself).unwrap(),
            UdpSocket::bind("[::1]:0").unwrap(),
        )
    });
    there.send_to(b"x", itself).unwrap();
    assert_eq!(here.recv_from(&mut [0; 8]).unwrap().0, 1);
}

#[test]
fn a_pod_fills_no_table_from_the_hosts_end_of_its_link() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neigc");
    let pod = node.pod("a");
    let raw = Raw::new(&pod, GATEWAY);
    let link = node
        .links()
        .into_iter()
        .find(|l| l.starts_with("gneigc"))
        .unwrap();
    // A host knows a way to everywhere.
    node.ns
        .run(|| run_ip(&["route", "add", "11.0.0.0/24", "dev", "ghneigc"]));
    let ask_as_everybody = || {
        for host in 0..MANY {
            // Ethernet, IPv4, request (RFC 826).
            let request = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1];
            raw.send(&[
                &request,
                raw.mac(),
                &[11, 0, 0, host],
                &[0; 6],
                &GATEWAY.octets(),
                &[0; 18],
            ]);
        }
    };
    ask_as_everybody();
    assert_eq!(held(&node.ns, "-4"), 0);
    // The program lets none through, and the link would take none: without both the host learns them all.
    node.ns.run(|| run_ip(&["link", "set", &link, "arp", "on"]));
    node.datapath().detach(&link).unwrap();
    // The kernel takes the program off a moment later.
    support::wait_until("the control", || {
        ask_as_everybody();
        held(&node.ns, "-4") >= MANY.into()
    });
}

#[test]
fn the_host_needs_one_entry_for_all_its_pods_and_that_one_stays() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neigd");
    let pods = ["a", "b", "c"].map(|id| node.pod(id));
    let entries = || {
        let all = ip(&node.ns, &["-4", "neigh", "show", "nud", "all", "dev", "ghneigd"]);
        all.lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>()
    };
    let ask_all = || {
        for pod in &pods {
            let _server = serve(&pod.ns, "pod", 7000);
            let client = udp_client(&node.ns, SocketAddrV4::new(ANY, 0));
            assert_eq!(ask(&client, (pod.ip, 7000), 10).expect("answer").0, "pod");
        }
    };
    ask_all();
    let found = entries();
    assert!(found.len() == 1 && found[0].ends_with("PERMANENT"), "{found:?}");
    // As earlier versions had it: the control.
    node.ns.run(|| {
        run_ip(&[
            "route",
            "replace",
            "10.85.0.0/24",
            "dev",
            "ghneigd",
            "src",
            "10.85.0.1",
        ])
    });
    ask_all();
    assert!(entries().len() > pods.len(), "{:?}", entries());
}

#[test]
fn what_an_earlier_version_made_is_taken_over_while_packets_go_on() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neige");
    let pod = node.pod("a");
    let _server = serve(&pod.ns, "a", 7000);
    let host_file = node.data_dir().join("host.json");
    let routes = || ip(&node.ns, &["-4", "route", "show", "dev", "ghneige"]);
    let link = node
        .links()
        .into_iter()
        .find(|l| l.starts_with("gneige"))
        .unwrap();
    let made = routes();
    assert_eq!(made.matches("onlink").count(), 2, "{made}");
    for round in 0..2 {
        node.ns.run(|| {
            for net in ["10.85.0.0/24", "10.86.0.0/16"] {
                run_ip(&[
                    "route",
                    "replace",
                    net,
                    "dev",
                    "ghneige",
                    "scope",
                    "link",
                    "proto",
                    "static",
                    "src",
                    "10.85.0.1",
                ]);
            }
            run_ip(&["neigh", "flush", "dev", "ghneige", "nud", "permanent"]);
            run_ip(&["link", "set", &link, "arp", "on"]);
        });
        pod.ns.run(|| {
            run_ip(&["link", "set", "eth0", "arp", "on"]);
            let gateway = ip_link_mac(&node, &link);
            run_ip(&[
                "neigh",
                "replace",
                "10.85.0.1",
                "dev",
                "eth0",
                "lladdr",
                &gateway,
                "nud",
                "permanent",
            ]);
        });
        let mut known: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&host_file).unwrap()).unwrap();
        known.as_object_mut().unwrap().remove("form");
        std::fs::write(&host_file, known.to_string()).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|s| {
            let asking = s.spawn(|| {
                let client = udp_client(&node.ns, SocketAddrV4::new(ANY, 0));
                let mut answers = 0;
                while !over.load(Ordering::Relaxed) {
                    assert!(
                        ask(&client, (pod.ip, 7000), 10).is_some(),
                        "after {answers} answers"
                    );
                    answers += 1;
                }
            });
            // At the start of an agent, or with the next pod.
            if round == 0 {
                success(node.run(&["host"], &[], &node.config(json!({}))));
            } else {
                node.pod("b");
            }
            over.store(true, Ordering::Relaxed);
            asking.join().unwrap();
        });
        assert_eq!(routes(), made);
        if round == 0 {
            for (ns, end) in [(&pod.ns, "eth0"), (&node.ns, &link)] {
                let shown = ip(ns, &["link", "show", "dev", end]);
                assert!(shown.contains("NOARP"), "{shown}");
            }
            success(node.command("CHECK", &pod, json!({})));
        }
    }
}

fn ip_link_mac(node: &Node, link: &str) -> String {
    let shown = ip(&node.ns, &["link", "show", "dev", link]);
    let mut words = shown.split_whitespace().skip_while(|w| *w != "link/ether");
    words.nth(1).expect(&shown).to_owned()
}
