//! Subnets behind pods, through the program in the kernel: who sends from them, where what is for them goes, and that two realms
//! with the same ones never meet.

mod support;

use std::net::Ipv4Addr;

use gantry_ebpf::{Datapath, DropReason, PacketPath, PodSubnets, Protocol, Sending};
use gantry_ebpf_common::behind::Asked;
use gantry_ebpf_common::layout::{FlowKey, POD_IS_HOST, Pod, UDP};
use gantry_ebpf_common::share;
use support::{
    DROP, GATEWAY, Loaded, Moved, PASS, Packet, REDIRECT, VIP, becomes, can_run, in_namespace, ip, moved,
    networks, packet, pod, run_at, service,
};

const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 45, 0, 0), 16);
const PART: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 45, 1, 0), 24);
const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 45, 0, 7);
const OF_PART: Ipv4Addr = Ipv4Addr::new(10, 45, 1, 7);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Interface of the host's own packets.
const HOST: u32 = 60;

/// A pod, by its interface; its address and MAC end alike.
#[derive(Clone, Copy)]
struct Who(u32);

/// In realm a: owner of the pool, a pod, owner of a part of the pool. In realm b: owner of the pool, a pod. In none: a pod.
const A: Who = Who(11);
const A_POD: Who = Who(12);
const A_PART: Who = Who(13);
const B: Who = Who(21);
const B_POD: Who = Who(22);
const LONE: Who = Who(31);

impl Who {
    fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 85, 0, self.0 as u8)
    }

    fn mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.0 as u8]
    }
}

fn owned(who: Who, realm: &str, subnets: &[(Ipv4Addr, u8)]) -> PodSubnets {
    PodSubnets {
        address: who.ip(),
        realm: realm.to_owned(),
        group: realm.to_owned(),
        subnets: subnets.to_vec(),
    }
}

fn wanted() -> Vec<PodSubnets> {
    vec![
        owned(A, "a", &[POOL]),
        owned(A_POD, "a", &[]),
        owned(A_PART, "a", &[PART]),
        owned(B, "b", &[POOL]),
        owned(B_POD, "b", &[]),
    ]
}

/// In a network namespace of its own.
fn with_pods(test: impl FnOnce(Loaded) + Send + 'static) {
    if !can_run() {
        return;
    }
    in_namespace(|| {
        let loaded = Loaded::new();
        for index in [A, A_POD, A_PART, B, B_POD, LONE]
            .map(|who| who.0)
            .into_iter()
            .chain([HOST])
        {
            let (name, peer) = (format!("v{index}"), format!("w{index}"));
            let (own, of_peer) = (index.to_string(), (index + 100).to_string());
            let pair = ["link", "add", &name, "index", &own, "type", "veth"];
            ip(&[&pair[..], &["peer", "name", &peer, "index", &of_peer]].concat());
        }
        for who in [A, A_POD, A_PART, B, B_POD, LONE] {
            let entry = pod(who.ip(), who.mac(), who.0, false);
            loaded.datapath.add_pod(&entry).unwrap();
        }
        loaded.datapath.configure(&networks(HOST)).unwrap();
        let report = loaded.datapath.sync_subnets(&wanted()).unwrap();
        assert_eq!((report.written, report.removed, report.left_out.len()), (3, 0, 0));
        test(loaded);
    });
}

/// What becomes of a packet that enters at this interface.
fn sent(loaded: &Loaded, at: u32, p: &Packet) -> (u32, Vec<u8>, Moved) {
    let before = loaded.datapath.counters().unwrap();
    let (verdict, out) = run_at(loaded, at, &p.bytes());
    (verdict, out, moved(&before, &loaded.datapath.counters().unwrap()))
}

/// It goes straight to this pod with these addresses.
fn arrives(
    loaded: &Loaded,
    from: u32,
    p: &Packet,
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    to: Who,
    beside: &[PacketPath],
) {
    let paths: Vec<_> = [PacketPath::Pod]
        .iter()
        .chain(beside)
        .map(|path| (*path, 1))
        .collect();
    let wanted = (REDIRECT, becomes(p, src, dst, to.mac()), (vec![], paths));
    assert_eq!(sent(loaded, from, p), wanted, "{p:?}");
}

