//! Two devices and a proxy between them that can do everything wrong.

use super::tests::{Network, device_of};
use super::*;
use crate::counts::Counts;
use crate::sip::NameAddr;

const MS: u64 = 5;

/// What the proxy does to what passes.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Drops the first of this method.
    drop_once: Option<&'static str>,
    /// Delivers each datagram twice.
    doubles: bool,
    /// Leaves out who calls.
    anonymous: bool,
    /// Drops each so many packet of audio.
    loses_audio: Option<u64>,
}

struct Lab {
    ends: [Device; 2],
    networks: [Network; 2],
    faults: Faults,
    now_ms: u64,
    packets: u64,
}

impl Lab {
    fn new(faults: Faults) -> Self {
        let mut lab = Self {
            ends: [device_of(1), device_of(2)],
            networks: [Network::new(), Network::new()],
            faults,
            now_ms: 0,
            packets: 0,
        };
        lab.ends.iter_mut().for_each(|device| device.attach(0));
        lab.run(20);
        lab
    }

    /// All that goes until then, each step a millisecond.
    fn run(&mut self, for_ms: u64) {
        for _ in 0..for_ms {
            self.now_ms += 1;
            for at in 0..2 {
                self.ends[at].tick(self.now_ms);
                for bytes in self.ends[at].take() {
                    self.pass(at, &bytes);
                }
                for (_, packet) in self.ends[at].take_audio() {
                    self.packets += 1;
                    if self
                        .faults
                        .loses_audio
                        .is_none_or(|nth| !self.packets.is_multiple_of(nth))
                    {
                        self.ends[1 - at].audio(&packet, self.now_ms);
                    }
                }
            }
        }
    }

    fn pass(&mut self, from: usize, bytes: &[u8]) {
        let message = Message::parse(bytes).unwrap();
        if ["REGISTER", "SUBSCRIBE"].contains(&message.method()) {
            if message.code().is_none() {
                let answer = self.networks[from].answer(&message);
                self.ends[from].datagram(&answer.encode(), self.now_ms);
            }
            return;
        }
        let what = match &message.start {
            Start::Request { method, .. } => method.clone(),
            Start::Response { code, .. } => code.to_string(),
        };
        if self.faults.drop_once == Some(what.as_str()) {
            self.faults.drop_once = None;
            return;
        }
        let passed = match message.code() {
            None => self.routed(from, &message),
            Some(_) => without_first_via(&message),
        };
        for _ in 0..1 + u8::from(self.faults.doubles) {
            self.ends[1 - from].datagram(&passed.encode(), self.now_ms);
        }
    }

    /// A request as a proxy passes it on.
    fn routed(&self, from: usize, request: &Message) -> Message {
        let Start::Request { method, uri } = &request.start else {
            unreachable!()
        };
        let initial = !request.headers.get("To").unwrap().contains("tag=");
        let target = if initial {
            self.ends[1 - from].contact()
        } else {
            uri.clone()
        };
        let mut passed = Message::request(method, &target);
        let via = format!("SIP/2.0/UDP 10.0.1.1;branch={}-p", request.branch().unwrap());
        passed.headers.push("Via", via);
        for (name, value) in request.headers.iter() {
            passed.headers.push(name, value);
        }
        if initial {
            passed.headers.push("Record-Route", "<sip:10.0.1.1;lr>");
            if !self.faults.anonymous {
                let from = NameAddr::parse(request.headers.get("From").unwrap()).unwrap();
                passed
                    .headers
                    .push("P-Asserted-Identity", format!("<{}>", from.uri));
            }
        }
        passed.body.clone_from(&request.body);
        passed
    }

    fn call(&mut self, talk_ms: u64, hold: bool) {
        let plan = Plan {
            to: "tel:+49002".to_owned(),
            talk_ms,
            hold,
        };
        let now_ms = self.now_ms;
        assert!(self.ends[0].call(plan, now_ms));
    }

    fn counts(&self) -> [&Counts; 2] {
        self.ends.each_ref().map(Device::counts)
    }

    /// Packets that were sent, and of those the ones that did not arrive, both ways.
    fn lost(&self) -> (u64, u64) {
        let [caller, callee] = self.counts();
        let (a, b) = (&caller.legs[0], &callee.legs[0]);
        assert_eq!(
            (a.sent.0, b.sent.0),
            (b.received.0, a.received.0),
            "each hears the other"
        );
        let sent = a.sent.1 + b.sent.1;
        (sent, sent - a.received.1.packets - b.received.1.packets)
    }
}

fn without_first_via(response: &Message) -> Message {
    let mut passed = response.clone();
    passed.headers = Default::default();
    let mut first = true;
    for (name, value) in response.headers.iter() {
        if name != "Via" || !std::mem::take(&mut first) {
            passed.headers.push(name, value);
        }
    }
    passed
}

