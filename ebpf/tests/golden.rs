//! Packets through the program in the kernel (`BPF_PROG_TEST_RUN`): what comes out, to the byte, and by
//! exactly how much which counter moves.

mod support;

use std::net::Ipv4Addr;

use gantry_ebpf::{DropReason, PacketPath, Protocol, Sending};
use gantry_ebpf_common::layout::{SCTP, TCP, UDP};
use gantry_ebpf_common::{refuse, share};
use proptest::prelude::*;
use support::{
    CLIENT, CLIENT_MAC, DROP, GATEWAY, Loaded, PASS, Packet, REDIRECT, SERVER, SERVER_MAC, VIP, becomes,
    can_run, moved, networks, packet, pod, run, run_often, service, to_services, with_services,
};

fn check(loaded: &Loaded, what: &str, frame: &[u8], verdict: u32, out: &[u8], paths: &[PacketPath]) {
    let before = loaded.datapath.counters().unwrap();
    let (got, bytes) = run(loaded, frame);
    assert_eq!(got, verdict, "{what}");
    assert_eq!(bytes, out, "{what}");
    let after = loaded.datapath.counters().unwrap();
    let wanted: Vec<_> = paths.iter().map(|p| (*p, 1)).collect();
    assert_eq!(moved(&before, &after), (vec![], wanted), "{what}");
}

fn check_drop(loaded: &Loaded, frame: &[u8], reason: DropReason) {
    let before = loaded.datapath.counters().unwrap();
    let (got, _) = run(loaded, frame);
    let after = loaded.datapath.counters().unwrap();
    assert_eq!(
        (got, moved(&before, &after)),
        (DROP, (vec![(reason, 1)], vec![])),
        "{reason:?}"
    );
}

#[test]
fn services_are_translated_there_and_back() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    use PacketPath::{Pod, Reply, Service};
    for (p, backend_port) in to_services() {
        let out = becomes(&p, p.src, (SERVER, backend_port), SERVER_MAC);
        let what = format!("{p:?}");
        check(&loaded, &what, &p.bytes(), REDIRECT, &out, &[Pod, Service]);
        let back = Packet {
            src: (SERVER, backend_port),
            dst: p.src,
            ..p.clone()
        };
        let out = becomes(&back, p.dst, back.dst, CLIENT_MAC);
        check(&loaded, &what, &back.bytes(), REDIRECT, &out, &[Pod, Reply]);
    }
    let stats = loaded.datapath.backend_stats().unwrap();
    assert!(
        stats.iter().all(|s| (s.new_flows, s.packets) == (3, 3)),
        "{stats:?}"
    );
}

#[test]
fn everything_else_keeps_its_addresses() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    use PacketPath::{Host, Pod, Stack};
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    let gateway_mac = [2, 0, 0, 0, 0, 1];
    for protocol in [UDP, TCP, 1] {
        let p = packet(protocol, (CLIENT, 4000), (SERVER, 7));
        check(
            &loaded,
            "pod",
            &p.bytes(),
            REDIRECT,
            &becomes(&p, p.src, p.dst, SERVER_MAC),
            &[Pod],
        );
        let p = packet(protocol, (CLIENT, 4000), (GATEWAY, 53));
        check(
            &loaded,
            "host",
            &p.bytes(),
            REDIRECT,
            &becomes(&p, p.src, p.dst, gateway_mac),
            &[Host],
        );
        let p = packet(protocol, (CLIENT, 4000), (outside, 80));
        check(&loaded, "outside", &p.bytes(), PASS, &p.bytes(), &[Stack]);
    }
}

