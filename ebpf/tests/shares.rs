//! Flows beyond their sender's share push out nobody else's.

mod support;

use std::net::Ipv4Addr;

use gantry_ebpf::{Protocol, Sending};
use gantry_ebpf_common::layout::TCP;
use gantry_ebpf_common::{MAX_FLOWS, MAX_FLOWS_BEYOND, share};
use support::{
    CLIENT, Loaded, Packet, REDIRECT, SERVER, VIP, can_run, in_namespace, ip, packet, pod, run, run_at,
    service,
};

/// Ports of the service: more flows than one pair of addresses and one port has.
const PORTS: u16 = 4;

fn with_services() -> Loaded {
    let mut loaded = Loaded::new();
    let services: Vec<_> = (0..PORTS)
        .map(|port| service(Protocol::Tcp, 5060 + port, &[(SERVER, 5080 + port)]))
        .collect();
    loaded.datapath.sync_services(&services).unwrap();
    loaded
}

/// Opens flow number `number`.
fn open(loaded: &Loaded, number: u32) -> Packet {
    let (sport, port) = ((number % 60_000) as u16 + 1024, (number / 60_000) as u16);
    let mut syn = packet(TCP, (CLIENT, sport), (VIP, 5060 + port));
    syn.opening = 2;
    assert_eq!(run(loaded, &syn.bytes()).0, REDIRECT);
    syn
}

/// Whether the backend's answer finds its way back.
fn is_answered(loaded: &Loaded, asked: &Packet) -> bool {
    let answer = Packet {
        src: (SERVER, asked.dst.1 + 20),
        dst: asked.src,
        ..asked.clone()
    };
    let out = Packet {
        src: asked.dst,
        dst_mac: [2, 0, 0, 0, 0, 2],
        ..answer.clone()
    };
    run(loaded, &answer.bytes()).1 == out.bytes()
}

#[test]
fn a_flow_that_rests_outlives_a_flood() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    let resting = open(&loaded, 0);
    let flood = MAX_FLOWS + MAX_FLOWS / 4;
    let mut last = resting.clone();
    for number in 1..flood {
        last = open(&loaded, number);
    }
    assert!(is_answered(&loaded, &resting), "a flow within the share");
    assert!(is_answered(&loaded, &last), "a flow beyond it, a moment old");
    let beyond = loaded.datapath.beyond_shares().unwrap();
    let count: u32 = beyond.values().copied().max().unwrap();
    assert!(
        count > MAX_FLOWS_BEYOND && count <= flood - share::FLOWS,
        "{beyond:?}"
    );
    println!("{flood} flows, {count} of them beyond the share");
}

/// The control: without shares the flow that rests is lost.
#[test]
fn without_shares_a_flood_pushes_out_a_flow_that_rests() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    loaded.datapath.without_shares().unwrap();
    let resting = open(&loaded, 0);
    for number in 1..MAX_FLOWS + MAX_FLOWS / 4 {
        open(&loaded, number);
    }
    assert!(!is_answered(&loaded, &resting));
    assert!(loaded.datapath.beyond_shares().unwrap().is_empty());
}

/// As many pods as open twice the flows that the tables hold, each within what one may: the kernel does not always choose the
/// entry that was used least recently.
const PODS: u32 = 2 * MAX_FLOWS / share::FLOWS;

/// Whether a flow that rests outlives the flows of all these pods; and how many of those were beyond a share.
fn outlives_pods(group: Option<&str>) -> (bool, u32) {
    let loaded = with_services();
    let resting = open(&loaded, 0);
    for ifindex in 2..2 + PODS {
        let name = format!("v{ifindex}");
        let (index, of_peer) = (ifindex.to_string(), (ifindex + PODS).to_string());
        let peer = ["peer", "name", &format!("w{ifindex}"), "index", &of_peer];
        ip(&[
            &["link", "add", &name, "index", &index, "type", "veth"],
            &peer[..],
        ]
        .concat());
        let address = Ipv4Addr::from(u32::from(CLIENT) + 100 + ifindex);
        loaded
            .datapath
            .add_pod(&pod(address, [2; 6], ifindex, false))
            .unwrap();
        let sending = Sending { group, realm: None };
        loaded.datapath.set_sender(ifindex, &sending).unwrap();
        for sport in 1024..1024 + (share::FLOWS as u16 - 2) {
            let mut syn = packet(TCP, (address, sport), (VIP, 5060));
            syn.opening = 2;
            assert_eq!(run_at(&loaded, ifindex, &syn.bytes()).0, REDIRECT);
        }
    }
    let beyond = loaded.datapath.beyond_shares().unwrap();
    (is_answered(&loaded, &resting), beyond.values().sum())
}

#[test]
fn pods_of_one_group_have_one_share() {
    if !can_run() {
        return;
    }
    in_namespace(|| {
        let (answered, beyond) = outlives_pods(Some("tenant"));
        assert!(answered);
        assert!(beyond > PODS / 2 * share::FLOWS, "{beyond}");
    });
}

/// The control: with a share each they push it out.
#[test]
fn pods_with_a_share_each_push_out_a_flow_that_rests() {
    if !can_run() {
        return;
    }
    in_namespace(|| assert_eq!(outlives_pods(None), (false, 0)));
}