fn arrives_as_it_is(loaded: &Loaded, from: u32, p: &Packet, to: Who) {
    arrives(loaded, from, p, p.src, p.dst, to, &[]);
}

fn dropped(loaded: &Loaded, from: u32, p: &Packet, reason: DropReason) {
    let (verdict, _, moved) = sent(loaded, from, p);
    assert_eq!((verdict, moved), (DROP, (vec![(reason, 1)], vec![])), "{p:?}");
}

fn udp(src: Ipv4Addr, dst: Ipv4Addr) -> Packet {
    packet(UDP, (src, 4000), (dst, 7000))
}

#[test]
fn what_is_behind_a_pod_is_reached_from_its_realm_and_answers() {
    with_pods(|loaded| {
        for protocol in [UDP, 6, 1, 132] {
            let there = packet(protocol, (A_POD.ip(), 7000), (DEVICE, 4000));
            arrives_as_it_is(&loaded, A_POD.0, &there, A);
            let back = packet(protocol, (DEVICE, 4000), (A_POD.ip(), 7000));
            arrives_as_it_is(&loaded, A.0, &back, A_POD);
        }
        // The longest prefix counts, for both directions.
        arrives_as_it_is(&loaded, A_POD.0, &udp(A_POD.ip(), OF_PART), A_PART);
        arrives_as_it_is(&loaded, A_PART.0, &udp(OF_PART, A_POD.ip()), A_POD);
        dropped(&loaded, A.0, &udp(OF_PART, A_POD.ip()), DropReason::ForeignSource);
        // From behind one to behind another; not back to where it comes from.
        arrives_as_it_is(&loaded, A.0, &udp(DEVICE, OF_PART), A_PART);
        let other = Ipv4Addr::new(10, 45, 0, 8);
        for source in [DEVICE, A.ip()] {
            dropped(&loaded, A.0, &udp(source, other), DropReason::BackToOwner);
        }
        // Its owner's own packets are nothing special.
        arrives_as_it_is(&loaded, A.0, &udp(A.ip(), A_POD.ip()), A_POD);
    });
}

#[test]
fn whose_source_is_not_its_own_is_dropped() {
    with_pods(|loaded| {
        let nobodys = Ipv4Addr::new(203, 0, 113, 5);
        for (who, source) in [
            (A, nobodys),
            (A, A_POD.ip()),
            (A, VIP),
            (A, GATEWAY),
            (A_POD, DEVICE),
            (B_POD, DEVICE),
            (LONE, DEVICE),
            (B, Ipv4Addr::new(10, 46, 0, 1)),
        ] {
            for to in [A_POD.ip(), B_POD.ip(), VIP, GATEWAY, OUTSIDE] {
                dropped(&loaded, who.0, &udp(source, to), DropReason::ForeignSource);
            }
        }
        // The host sends as it always has.
        arrives_as_it_is(&loaded, HOST, &udp(nobodys, A_POD.ip()), A_POD);
        let to_the_pool = udp(GATEWAY, DEVICE);
        let passed = (PASS, to_the_pool.bytes(), (vec![], vec![(PacketPath::Stack, 1)]));
        assert_eq!(sent(&loaded, HOST, &to_the_pool), passed);
    });
}