#[test]
fn every_drop_has_its_reason() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    let udp = |dst| packet(UDP, (CLIENT, 4000), dst);
    let mut bad = udp((SERVER, 7)).bytes();
    bad[14] = 0x44;
    check_drop(&loaded, &bad, DropReason::Malformed);
    let cut = udp((SERVER, 7)).bytes();
    check_drop(&loaded, &cut[..36], DropReason::Malformed);
    // ARP, IPv6, tags of VLANs; those that the kernel has taken off before are in the tests of `gantry-cni`.
    for ethertype in [[0x08, 0x06], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8]] {
        let long = Packet {
            payload: vec![0; 60],
            ..udp((SERVER, 7))
        };
        let mut frame = long.bytes();
        frame[12..14].copy_from_slice(&ethertype);
        check_drop(&loaded, &frame, DropReason::NotIpv4);
    }
    check_drop(
        &loaded,
        &packet(1, (CLIENT, 0), (VIP, 0)).bytes(),
        DropReason::NoService,
    );
    check_drop(
        &loaded,
        &udp((Ipv4Addr::new(10, 85, 0, 200), 9)).bytes(),
        DropReason::NoPod,
    );
    let later = Packet {
        fragment: 0x00b9,
        ..udp((VIP, 5060))
    };
    check_drop(&loaded, &later.bytes(), DropReason::FragmentWithoutFirst);
    // No answer to an answer, nor where the header has options.
    let reset = Packet {
        opening: 0x14,
        ..packet(TCP, (CLIENT, 4000), (VIP, 1))
    };
    check_drop(&loaded, &reset.bytes(), DropReason::NoService);
    let options = Packet {
        options: 4,
        ..udp((VIP, 1))
    };
    check_drop(&loaded, &options.bytes(), DropReason::NoService);
}

#[test]
fn what_nobody_serves_is_refused_at_once_and_counted() {
    if !can_run() {
        return;
    }
    let mut loaded = with_services();
    let nobody = [TCP, UDP, SCTP].map(|number| {
        let protocol = match number {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => Protocol::Sctp,
        };
        service(protocol, 9, &[])
    });
    loaded.datapath.sync_services(&nobody).unwrap();
    for (port, reason) in [(1, DropReason::NoService), (9, DropReason::NoBackend)] {
        for (protocol, opening) in [(TCP, 0x02), (TCP, 0x10), (UDP, 0), (SCTP, 1), (SCTP, 0)] {
            let asked = Packet {
                opening,
                payload: vec![7; 40],
                ..packet(protocol, (CLIENT, 4000), (VIP, port))
            };
            let frame = asked.bytes();
            let answer = match protocol {
                TCP => refuse::reset(frame[14..54].try_into().unwrap()).unwrap().to_vec(),
                UDP => refuse::unreachable(frame[14..42].try_into().unwrap()).to_vec(),
                _ => refuse::abort(frame[14..54].try_into().unwrap()).unwrap().to_vec(),
            };
            let wanted = [&frame[6..12], &frame[..6], &frame[12..14], &answer[..]].concat();
            let before = loaded.datapath.counters().unwrap();
            let (verdict, out) = run(&loaded, &frame);
            let after = loaded.datapath.counters().unwrap();
            assert_eq!((verdict, out), (REDIRECT, wanted), "{asked:?}");
            assert_eq!(moved(&before, &after), (vec![(reason, 1)], vec![]), "{asked:?}");
        }
    }
}

#[test]
fn a_backend_whose_pod_is_gone_gets_nothing_more() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    let p = packet(UDP, (CLIENT, 4000), (VIP, 5060));
    assert_eq!(run(&loaded, &p.bytes()).0, REDIRECT);
    loaded.datapath.remove_pod(SERVER).unwrap();
    let before = loaded.datapath.counters().unwrap();
    run(&loaded, &p.bytes());
    let after = loaded.datapath.counters().unwrap();
    assert_eq!(moved(&before, &after), (vec![(DropReason::NoBackend, 1)], vec![]));
}

#[test]
fn pods_send_from_their_own_address_the_host_from_any() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    // Test runs enter at interface 1.
    let elsewhere = Ipv4Addr::new(10, 85, 0, 9);
    loaded
        .datapath
        .add_pod(&pod(elsewhere, [2, 0, 0, 0, 0, 9], 2, false))
        .unwrap();
    let nobody = Ipv4Addr::new(10, 85, 0, 200);
    let from = |source| packet(UDP, (source, 4000), (SERVER, 7));
    let delivered = |source| {
        let p = from(source);
        let out = becomes(&p, p.src, p.dst, SERVER_MAC);
        check(
            &loaded,
            &format!("from {source}"),
            &p.bytes(),
            REDIRECT,
            &out,
            &[PacketPath::Pod],
        );
    };
    let beyond = Ipv4Addr::new(203, 0, 113, 5);
    let dropped = |sources: &[Ipv4Addr]| {
        for source in sources {
            check_drop(&loaded, &from(*source).bytes(), DropReason::ForeignSource);
        }
    };
    let group = Ipv4Addr::new(224, 0, 0, 1);
    let others = [elsewhere, nobody, VIP, beyond, Ipv4Addr::LOCALHOST, group];
    dropped(&others);
    // Of a realm, with nothing behind it: nothing else.
    let sending = Sending {
        group: None,
        realm: Some("a"),
    };
    loaded.datapath.set_sender(1, &sending).unwrap();
    dropped(&others);
    loaded.datapath.configure(&networks(1)).unwrap();
    for source in [elsewhere, nobody, VIP, beyond] {
        delivered(source);
    }
}

