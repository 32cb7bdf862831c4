//! What pods may take of the kernel's table of connections. Each case once more without the rules that bound it.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use support::netns::Netns;
use support::outside::{OUTSIDE, uplink};
use support::peers::{ask, serve, udp_client};
use support::{ANY, Node, Pod, can_run};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
/// Connections that a flood opens: more than may be opened at once, and few for the machine.
const FLOOD: u16 = 6000;
/// What else happens on the node meanwhile.
const OTHERS: u32 = 50;

/// Sends one datagram from each of many ports.
fn flood(pod: &Pod, to: (Ipv4Addr, u16), count: u16) {
    for port in 2000..2000 + count {
        let socket = udp_client(&pod.ns, SocketAddrV4::new(ANY, port));
        // Dropped or refused: both are fine.
        let _ = socket.send_to(b"x", to);
    }
}

/// Connections that the node tracks.
fn tracked(node: &Netns) -> u32 {
    let path = "/proc/sys/net/netfilter/nf_conntrack_count";
    let text = node.run(|| std::fs::read_to_string(path).unwrap());
    text.trim().parse().unwrap()
}

fn nft(node: &Netns, args: &[&str]) -> String {
    let output = node.run(|| Command::new("nft").args(args).output().unwrap());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Takes the rules of these chains away.
fn without(node: &Node, chains: &[&str]) {
    let table = format!("gantry_{}", node.instance);
    for chain in chains {
        nft(&node.ns, &["flush", "chain", "ip", &table, chain]);
    }
}

#[test]
fn questions_to_the_nodes_dns_are_not_tracked() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netm");
    let a = node.pod("a");
    let _dns = serve(&node.ns, "dns", 53);
    let before = tracked(&node.ns);
    flood(&a, (GATEWAY, 53), FLOOD);
    assert!(tracked(&node.ns) <= before + OTHERS);
    let client = udp_client(&a.ns, SocketAddrV4::new(ANY, 0));
    assert_eq!(ask(&client, (GATEWAY, 53), 10).expect("answer").0, "dns");
    without(&node, &["untracked_questions", "untracked_answers", "bounded"]);
    flood(&a, (GATEWAY, 53), FLOOD);
    assert!(tracked(&node.ns) >= before + u32::from(FLOOD), "the control");
}

#[test]
fn connections_to_the_gateway_are_bounded_for_each_pod() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("netn");
    let (a, b) = (node.pod("a"), node.pod("b"));
    let _server = serve(&node.ns, "host", 7000);
    let before = tracked(&node.ns);
    flood(&a, (GATEWAY, 7000), 1500);
    let after = tracked(&node.ns);
    assert!(
        (before + 512..before + 512 + OTHERS).contains(&after),
        "{before} {after}"
    );
    let client = udp_client(&b.ns, SocketAddrV4::new(ANY, 0));
    assert_eq!(ask(&client, (GATEWAY, 7000), 10).expect("answer").0, "host");
    without(&node, &["bounded"]);
    flood(&a, (GATEWAY, 7000), 1500);
    assert!(tracked(&node.ns) >= before + 1500, "the control");
}

#[test]
fn connections_to_the_outside_are_bounded_for_each_group() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("neto");
    let outside = uplink(&node);
    let _server = serve(&outside, "outside", 7000);
    let tenant = || json!({"shareGroup": "tenant"});
    let (a, b) = (node.pod_with("a", tenant()), node.pod_with("b", tenant()));
    let other = node.pod_with("other", json!({"shareGroup": "other"}));
    let before = tracked(&node.ns);
    let begun = Instant::now();
    flood(&a, (OUTSIDE, 9), FLOOD / 2);
    flood(&b, (OUTSIDE, 9), FLOOD / 2);
    let (after, took_s) = (tracked(&node.ns), begun.elapsed().as_secs_f64());
    let most = 2000 + (500.0 * took_s) as u32 + OTHERS;
    assert!(
        after <= before + most && most < FLOOD.into(),
        "{after} in {took_s} s"
    );
    let counter = format!("gantry_{}", node.instance);
    let counted = nft(&node.ns, &["list", "counter", "ip", &counter, "beyond_share"]);
    assert!(!counted.contains("packets 0 "), "{counted}");
    let client = udp_client(&other.ns, SocketAddrV4::new(ANY, 0));
    assert_eq!(ask(&client, (OUTSIDE, 7000), 10).expect("answer").0, "outside");
    println!("{FLOOD} opened in {took_s:.1} s, {} tracked", after - before);
    without(&node, &["bounded"]);
    flood(&a, (OUTSIDE, 9), FLOOD);
    assert!(tracked(&node.ns) >= before + u32::from(FLOOD), "the control");
}
