use gantry_lab_aka::Sqn;

use super::*;
use crate::sip::NameAddr;

const KEY: [u8; 16] = [7; 16];
const ROUTE: &str = "<sip:orig@scscf.ims.lab;lr>";

/// A home network of a few lines: it challenges, and says yes.
pub(super) struct Network {
    key: Key,
    sqn: Sqn,
    /// Behind the challenge.
    extra: &'static str,
    expires: &'static str,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            key: Key::new(KEY, KEY),
            sqn: Sqn::new(32),
            extra: "",
            expires: "600",
        }
    }

    pub(super) fn answer(&mut self, request: &Message) -> Message {
        let authorized = request
            .headers
            .get("Authorization")
            .is_some_and(|a| !a.contains("nonce=\"\""));
        match request.method() {
            "REGISTER" if !authorized => self.challenge(request),
            "REGISTER" => {
                let mut response = request.respond(200, "OK", "n");
                let contact = NameAddr::parse(request.headers.get("Contact").unwrap()).unwrap();
                response
                    .headers
                    .push("Contact", format!("<{}>;expires={}", contact.uri, self.expires));
                response.headers.push("Service-Route", ROUTE);
                response
            }
            _ => request.respond(200, "OK", "n"),
        }
    }

    fn challenge(&mut self, request: &Message) -> Message {
        self.sqn = self.sqn.next();
        let vector = self.key.vector([9; 16], self.sqn);
        let nonce = base64(&[vector.rand, vector.autn].concat());
        let mut response = request.respond(401, "Unauthorized", "n");
        let extra = self.extra;
        response.headers.push(
            "WWW-Authenticate",
            format!("Digest realm=\"ims.lab\", nonce=\"{nonce}\", algorithm=AKAv1-MD5{extra}"),
        );
        response
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| -> String {
        let number = three.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let digit = |at: usize| match at <= three.len() {
            true => char::from(DIGITS[(number >> (18 - 6 * at) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect()
    };
    bytes.chunks(3).map(group).collect()
}

fn device(key: [u8; 16]) -> Device {
    with(1, key)
}

/// The device of a subscriber by its number.
pub(super) fn device_of(number: u8) -> Device {
    with(number, KEY)
}

fn with(number: u8, key: [u8; 16]) -> Device {
    let private = format!("00101000000000{number}@ims.lab");
    let card = Card {
        public: format!("sip:{private}"),
        number: format!("tel:+4900{number}"),
        private,
        key: Key::new(key, key),
        seen: Seen::default(),
    };
    let config = Config {
        domain: "ims.lab".to_owned(),
        local: format!("10.0.0.{number}:5060").parse().unwrap(),
        audio_port: 40_000,
        proxy: "10.0.1.1:5060".parse().unwrap(),
        expires_s: 600,
        refresh_s: 60,
        spread_percent: 50,
        place: 500,
        timers: Timers::default(),
        late_ms: 150,
        pad_bytes: 0,
    };
    Device::new(card, config, 1)
}

/// Answers all that the device says; what that was.
fn talk(device: &mut Device, network: &mut Network, now_ms: u64) -> Vec<Message> {
    let mut said = Vec::new();
    loop {
        let out = device.take();
        if out.is_empty() {
            return said;
        }
        for bytes in out {
            let request = Message::parse(&bytes).unwrap();
            device.datagram(&network.answer(&request).encode(), now_ms);
            said.push(request);
        }
    }
}

fn methods(said: &[Message]) -> Vec<&str> {
    said.iter().map(Message::method).collect()
}

#[test]
fn a_device_registers_subscribes_and_refreshes_before_its_time_is_over() {
    let (mut device, mut network) = (device(KEY), Network::new());
    device.attach(0);
    let said = talk(&mut device, &mut network, 5);
    assert_eq!(methods(&said), ["REGISTER", "REGISTER", "SUBSCRIBE"]);
    let routes = said[2].headers.list("Route");
    assert_eq!(routes, ["<sip:10.0.1.1:5060;lr>", ROUTE]);
    // 60 s, by half of half sooner.
    assert_eq!(device.wake_ms(5), Some(5 + 45_000));
    device.tick(45_005);
    assert!(device.registration.stands());
    assert_eq!(
        methods(&talk(&mut device, &mut network, 45_010)),
        ["REGISTER", "REGISTER"]
    );
    let counts = device.counts();
    assert_eq!(
        (
            counts.registrations.done,
            counts.refreshes.done,
            counts.subscriptions.done
        ),
        (1, 1, 1)
    );
    assert_eq!(counts.registrations.took_ms, [5]);
    let clean = Counts {
        registrations: counts.registrations.clone(),
        refreshes: counts.refreshes.clone(),
        subscriptions: counts.subscriptions.clone(),
        unnotified: 1,
        ..Counts::default()
    };
    assert_eq!(
        *counts, clean,
        "nobody has told of the registration, and nothing else"
    );
    assert_eq!(device.wake_ms(50_000), Some(45_010 + 45_000));
    device.be_quiet();
    assert_eq!(device.wake_ms(50_000), None, "no refresh");
}

#[test]
fn a_network_that_does_not_know_the_key_is_not_believed() {
    let (mut device, mut network) = (device([8; 16]), Network::new());
    device.attach(0);
    talk(&mut device, &mut network, 1);
    let counts = device.counts();
    assert_eq!((counts.not_authentic, counts.registrations.done), (1, 0));
    assert_eq!(counts.registrations.failed.get(&401), Some(&1));
    assert!(!device.registration.stands());
}

#[test]
fn who_is_refused_waits_longer_each_time() {
    let (mut device, mut network) = (device([8; 16]), Network::new());
    device.attach(0);
    talk(&mut device, &mut network, 0);
    let mut now_ms = 0;
    let waits_ms = [(); 5].map(|()| {
        let then_ms = device.wake_ms(now_ms).unwrap();
        device.tick(then_ms);
        talk(&mut device, &mut network, then_ms);
        then_ms - std::mem::replace(&mut now_ms, then_ms)
    });
    assert_eq!(waits_ms, [750, 1500, 3000, 6000, 6000]);
}

#[test]
fn a_number_that_is_not_fresh_is_set_right() {
    let (mut device, mut network) = (device(KEY), Network::new());
    let ahead = network.key.vector([1; 16], Sqn::new(1 << 20));
    assert!(
        device
            .card
            .key
            .answer(&[1; 16], &ahead.autn, &mut device.card.seen)
            .is_ok()
    );
    device.attach(0);
    let first = device.take();
    let request = Message::parse(&first[0]).unwrap();
    device.datagram(&network.answer(&request).encode(), 1);
    let told = Message::parse(&device.take()[0]).unwrap();
    assert!(told.headers.get("Authorization").unwrap().contains("auts=\""));
    network.sqn = Sqn::new(1 << 20);
    device.datagram(&network.challenge(&told).encode(), 2);
    talk(&mut device, &mut network, 3);
    assert_eq!(device.counts().registrations.done, 1);
}

#[test]
fn faults_of_the_network_are_counted_each_for_itself() {
    let (mut device, mut network) = (device(KEY), Network::new());
    network.extra = ", ck=\"00\", ik=\"00\"";
    network.expires = "0";
    device.attach(0);
    talk(&mut device, &mut network, 1);
    assert_eq!(
        (device.counts().leaked_keys, device.counts().wrong_contacts),
        (1, 1)
    );
    device.datagram(b"nonsense", 2);
    let audio = Packet {
        stream: 1,
        number: 0,
        sent_ms: 0,
    };
    device.datagram(&audio.encode(), 2);
    assert_eq!(device.counts().audio_at_sip, 1);
    let stray = Message::request("REGISTER", "sip:x").respond(200, "OK", "t");
    device.datagram(&stray.encode(), 3);
    let counts = device.counts();
    assert_eq!((counts.malformed, counts.stray, counts.wrong_vias), (1, 1, 1));
}

#[test]
fn silence_is_retransmissions_and_then_a_failure_that_is_tried_again() {
    let mut device = device(KEY);
    device.attach(0);
    let mut sent = device.take().len();
    let mut now_ms = 0;
    while device.counts().registrations.failed.is_empty() {
        now_ms = device.wake_ms(now_ms).unwrap();
        device.tick(now_ms);
        sent += device.take().len();
    }
    assert_eq!(
        (sent, device.counts().retransmissions["REGISTER"], now_ms),
        (11, 10, 32_000)
    );
    assert_eq!(device.counts().registrations.failed.get(&0), Some(&1));
    device.tick(33_000);
    assert_eq!(device.counts().registrations.begun, 2);
}

#[test]
fn the_end_of_a_registration_that_the_network_tells_is_acted_on_once() {
    let (mut device, mut network) = (device(KEY), Network::new());
    device.attach(0);
    let said = talk(&mut device, &mut network, 1);
    let subscribe = said.last().unwrap();
    let mut notify = Message::request("NOTIFY", "sip:001010000000001@10.0.0.1:5060");
    let headers = &mut notify.headers;
    headers.push("Via", "SIP/2.0/UDP 10.0.1.1;branch=z9hG4bKn");
    headers.push("From", format!("{};tag=n", subscribe.headers.get("To").unwrap()));
    headers.push("To", subscribe.headers.get("From").unwrap());
    headers.push("Call-ID", subscribe.headers.get("Call-ID").unwrap());
    headers.push("CSeq", "1 NOTIFY");
    notify.body = b"<reginfo><registration aor=\"sip:a\" state=\"terminated\"/></reginfo>".to_vec();
    device.datagram(&notify.encode(), 2);
    device.datagram(&notify.encode(), 3);
    let said: Vec<Message> = device
        .take()
        .iter()
        .map(|bytes| Message::parse(bytes).unwrap())
        .collect();
    assert_eq!(methods(&said), ["NOTIFY", "REGISTER", "NOTIFY"]);
    assert_eq!(
        (device.counts().terminated, device.counts().repeated_requests),
        (1, 1)
    );
    let mut other = notify;
    other.headers = Message::request("NOTIFY", "x").headers;
    other.headers.push("Via", "SIP/2.0/UDP 10.0.1.1;branch=z9hG4bKo");
    device.datagram(&other.encode(), 4);
    assert_eq!(Message::parse(&device.take()[0]).unwrap().code(), Some(481));
}