#[test]
fn fragments_follow_their_first() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    use PacketPath::{Pod, Service};
    // The UDP checksum of the first covers all: it must change by the difference, whatever it is.
    let first = Packet {
        fragment: 0x2000,
        no_checksum: true,
        ..packet(UDP, (CLIENT, 4000), (VIP, 5060))
    };
    let out = becomes(&first, first.src, (SERVER, 5080), SERVER_MAC);
    check(&loaded, "first", &first.bytes(), REDIRECT, &out, &[Pod, Service]);
    let later = Packet {
        fragment: 0x00b9,
        ..first
    };
    let out = becomes(&later, later.src, (SERVER, 5080), SERVER_MAC);
    check(&loaded, "later", &later.bytes(), REDIRECT, &out, &[Pod]);
}

#[test]
fn fragments_beyond_the_share_are_dropped_whatever_they_are_and_whomever_they_are_for() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    let all: Vec<Vec<u8>> = [(VIP, 5060), (SERVER, 7), (GATEWAY, 53), (outside, 80)]
        .into_iter()
        .flat_map(|to| [0x2000, 0x20b9, 0x00b9].map(|fragment| (to, fragment)))
        .map(|(to, fragment)| {
            Packet {
                fragment,
                ..packet(UDP, (CLIENT, 4000), to)
            }
            .bytes()
        })
        .collect();
    let beyond = || loaded.datapath.counters().unwrap().drops[&DropReason::FragmentBeyondShare];
    // More at once than the share; a second that begins meanwhile fills it anew.
    let dropped = |frame: &Vec<u8>| {
        let before = beyond();
        (0..3)
            .any(|_| run_often(&loaded, frame, share::FRAGMENTS_PER_SECOND + 1) == DROP && beyond() > before)
    };
    for frame in &all {
        assert!(dropped(frame), "{frame:?}");
    }
    // Who sends whole packets is not concerned, nor is the host.
    assert_eq!(
        run(&loaded, &packet(UDP, (CLIENT, 4000), (SERVER, 7)).bytes()).0,
        REDIRECT
    );
    loaded.datapath.configure(&networks(1)).unwrap();
    assert!(!dropped(&all[0]));
}

#[test]
fn a_datagram_with_the_identification_of_an_earlier_one_is_its_own() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    use PacketPath::{Pod, Reply};
    run(&loaded, &packet(UDP, (CLIENT, 4000), (VIP, 5060)).bytes());
    let first = |sport, dport| Packet {
        fragment: 0x2000,
        no_checksum: true,
        ..packet(UDP, (SERVER, sport), (CLIENT, dport))
    };
    let reply = first(5080, 4000);
    let out = becomes(&reply, (VIP, 5060), reply.dst, CLIENT_MAC);
    check(&loaded, "reply", &reply.bytes(), REDIRECT, &out, &[Pod, Reply]);
    let direct = first(7, 7);
    let out = becomes(&direct, direct.src, direct.dst, CLIENT_MAC);
    check(&loaded, "direct", &direct.bytes(), REDIRECT, &out, &[Pod]);
    let later = Packet {
        fragment: 0x00b9,
        ..direct
    };
    let out = becomes(&later, later.src, later.dst, CLIENT_MAC);
    check(&loaded, "later", &later.bytes(), REDIRECT, &out, &[Pod]);
}

#[test]
fn any_packet_comes_out_as_if_built_anew() {
    if !can_run() {
        return;
    }
    let loaded = with_services();
    let strategy = (
        prop::sample::select(vec![UDP, TCP]),
        1u16..,
        prop::collection::vec(any::<u8>(), 0..200),
        0usize..=10,
        any::<u8>(),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(500));
    let result = runner.run(&strategy, |(protocol, sport, payload, words, opening)| {
        let mut p = packet(protocol, (CLIENT, sport), (VIP, 5060));
        (p.payload, p.options, p.opening) = (payload, words * 4, opening);
        let (verdict, out) = run(&loaded, &p.bytes());
        prop_assert_eq!(verdict, REDIRECT);
        prop_assert_eq!(out, becomes(&p, p.src, (SERVER, 5080), SERVER_MAC));
        Ok(())
    });
    result.unwrap();
}