#[test]
fn two_realms_with_the_same_subnet_do_not_meet() {
    with_pods(|mut loaded| {
        arrives_as_it_is(&loaded, A_POD.0, &udp(A_POD.ip(), DEVICE), A);
        arrives_as_it_is(&loaded, B_POD.0, &udp(B_POD.ip(), DEVICE), B);
        arrives_as_it_is(&loaded, B.0, &udp(DEVICE, B_POD.ip()), B_POD);
        for (from, to) in [(A, B_POD), (A, B), (A, LONE), (B, A_POD)] {
            dropped(&loaded, from.0, &udp(DEVICE, to.ip()), DropReason::OtherRealm);
        }
        // To whom nothing is said of it, it is any address beyond the node.
        let lost = udp(LONE.ip(), DEVICE);
        let passed = (PASS, lost.bytes(), (vec![], vec![(PacketPath::Stack, 1)]));
        assert_eq!(sent(&loaded, LONE.0, &lost), passed);

        // The same flow, by its addresses, through the same service: the second is told that nobody is there for it.
        let of_a = service(Protocol::Udp, 5060, &[(A_POD.ip(), 5080)]);
        loaded.datapath.sync_services(&[of_a]).unwrap();
        let question = packet(UDP, (DEVICE, 4000), (VIP, 5060));
        let answer = packet(UDP, (A_POD.ip(), 5080), (DEVICE, 4000));
        let works = |loaded: &Loaded| {
            let service = [PacketPath::Service];
            arrives(
                loaded,
                A.0,
                &question,
                question.src,
                (A_POD.ip(), 5080),
                A_POD,
                &service,
            );
            arrives(
                loaded,
                A_POD.0,
                &answer,
                (VIP, 5060),
                answer.dst,
                A,
                &[PacketPath::Reply],
            );
        };
        works(&loaded);
        let (verdict, out, moved) = sent(&loaded, B.0, &question);
        assert_eq!(
            (verdict, moved),
            (REDIRECT, (vec![(DropReason::OtherRealm, 1)], vec![]))
        );
        // Port unreachable.
        assert_eq!((out[23], out[34], out[35]), (1, 3, 3));
        // What it tries directly leaves no trace in the other's flow.
        let direct = packet(UDP, (DEVICE, 4000), (A_POD.ip(), 5080));
        dropped(&loaded, B.0, &direct, DropReason::OtherRealm);
        works(&loaded);
        let stats = loaded.datapath.backend_stats().unwrap();
        assert_eq!((stats[0].new_flows, stats[0].packets), (1, 2));
    });
}

#[test]
fn fragments_of_two_realms_with_the_same_identification_are_told_apart() {
    with_pods(|mut loaded| {
        let services = [
            service(Protocol::Udp, 5060, &[(A_POD.ip(), 5080)]),
            service(Protocol::Udp, 5061, &[(B_POD.ip(), 5080)]),
        ];
        loaded.datapath.sync_services(&services).unwrap();
        let first = |port| Packet {
            fragment: 0x2000,
            no_checksum: true,
            ..packet(UDP, (DEVICE, 4000), (VIP, port))
        };
        let service = [PacketPath::Service];
        for (from, port, to) in [(A, 5060, A_POD), (B, 5061, B_POD)] {
            let p = first(port);
            arrives(&loaded, from.0, &p, p.src, (to.ip(), 5080), to, &service);
        }
        for (from, to) in [(A, A_POD), (B, B_POD)] {
            let later = Packet {
                fragment: 0x00b9,
                ..first(5060)
            };
            arrives(&loaded, from.0, &later, later.src, (to.ip(), 5080), to, &[]);
        }
        // And back.
        let reply = Packet {
            fragment: 0x2000,
            no_checksum: true,
            ..packet(UDP, (A_POD.ip(), 5080), (DEVICE, 4000))
        };
        arrives(
            &loaded,
            A_POD.0,
            &reply,
            (VIP, 5060),
            reply.dst,
            A,
            &[PacketPath::Reply],
        );
        let later = Packet {
            fragment: 0x00b9,
            ..reply
        };
        arrives(&loaded, A_POD.0, &later, (VIP, 5080), later.dst, A, &[]);
    });
}

