//! ICMP errors through the program in the kernel: translated to the byte, and dropped where they are forged.

mod support;

use std::net::Ipv4Addr;

use gantry_ebpf::{DropReason, PacketPath, PodSubnets, Protocol, Sending};
use gantry_ebpf_common::checksum;
use gantry_ebpf_common::layout::UDP;
use gantry_ebpf_common::quoted::ICMP;
use support::{
    CLIENT, CLIENT_MAC, DROP, Packet, REDIRECT, SERVER, SERVER_MAC, VIP, can_run, networks, packet, pod, run,
    run_at, service, to_services, with_services,
};

/// Destination unreachable, port.
const UNREACHABLE: (u8, u8) = (3, 3);
/// Redirect, for the host.
const ANOTHER_WAY: (u8, u8) = (5, 1);

/// An error from `src` to `dst` that quotes all of a packet but its Ethernet header, or as many bytes behind its IPv4 header.
fn error(src: Ipv4Addr, dst: Ipv4Addr, kind: (u8, u8), quoted: &Packet, l4_bytes: Option<usize>) -> Packet {
    let mut quote = quoted.bytes().split_off(14);
    if let Some(bytes) = l4_bytes {
        quote.truncate(20 + quoted.options + bytes);
    }
    let mut message = vec![kind.0, kind.1, 0, 0, 0, 0, 0, 0];
    message.extend(quote);
    let sum = checksum::full(&message, 0);
    Packet {
        payload: message.split_off(4),
        raw: Some([kind.0, kind.1, (sum >> 8) as u8, sum as u8]),
        ..packet(ICMP, (src, 0), (dst, 0))
    }
}

fn to_mac(mut frame: Vec<u8>, mac: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame
}

#[test]
fn a_client_reads_the_packet_that_it_has_sent() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    for (sent, backend_port) in to_services() {
        assert_eq!(run(&loaded, &sent.bytes()).0, REDIRECT);
        let got = Packet {
            dst: (SERVER, backend_port),
            ..sent.clone()
        };
        for l4_bytes in [None, Some(8)] {
            // Of TCP these do not hold the checksum.
            let replies = || loaded.datapath.counters().unwrap().paths[&PacketPath::Reply];
            let before = replies();
            let told = error(SERVER, CLIENT, UNREACHABLE, &got, l4_bytes);
            let wanted = error(VIP, CLIENT, UNREACHABLE, &sent, l4_bytes);
            let out = run(&loaded, &told.bytes());
            let wanted = (REDIRECT, to_mac(wanted.bytes(), CLIENT_MAC));
            assert_eq!(out, wanted, "{sent:?} {l4_bytes:?}");
            assert_eq!(replies(), before + 1);
        }
    }
}

#[test]
fn who_reaches_itself_through_a_service_is_told_too() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    let sent = packet(UDP, (SERVER, 4000), (VIP, 5060));
    assert_eq!(run(&loaded, &sent.bytes()).0, REDIRECT);
    let got = packet(UDP, (VIP, 4000), (SERVER, 5080));
    let told = error(SERVER, VIP, UNREACHABLE, &got, None);
    let wanted = error(VIP, SERVER, UNREACHABLE, &sent, None);
    let wanted = (REDIRECT, to_mac(wanted.bytes(), SERVER_MAC));
    assert_eq!(run(&loaded, &told.bytes()), wanted);
}

#[test]
fn an_error_about_a_direct_packet_goes_on_as_it_is() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    // Neither of a flow, nor with ports, nor with a header that holds them.
    let fragment = Packet {
        fragment: 0x00b9,
        ..packet(UDP, (CLIENT, 4000), (SERVER, 5080))
    };
    for got in [
        packet(UDP, (CLIENT, 4000), (SERVER, 5080)),
        packet(ICMP, (CLIENT, 0x0800), (SERVER, 0)),
        fragment,
    ] {
        let told = error(SERVER, CLIENT, UNREACHABLE, &got, None).bytes();
        assert_eq!(
            run(&loaded, &told),
            (REDIRECT, to_mac(told, CLIENT_MAC)),
            "{got:?}"
        );
    }
}

#[test]
fn a_router_speaks_for_itself_and_of_what_others_got() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    let sent = packet(UDP, (CLIENT, 4000), (VIP, 5060));
    run(&loaded, &sent.bytes());
    let got = Packet {
        dst: (SERVER, 5080),
        ..sent.clone()
    };
    // From beyond the node it comes by the host.
    loaded.datapath.configure(&networks(1)).unwrap();
    let router = Ipv4Addr::new(192, 0, 2, 1);
    let told = error(router, CLIENT, (3, 4), &got, Some(8));
    let wanted = error(router, CLIENT, (3, 4), &sent, Some(8));
    let wanted = (REDIRECT, to_mac(wanted.bytes(), CLIENT_MAC));
    assert_eq!(run(&loaded, &told.bytes()), wanted);
}

