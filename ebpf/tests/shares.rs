//! Flows beyond their sender's share push out nobody else's.

mod support;

use gantry_ebpf::Protocol;
use gantry_ebpf_common::layout::TCP;
use gantry_ebpf_common::{MAX_FLOWS, MAX_FLOWS_BEYOND, share};
use support::{CLIENT, Loaded, Packet, REDIRECT, SERVER, VIP, can_run, packet, run, service};

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