#[test]
fn names_are_asked_in_its_owners_place_and_nothing_else_of_the_host_or_beyond() {
    with_pods(|loaded| {
        let question = packet(UDP, (DEVICE, 4000), (GATEWAY, 53));
        let key = FlowKey {
            src: DEVICE.into(),
            dst: GATEWAY.into(),
            sport: 4000,
            dport: 53,
            protocol: UDP,
            behind: [0; 3],
        };
        let host = Pod {
            flags: POD_IS_HOST,
            ..Pod::default()
        };
        let gateway_mac = [2, 0, 0, 0, 0, 1];
        for owner in [A, B] {
            let port = Asked::of(&key, owner.ip().into(), &host)
                .unwrap()
                .addresses
                .ports
                .src;
            let asked = becomes(&question, (owner.ip(), port), question.dst, gateway_mac);
            let wanted = (REDIRECT, asked, (vec![], vec![(PacketPath::Host, 1)]));
            assert_eq!(sent(&loaded, owner.0, &question), wanted);
            let answer = packet(UDP, (GATEWAY, 53), (owner.ip(), port));
            arrives(&loaded, HOST, &answer, answer.src, question.src, owner, &[]);
            // In two parts.
            let first = Packet {
                fragment: 0x2000,
                no_checksum: true,
                ..answer.clone()
            };
            arrives(&loaded, HOST, &first, first.src, question.src, owner, &[]);
            let later = Packet {
                fragment: 0x00b9,
                ..first
            };
            arrives(&loaded, HOST, &later, later.src, question.src, owner, &[]);
            // Its owner asks from the same port: the answer is its own.
            let own = packet(UDP, (owner.ip(), port), (GATEWAY, 53));
            assert_eq!(sent(&loaded, owner.0, &own).0, REDIRECT);
            arrives_as_it_is(&loaded, HOST, &answer, owner);
            assert_eq!(sent(&loaded, owner.0, &question).0, REDIRECT);
            arrives(&loaded, HOST, &answer, answer.src, question.src, owner, &[]);
        }
        for (protocol, to) in [
            (UDP, (GATEWAY, 54)),
            (1, (GATEWAY, 53)),
            (UDP, (OUTSIDE, 53)),
            (6, (OUTSIDE, 80)),
        ] {
            let p = packet(protocol, (DEVICE, 4000), to);
            dropped(&loaded, A.0, &p, DropReason::BehindToOutside);
        }
        // What the owner has given its own address goes out.
        let masqueraded = packet(UDP, (A.ip(), 4000), (OUTSIDE, 53));
        let passed = (PASS, masqueraded.bytes(), (vec![], vec![(PacketPath::Stack, 1)]));
        assert_eq!(sent(&loaded, A.0, &masqueraded), passed);
    });
}

#[test]
fn a_subnet_goes_with_its_pod_or_when_it_is_not_wanted_and_leaves_nothing() {
    with_pods(|mut loaded| {
        let of_a = service(Protocol::Udp, 5060, &[(A_POD.ip(), 5080)]);
        loaded.datapath.sync_services(&[of_a]).unwrap();
        let question = packet(UDP, (DEVICE, 4000), (VIP, 5060));
        let opened = |loaded: &Loaded| loaded.datapath.backend_stats().unwrap()[0].new_flows;
        let asks = |loaded: &Loaded| assert_eq!(sent(loaded, A.0, &question).0, REDIRECT);
        asks(&loaded);
        // Nothing changes for what is there.
        assert_eq!(
            loaded.datapath.sync_subnets(&wanted()).unwrap(),
            Default::default()
        );
        let again = Datapath::ensure(&loaded.dir()).unwrap();
        assert_eq!(again.sync_subnets(&wanted()).unwrap(), Default::default());
        asks(&loaded);
        assert_eq!(opened(&loaded), 1);

        // The direct answer of a backend whose flow is forgotten is not the service's.
        let answer = packet(UDP, (A_POD.ip(), 5080), (DEVICE, 4000));
        let mut without = wanted();
        without[0].subnets.clear();
        let report = loaded.datapath.sync_subnets(&without).unwrap();
        assert_eq!((report.written, report.removed), (0, 1));
        dropped(&loaded, A.0, &question, DropReason::ForeignSource);
        assert_eq!(sent(&loaded, A_POD.0, &answer).0, PASS);
        // The other realm's is still there, and so is what is longer.
        arrives_as_it_is(&loaded, B_POD.0, &udp(B_POD.ip(), DEVICE), B);
        arrives_as_it_is(&loaded, A_POD.0, &udp(A_POD.ip(), OF_PART), A_PART);

        loaded.datapath.sync_subnets(&wanted()).unwrap();
        arrives_as_it_is(&loaded, A_POD.0, &answer, A);
        asks(&loaded);
        assert_eq!(opened(&loaded), 2, "the flow of before is forgotten");
        loaded.datapath.remove_pod(A.ip()).unwrap();
        assert_eq!(sent(&loaded, A_POD.0, &answer).0, PASS);
        // The address comes back with another pod, and has nothing behind it.
        let entry = pod(A.ip(), A.mac(), A.0, false);
        loaded.datapath.add_pod(&entry).unwrap();
        let sending = Sending {
            group: None,
            realm: Some("a"),
        };
        loaded.datapath.set_sender(A.0, &sending).unwrap();
        dropped(&loaded, A.0, &question, DropReason::ForeignSource);
    });
}