#[test]
fn a_call_is_made_held_and_ended_and_nothing_is_lost() {
    let mut lab = Lab::new(Faults::default());
    lab.call(9000, true);
    lab.run(12_000);
    let [caller, callee] = lab.counts();
    assert_eq!(
        (caller.calls.done, caller.calls.failed.len(), caller.holds.done),
        (1, 0, 2)
    );
    assert_eq!((callee.taken, callee.ended_by_other), (1, 1));
    assert_eq!(caller.ringing_ms.len(), 1);
    let (sent, lost) = lab.lost();
    // 8.7 s of the caller, 5.7 of the callee, who was on hold for a third.
    assert!(
        (715..=725).contains(&sent) && lost == 0,
        "{sent} sent, {lost} lost"
    );
    for counts in lab.counts() {
        let received = &counts.legs[0].received.1;
        assert!(received.longest_gap_ms <= 20 + MS, "{received:?}");
        assert_eq!(
            (received.doubled, received.foreign, received.reordered),
            (0, 0, 0)
        );
        let faults = counts.retransmissions.len() as u64
            + counts.repeated_requests
            + counts.repeated_responses
            + counts.stray;
        assert_eq!(
            faults + counts.without_identity + counts.wrong_targets + counts.wrong_vias,
            0
        );
    }
}

#[test]
fn what_is_dropped_once_is_sent_again_and_counted() {
    for (method, retransmissions, answers) in [
        ("INVITE", 1, 0),
        ("180", 0, 0),
        ("200", 0, 1),
        ("ACK", 0, 1),
        ("BYE", 1, 0),
    ] {
        let mut lab = Lab::new(Faults {
            drop_once: Some(method),
            ..Faults::default()
        });
        lab.call(3000, false);
        lab.run(8000);
        let [caller, callee] = lab.counts();
        assert_eq!(caller.calls.done, 1, "{method}");
        assert_eq!(
            (caller.retransmissions.values().sum(), callee.repeated_answers),
            (retransmissions, answers),
            "{method}"
        );
        let gap_ms = caller.legs[0].received.1.longest_gap_ms;
        assert!(
            gap_ms <= 600 && (method != "BYE" || gap_ms <= 125),
            "{method}: {gap_ms}"
        );
    }
}

#[test]
fn doubles_losses_and_missing_names_are_counted_for_what_they_are() {
    let mut lab = Lab::new(Faults {
        doubles: true,
        ..Faults::default()
    });
    lab.call(2000, false);
    lab.run(4000);
    let [caller, callee] = lab.counts();
    assert_eq!((caller.calls.done, lab.lost().1), (1, 0));
    assert!(callee.repeated_requests >= 2 && caller.repeated_responses + caller.stray >= 1);
    let mut lab = Lab::new(Faults {
        anonymous: true,
        loses_audio: Some(100),
        ..Faults::default()
    });
    lab.call(10_000, false);
    lab.run(12_000);
    let (sent, lost) = lab.lost();
    assert_eq!(lost, sent / 100);
    assert_eq!(
        (lab.counts()[1].without_identity, lab.counts()[1].wrong_targets),
        (1, 0)
    );
}

#[test]
fn one_call_at_a_time() {
    let mut lab = Lab::new(Faults::default());
    lab.call(3000, false);
    let again = Plan {
        to: "tel:+49002".to_owned(),
        talk_ms: 1,
        hold: false,
    };
    let now_ms = lab.now_ms;
    assert!(!lab.ends[0].call(again.clone(), now_ms));
    lab.run(500);
    let now_ms = lab.now_ms;
    assert!(!lab.ends[1].call(again, now_ms), "it is in a call that it took");
    lab.run(4000);
    assert_eq!(lab.counts()[0].calls.done, 1);
}

#[test]
fn a_message_arrives() {
    let mut lab = Lab::new(Faults::default());
    let now_ms = lab.now_ms;
    assert!(lab.ends[0].message("tel:+49002", &"x".repeat(3000), now_ms));
    lab.run(20);
    assert_eq!(
        (lab.counts()[0].messages.done, lab.counts()[1].messages_taken),
        (1, 1)
    );
}

#[test]
fn a_message_of_another_for_another_or_with_another_text_is_seen() {
    let mut lab = Lab::new(Faults::default());
    let mut taken = |to: &str, change: fn(&mut Message)| {
        assert!(lab.ends[0].message(to, "hello", lab.now_ms));
        let sent = Message::parse(&lab.ends[0].take()[0]).unwrap();
        let mut passed = lab.routed(0, &sent);
        change(&mut passed);
        let before = lab.counts()[1].clone();
        lab.ends[1].datagram(&passed.encode(), lab.now_ms);
        lab.ends[1].take();
        let now = lab.counts()[1];
        [
            now.messages_taken - before.messages_taken,
            now.without_identity - before.without_identity,
            now.wrong_targets - before.wrong_targets,
            now.wrong_texts - before.wrong_texts,
        ]
    };
    assert_eq!(taken("tel:+49002", |_| ()), [1, 0, 0, 0]);
    assert_eq!(taken("sip:001010000000002@ims.lab", |_| ()), [1, 0, 0, 0]);
    assert_eq!(taken("tel:+49003", |_| ()), [1, 0, 1, 0]);
    assert_eq!(
        taken("tel:+49002", |m: &mut Message| m.body = b"hallo".to_vec()),
        [1, 0, 0, 1]
    );
    let other = |m: &mut Message| {
        let text = String::from_utf8(m.encode()).unwrap();
        let text = text.replace("Identity: <sip:001010000000001@", "Identity: <sip:other@");
        *m = Message::parse(text.as_bytes()).unwrap();
    };
    assert_eq!(taken("tel:+49002", other), [1, 1, 0, 0]);
}
