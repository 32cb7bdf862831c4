//! No frame brings a foreign source address to the host's IP stack.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;

use gantry_ebpf::DropReason;
use support::peers::{ask, serve, udp_client};
use support::raw::{Raw, udp};
use support::{ANY, Node, can_run, wait_until};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 85, 0, 1);
/// EtherTypes with a tag of priority 0 in no VLAN each (IEEE 802.1Q): the kernel takes them off and delivers.
const TWO_TAGS: [u8; 8] = [0x88, 0xa8, 0, 0, 0x81, 0, 0, 0];
const ONE_TAG: [u8; 4] = [0x81, 0, 0, 0];
const IPV4: [u8; 2] = [8, 0];

#[test]
fn tags_carry_nothing_past_the_program() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("srca");
    let (a, b) = (node.pod("a"), node.pod("b"));
    let raw = Raw::new(&a, GATEWAY);
    let on_the_host = udp_client(&node.ns, SocketAddrV4::new(ANY, 7000));
    let forged = udp(b.ip, (GATEWAY, 7000), 1, 0, b"forged");
    let dropped = || node.datapath().counters().unwrap().drops[&DropReason::NotIpv4];
    let tagged: [&[u8]; 3] = [&TWO_TAGS, &TWO_TAGS[4..], &ONE_TAG];
    for (count, tags) in (1..).zip(tagged) {
        raw.send(&[tags, &IPV4, &forged]);
        wait_until("the drop is counted", || dropped() == count);
    }
    // Also the pod's own packets: nobody needs tags here.
    raw.send(&[&ONE_TAG, &IPV4, &udp(a.ip, (GATEWAY, 7000), 1, 0, b"tagged")]);
    wait_until("the drop is counted", || dropped() == 4);
    raw.send(&[&IPV4, &udp(a.ip, (GATEWAY, 7000), 1, 0, b"plain")]);
    let mut buffer = [0; 16];
    let length = on_the_host.recv_from(&mut buffer).unwrap().0;
    assert_eq!(&buffer[..length], b"plain");
}

#[test]
fn what_no_program_has_seen_the_rules_drop() {
    if !can_run("netns") {
        return;
    }
    let node = Node::new("srcb");
    let (a, b) = (node.pod("a"), node.pod("b"));
    let raw = Raw::new(&a, GATEWAY);
    let on_the_host = udp_client(&node.ns, SocketAddrV4::new(ANY, 7000));
    let link = node
        .links()
        .into_iter()
        .find(|l| l.starts_with("gsrcb") && mac_is(&node, l, &raw));
    node.datapath().detach(&link.unwrap()).unwrap();
    let nft = |args: &[&str]| {
        let output = node.ns.run(|| Command::new("nft").args(args).output().unwrap());
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let send = |what: &[u8]| raw.send(&[&TWO_TAGS, &IPV4, &udp(b.ip, (GATEWAY, 7000), 1, 0, what)]);
    // The kernel takes the program off a moment later.
    wait_until("the rule counts it", || {
        send(b"before");
        !nft(&["list", "counter", "ip", "gantry_srcb", "unseen"]).contains("packets 0 ")
    });
    nft(&["flush", "chain", "ip", "gantry_srcb", "bounded"]);
    send(b"control");
    let mut buffer = [0; 16];
    let (length, from) = on_the_host.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"control"[..], b.ip.into()));
    let _server = serve(&node.ns, "host", 7001);
    let client = udp_client(&b.ns, SocketAddrV4::new(ANY, 0));
    assert_eq!(ask(&client, (GATEWAY, 7001), 10).expect("answer").0, "host");
}

/// Is this the host's end of the link that these frames leave by?
fn mac_is(node: &Node, link: &str, raw: &Raw) -> bool {
    let shown = node.ns.run(|| {
        Command::new("ip")
            .args(["link", "show", "dev", link])
            .output()
            .unwrap()
    });
    let there: Vec<String> = raw.gateway_mac().iter().map(|b| format!("{b:02x}")).collect();
    String::from_utf8(shown.stdout)
        .unwrap()
        .contains(&there.join(":"))
}