#[test]
fn forged_errors_are_dropped_and_counted() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    let other = Ipv4Addr::new(10, 85, 0, 9);
    loaded
        .datapath
        .add_pod(&pod(other, [2, 0, 0, 0, 0, 9], 1, false))
        .unwrap();
    let got = |src, dst| packet(UDP, (src, 4000), (dst, 7000));
    let drops = |reason| loaded.datapath.counters().unwrap().drops[&reason];
    let says = |error: &Packet| run_at(&loaded, 1, &error.bytes()).0;
    let others = error(SERVER, CLIENT, UNREACHABLE, &got(CLIENT, other), None);
    let through_a_service = error(SERVER, CLIENT, (3, 4), &got(CLIENT, VIP), None);
    let to_another = error(SERVER, CLIENT, UNREACHABLE, &got(other, SERVER), None);
    let another_way = error(SERVER, CLIENT, ANOTHER_WAY, &got(CLIENT, SERVER), None);
    for forged in [&others, &through_a_service, &to_another, &another_way] {
        let before = drops(DropReason::ForgedError);
        assert_eq!(says(forged), DROP, "{forged:?}");
        assert_eq!(drops(DropReason::ForgedError), before + 1);
    }
    // Without the whole header nobody knows.
    let cut = error(SERVER, CLIENT, UNREACHABLE, &got(CLIENT, SERVER), Some(0)).bytes();
    let before = drops(DropReason::Malformed);
    for cut in [&cut[..], &cut[..cut.len() - 1], &cut[..42]] {
        assert_eq!(run(&loaded, cut).0, DROP);
    }
    assert_eq!(drops(DropReason::Malformed), before + 3);
    // A pod tells of what was sent to addresses behind it, those who have sent it; the way is for the host to say.
    let pool = Ipv4Addr::new(10, 45, 0, 0);
    let device = Ipv4Addr::new(10, 45, 0, 7);
    let of_a_device = error(SERVER, CLIENT, (3, 4), &got(CLIENT, device), None);
    let to_somebody_else = error(SERVER, CLIENT, (3, 4), &got(other, device), None);
    assert_eq!(says(&of_a_device), DROP);
    let owner = PodSubnets {
        address: SERVER,
        realm: "a".to_owned(),
        group: "a".to_owned(),
        subnets: vec![(pool, 16)],
    };
    loaded.datapath.sync_subnets(&[owner]).unwrap();
    assert_eq!(says(&of_a_device), REDIRECT);
    for forged in [&to_somebody_else, &others, &another_way] {
        assert_eq!(says(forged), DROP, "{forged:?}");
    }
    loaded.datapath.configure(&networks(1)).unwrap();
    assert_eq!(says(&another_way), REDIRECT);
}

#[test]
fn a_backend_reads_the_packet_that_it_has_replied() {
    if !can_run() {
        return;
    }
    let mut loaded = with_services();
    let device = Ipv4Addr::new(10, 45, 0, 7);
    let owner = PodSubnets {
        address: CLIENT,
        realm: "a".to_owned(),
        group: "a".to_owned(),
        subnets: vec![(Ipv4Addr::new(10, 45, 0, 0), 16)],
    };
    // Everybody is at interface 1: all are of its realm.
    loaded.datapath.sync_subnets(&[owner]).unwrap();
    // To itself and to those behind it nothing would come back.
    for entry in [
        pod(SERVER, SERVER_MAC, 2, false),
        pod(CLIENT, CLIENT_MAC, 1, false),
    ] {
        loaded.datapath.add_pod(&entry).unwrap();
    }
    let sending = Sending {
        group: None,
        realm: Some("a"),
    };
    loaded.datapath.set_sender(2, &sending).unwrap();
    let again = service(Protocol::Udp, 5060, &[(SERVER, 5080)]);
    loaded.datapath.sync_services(&[again]).unwrap();
    for (client, says) in [(CLIENT, CLIENT), (device, device), (device, CLIENT)] {
        let question = packet(UDP, (client, 4000), (VIP, 5060));
        assert_eq!(run(&loaded, &question.bytes()).0, REDIRECT);
        let replied = packet(UDP, (SERVER, 5080), (client, 4000));
        let got = packet(UDP, (VIP, 5060), (client, 4000));
        let told = error(says, VIP, (3, 4), &got, None);
        let wanted = error(says, SERVER, (3, 4), &replied, None);
        let wanted = (REDIRECT, to_mac(wanted.bytes(), SERVER_MAC));
        assert_eq!(run(&loaded, &told.bytes()), wanted, "{client} {says}");
    }
    // Of no flow.
    let got = packet(UDP, (VIP, 5060), (device, 4001));
    let before = loaded.datapath.counters().unwrap().drops[&DropReason::NoService];
    assert_eq!(
        run(&loaded, &error(CLIENT, VIP, (3, 4), &got, None).bytes()).0,
        DROP
    );
    let after = loaded.datapath.counters().unwrap().drops[&DropReason::NoService];
    assert_eq!(after, before + 1);
}