#[test]
fn a_subnet_may_be_wanted_before_its_pod_is_there() {
    with_pods(|loaded| {
        let later = Who(41);
        let net = (Ipv4Addr::new(10, 47, 0, 0), 16);
        let mut more = wanted();
        more.push(owned(later, "a", &[net]));
        loaded.datapath.sync_subnets(&more).unwrap();
        let there = udp(A_POD.ip(), Ipv4Addr::new(10, 47, 0, 1));
        dropped(&loaded, A_POD.0, &there, DropReason::NoPod);
        let entry = pod(later.ip(), later.mac(), later.0, false);
        loaded.datapath.add_pod(&entry).unwrap();
        // Not before its realm is known: the address may have been another's.
        dropped(&loaded, A_POD.0, &there, DropReason::OtherRealm);
        let sending = Sending {
            group: None,
            realm: Some("a"),
        };
        loaded.datapath.set_sender(later.0, &sending).unwrap();
        arrives_as_it_is(&loaded, A_POD.0, &there, later);
    });
}

#[test]
fn devices_share_what_the_group_of_their_owner_may_take() {
    with_pods(|mut loaded| {
        let of_both = [
            service(Protocol::Udp, 5060, &[(A_POD.ip(), 5080)]),
            service(Protocol::Udp, 5061, &[(B_POD.ip(), 5080)]),
        ];
        loaded.datapath.sync_services(&of_both).unwrap();
        let flow = |number: u32, port| {
            let device = Ipv4Addr::from(u32::from(DEVICE) & 0xffff_0000 | number & 0xff);
            packet(UDP, (device, 1024 + (number >> 8) as u16), (VIP, port))
        };
        // A second and what it gives back may pass meanwhile.
        let many = share::FLOWS + 60 * share::FLOWS_PER_SECOND;
        for number in 0..many {
            assert_eq!(run_at(&loaded, A.0, &flow(number, 5060).bytes()).0, REDIRECT);
        }
        assert_eq!(run_at(&loaded, B.0, &flow(0, 5061).bytes()).0, REDIRECT);
        let beyond = loaded.datapath.beyond_shares().unwrap();
        assert_eq!(beyond.keys().collect::<Vec<_>>(), [&A.ip()], "{beyond:?}");
        // What is beyond is served as well.
        let last = flow(many - 1, 5060);
        let answer = packet(UDP, (A_POD.ip(), 5080), last.src);
        arrives(
            &loaded,
            A_POD.0,
            &answer,
            (VIP, 5060),
            last.src,
            A,
            &[PacketPath::Reply],
        );
        // Fragments of all together.
        let fragment = Packet {
            fragment: 0x00b9,
            ..packet(UDP, (DEVICE, 4000), (A_POD.ip(), 7000))
        };
        let dropped = || loaded.datapath.counters().unwrap().drops[&DropReason::FragmentBeyondShare];
        let flood =
            || (0..=share::FRAGMENTS_PER_SECOND).for_each(|_| drop(run_at(&loaded, A.0, &fragment.bytes())));
        assert!((0..3).any(|_| {
            flood();
            dropped() > 0
        }));
    });
}
