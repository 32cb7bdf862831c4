//! Each fault, on packets as devices and their network send them.

use super::*;

const DEVICE: &str = "10.45.0.2";
const OTHER: &str = "10.45.0.3";
const NETWORK: &str = "10.200.0.9";

fn at(address: &str, port: u16) -> std::net::SocketAddrV4 {
    format!("{address}:{port}").parse().unwrap()
}

fn down(to: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    packet::write(at(NETWORK, 5060), at(to, port), payload).unwrap()
}

fn up(from: &str, payload: &[u8]) -> Vec<u8> {
    packet::write(at(from, 5060), at(NETWORK, 5060), payload).unwrap()
}

fn rtp(to: &str) -> Vec<u8> {
    down(to, 40_000, &[&[0x80, 0, 0, 1], [0xff; 168].as_slice()].concat())
}

/// A sender's report.
fn rtcp() -> Vec<u8> {
    down(DEVICE, 40_001, &[&[0x80, 200, 0, 6], [0; 24].as_slice()].concat())
}

fn request(method: &str, to_tag: &str) -> Vec<u8> {
    format!(
        "{method} tel:+1 SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\nTo: <tel:+1>{to_tag}\r\nCSeq: 1 {method}\r\n\r\n"
    )
    .into_bytes()
}

fn answer(code: &str, method: &str, header: &str) -> Vec<u8> {
    let text = format!("SIP/2.0 {code} x\r\nTo: <sip:a@b>;tag=1\r\nCSeq: 1 {method}\r\n{header}\r\n\r\n");
    down(DEVICE, 5060, text.as_bytes())
}

fn challenge() -> Vec<u8> {
    let nonce = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    answer(
        "401",
        "REGISTER",
        &format!("WWW-Authenticate: Digest nonce=\"{nonce}\", algorithm=AKAv1-MD5"),
    )
}

fn registered() -> Vec<u8> {
    answer(
        "200",
        "REGISTER",
        "Contact: <sip:001010000000001@10.45.0.2:5060>;expires=60",
    )
}

fn faults(fault: Fault, every: u64) -> Faults {
    let delay = Duration::from_millis(200);
    Faults::new(Plan { fault, every, delay })
}

/// What is done to each of these, and how often something was.
fn play(fault: Fault, packets: &[(Way, Vec<u8>)]) -> (Vec<Fate>, u64) {
    let mut faults = faults(fault, 1);
    let fates = packets.iter().map(|(way, packet)| faults.pass(*way, packet));
    (fates.collect(), faults.injected())
}

/// Of all kinds, one each.
fn traffic() -> Vec<(Way, Vec<u8>)> {
    vec![
        (Way::Up, up(DEVICE, &request("INVITE", ""))),
        (Way::Down, rtp(DEVICE)),
        (Way::Up, rtp(DEVICE)),
        (Way::Down, rtcp()),
        (Way::Down, challenge()),
        (Way::Down, registered()),
        (
            Way::Down,
            answer("200", "INVITE", "Contact: <sip:001010000000001@10.45.0.2:5060>"),
        ),
        (Way::Up, up(DEVICE, &request("BYE", ";tag=2"))),
        (Way::Down, rtp(OTHER)),
        (Way::Up, vec![0x60; 48]),
    ]
}

/// Which of them it is done to.
fn hit(fault: Fault) -> Vec<usize> {
    let (fates, injected) = play(fault, &traffic());
    let hit: Vec<usize> = (0..)
        .zip(&fates)
        .filter(|(_, fate)| **fate != Fate::Passes)
        .map(|(nth, _)| nth)
        .collect();
    assert_eq!(injected, hit.len() as u64, "{fault}");
    hit
}

#[test]
fn each_fault_meets_what_it_is_for_and_nothing_else() {
    for (fault, expected) in [
        (Fault::Loss, vec![1, 8]),
        (Fault::Duplicate, vec![1, 8]),
        (Fault::Delay, vec![1, 8]),
        (Fault::RtpWrongPort, vec![1, 8]),
        (Fault::RtpOneWay, vec![1]),
        (Fault::Wrong200, vec![5]),
        (Fault::DropBye, vec![7]),
        (Fault::LeakKeys, vec![4]),
        (Fault::WrongAutn, vec![4]),
        (Fault::ReorderFragments, vec![]),
    ] {
        assert_eq!(hit(fault), expected, "{fault}");
    }
}

#[test]
fn what_is_done_is_what_was_ordered() {
    let one = |fault, packet: Vec<u8>| play(fault, &[(Way::Down, packet)]).0.remove(0);
    assert_eq!(one(Fault::Loss, rtp(DEVICE)), Fate::Lost);
    assert_eq!(one(Fault::Duplicate, rtp(DEVICE)), Fate::Twice);
    let late = Fate::Later(Duration::from_millis(200));
    assert_eq!(one(Fault::Delay, rtp(DEVICE)), late);
    let text = |fate| match fate {
        Fate::Changed(bytes) => {
            let datagram = Datagram::read(&bytes).unwrap();
            (
                datagram.destination,
                String::from_utf8_lossy(datagram.payload).into_owned(),
            )
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        text(one(Fault::RtpWrongPort, rtp(DEVICE))).0,
        at(DEVICE, SIP_PORT)
    );
    assert!(
        text(one(Fault::Wrong200, registered()))
            .1
            .contains("sip:001010000000002@")
    );
    assert!(text(one(Fault::LeakKeys, challenge())).1.contains(", ik=\""));
    assert!(text(one(Fault::WrongAutn, challenge())).1.contains("AAAAAAAAAE="));
}

#[test]
fn a_fault_comes_as_often_as_it_was_ordered() {
    let mut faults = faults(Fault::Loss, 100);
    let lost = (0..1000).filter(|_| faults.pass(Way::Down, &rtp(DEVICE)) == Fate::Lost);
    assert_eq!(lost.count(), 10);
    assert_eq!(faults.injected(), 10);
    // Of what it is not done to, none counts.
    (0..1000).for_each(|_| assert_eq!(faults.pass(Way::Down, &challenge()), Fate::Passes));
    assert_eq!(faults.injected(), 10);
}

#[test]
fn the_first_of_several_fragments_comes_last() {
    let mut first = rtp(DEVICE);
    first[6] = 0x20;
    let mut second = rtp(DEVICE);
    second[7] = 9;
    let mut faults = faults(Fault::ReorderFragments, 1);
    for way in [Way::Up, Way::Down] {
        assert_eq!(faults.pass(way, &first), Fate::Later(REORDERED));
        assert_eq!(faults.pass(way, &second), Fate::Passes);
        assert_eq!(faults.pass(way, &rtp(DEVICE)), Fate::Passes);
    }
    assert_eq!(faults.injected(), 2);
}

#[test]
fn words_of_faults_are_their_names() {
    for fault in Fault::ALL {
        assert_eq!(fault.word().parse(), Ok(fault));
    }
    let told = "noise".parse::<Fault>().unwrap_err().to_string();
    assert!(
        told.starts_with("`noise` is no fault; faults are loss, duplicate,"),
        "{told}"
    );
}
