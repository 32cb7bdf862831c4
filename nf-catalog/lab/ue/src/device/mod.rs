//! A device: one subscriber's card in one phone. Pure: it is told what comes and what time it is, and says what goes.

mod callee;
mod calls;
mod dialog;
mod ids;
mod leg;
mod messages;
mod pad;
mod registration;
mod sdp;
mod subscription;

use std::collections::HashMap;
use std::net::SocketAddrV4;

use gantry_lab_aka::{Key, Seen};

use crate::counts::Counts;
use crate::rtp::Packet;
use crate::sip::{Ended, Message, Start, Timers, Transaction, Turn};
pub use calls::Plan;
use ids::Ids;
pub use leg::LegCount;
use registration::{Registration, State};

/// How long answers to requests are kept, for those that come again (64 times T1).
const KEPT_MS: u64 = 32_000;

/// What makes a subscriber one.
pub struct Card {
    /// Private identity.
    pub private: String,
    /// Public identity that is registered.
    pub public: String,
    /// Telephone number, as a URI: another name for it.
    pub number: String,
    /// K and OPc.
    pub key: Key,
    /// Numbers that were taken.
    pub seen: Seen,
}

/// Where and how a device lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// IMS domain.
    pub domain: String,
    /// Own address and port of SIP.
    pub local: SocketAddrV4,
    /// Port of audio at the same address.
    pub audio_port: u16,
    /// The P-CSCF: everything goes there.
    pub proxy: SocketAddrV4,
    /// What is asked for, in seconds.
    pub expires_s: u64,
    /// The registration is asked for anew after so many seconds.
    pub refresh_s: u64,
    /// By how much sooner at most, in percent.
    pub spread_percent: u8,
    /// Where in that this device is: 0 to 1000.
    pub place: u16,
    /// Timers of transactions.
    pub timers: Timers,
    /// Audio that takes longer is late, in milliseconds.
    pub late_ms: u64,
    /// INVITE and MESSAGE have so many bytes at least.
    pub pad_bytes: usize,
}

impl Config {
    /// Own address and port of audio.
    pub fn audio(&self) -> SocketAddrV4 {
        SocketAddrV4::new(*self.local.ip(), self.audio_port)
    }

    fn share_of(&self, whole_ms: u64) -> u64 {
        whole_ms * u64::from(self.place.min(1000)) / 1000
    }
}

/// What a request was sent for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Register,
    Subscribe {
        since_ms: u64,
    },
    Message {
        since_ms: u64,
    },
    Invite,
    Reinvite {
        since_ms: u64,
        direction: sdp::Direction,
    },
    Bye,
}

impl Purpose {
    fn method(&self) -> &'static str {
        match self {
            Self::Register => "REGISTER",
            Self::Subscribe { .. } => "SUBSCRIBE",
            Self::Message { .. } => "MESSAGE",
            Self::Invite | Self::Reinvite { .. } => "INVITE",
            Self::Bye => "BYE",
        }
    }
}

/// A request that waits for its answer.
struct Waiting {
    transaction: Transaction,
    bytes: Vec<u8>,
    purpose: Purpose,
}

/// See the module.
pub struct Device {
    card: Card,
    config: Config,
    ids: Ids,
    registration: Registration,
    subscription: subscription::Subscription,
    /// By branch.
    waiting: HashMap<String, Waiting>,
    /// Answers that were given, by branch and method, and until when they are kept.
    answered: HashMap<(String, String), (Vec<u8>, u64)>,
    call: Option<calls::Call>,
    /// Datagrams to the proxy.
    out: Vec<Vec<u8>>,
    /// Packets of audio, and where to.
    audio_out: Vec<(SocketAddrV4, Vec<u8>)>,
    counts: Counts,
}

impl Device {
    /// One that is switched on, and does nothing by itself; `run` tells its lives apart.
    pub fn new(card: Card, config: Config, run: u64) -> Self {
        let name = card.private.split('@').next().unwrap_or_default().to_owned();
        Self {
            ids: Ids::new(&name, run),
            card,
            config,
            registration: Registration::default(),
            subscription: subscription::Subscription::default(),
            waiting: HashMap::new(),
            answered: HashMap::new(),
            call: None,
            out: Vec::new(),
            audio_out: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// What it has seen so far.
    #[cfg(test)]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Switched off: what it has seen, that of a call that goes on among it.
    pub fn end(mut self, now_ms: u64) -> Counts {
        if let Some(call) = self.call.take() {
            self.call_is_open(call, now_ms);
        }
        self.counts
    }

    /// What goes to the proxy now.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out)
    }

    /// Audio that goes now.
    pub fn take_audio(&mut self) -> Vec<(SocketAddrV4, Vec<u8>)> {
        std::mem::take(&mut self.audio_out)
    }

    /// Audio came.
    pub fn audio(&mut self, bytes: &[u8], now_ms: u64) {
        match self.call.as_mut().and_then(|call| call.leg_mut()) {
            Some(leg) => leg.take(bytes, now_ms),
            None => self.counts.audio_without_call += 1,
        }
    }

    /// Registers from now on.
    pub fn attach(&mut self, now_ms: u64) {
        if self.registration.state == State::Out {
            self.register(now_ms);
        }
    }

    /// When it wants to be looked at again, if nothing comes.
    pub fn wake_ms(&mut self, now_ms: u64) -> Option<u64> {
        let waits = self
            .waiting
            .values_mut()
            .map(|waiting| match waiting.transaction.turn(now_ms) {
                Turn::Wait(until_ms) => until_ms,
                Turn::SendAgain | Turn::Over(_) => now_ms,
            });
        let call = self.call.as_ref().and_then(calls::Call::wake_ms);
        waits.chain(self.registration.wake_ms()).chain(call).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.answered.retain(|_, (_, until_ms)| now_ms < *until_ms);
        let mut silent = Vec::new();
        for (branch, waiting) in &mut self.waiting {
            match waiting.transaction.turn(now_ms) {
                Turn::Wait(_) | Turn::Over(Ended::Answered(_)) => {}
                Turn::SendAgain => {
                    let method = waiting.purpose.method();
                    *self.counts.retransmissions.entry(method).or_default() += 1;
                    self.out.push(waiting.bytes.clone());
                }
                Turn::Over(Ended::TimedOut) => silent.push(branch.clone()),
            }
        }
        for branch in silent {
            if let Some(waiting) = self.waiting.remove(&branch) {
                self.ended(waiting.purpose, 0, None, now_ms);
            }
        }
        if self.registration.wake_ms().is_some_and(|at_ms| at_ms <= now_ms) {
            self.register(now_ms);
        }
        self.call_tick(now_ms);
    }

    /// Something came.
    pub fn datagram(&mut self, bytes: &[u8], now_ms: u64) {
        let Ok(message) = Message::parse(bytes) else {
            match Packet::decode(bytes) {
                Some(_) => self.counts.audio_at_sip += 1,
                None => self.counts.malformed += 1,
            }
            return;
        };
        match &message.start {
            Start::Response { code, .. } => self.response(*code, &message, now_ms),
            Start::Request { .. } => self.asked(&message, now_ms),
        }
    }

    fn response(&mut self, code: u16, message: &Message, now_ms: u64) {
        if message.headers.list("Via").len() != 1 {
            self.counts.wrong_vias += 1;
        }
        if message.method() == "REGISTER" {
            self.judge_registration(code, message);
        }
        let branch = message.branch().unwrap_or_default();
        let Some(waiting) = self.waiting.get_mut(branch) else {
            return self.answered_again(message);
        };
        waiting.transaction.response(code);
        if waiting.purpose == Purpose::Invite && code < 200 {
            self.rings(code, now_ms);
        } else if let Turn::Over(Ended::Answered(code)) = waiting.transaction.turn(now_ms)
            && let Some(waiting) = self.waiting.remove(branch)
        {
            self.ended(waiting.purpose, code, Some(message), now_ms);
        }
    }

    /// A request has its final answer; 0: nobody answered.
    fn ended(&mut self, purpose: Purpose, code: u16, response: Option<&Message>, now_ms: u64) {
        match purpose {
            Purpose::Register => self.registered(code, response, now_ms),
            Purpose::Subscribe { since_ms } => self.subscribed(code, since_ms, now_ms),
            Purpose::Message { since_ms } => self.messaged(code, since_ms, now_ms),
            Purpose::Invite => self.invited(code, response, now_ms),
            Purpose::Reinvite { since_ms, direction } => {
                self.reinvited(code, response, (since_ms, direction), now_ms);
            }
            Purpose::Bye => self.said_bye(code, now_ms),
        }
    }

    /// A request of the network. One that comes again gets the answer that it got.
    fn asked(&mut self, request: &Message, now_ms: u64) {
        if request.method() == "ACK" {
            return self.acknowledged(request, now_ms);
        }
        if let Some((answer, _)) = self.answered.get(&key(request)) {
            self.counts.repeated_requests += 1;
            self.out.push(answer.clone());
            return;
        }
        let (code, reason) = match request.method() {
            "INVITE" => {
                let answer = self.is_called(request, now_ms);
                return self.give(request, answer, now_ms);
            }
            "NOTIFY" if self.subscription.is_its(request) => (200, "OK"),
            "NOTIFY" => (481, "Subscription Does Not Exist"),
            "BYE" if self.was_ended(request, now_ms) => (200, "OK"),
            "BYE" => (481, "Call/Transaction Does Not Exist"),
            "MESSAGE" => {
                self.takes_message(request);
                (200, "OK")
            }
            "OPTIONS" => (200, "OK"),
            _ => (405, "Method Not Allowed"),
        };
        let answer = request.respond(code, reason, &self.ids.tag()).encode();
        self.give(request, answer, now_ms);
        if request.method() == "NOTIFY" && code == 200 {
            self.notified(&String::from_utf8_lossy(&request.body), now_ms);
        }
    }

    fn give(&mut self, request: &Message, answer: Vec<u8>, now_ms: u64) {
        self.out.push(answer.clone());
        self.keep_answer(request, answer, now_ms);
    }

    fn keep_answer(&mut self, request: &Message, answer: Vec<u8>, now_ms: u64) {
        self.answered.insert(key(request), (answer, now_ms + KEPT_MS));
    }

    /// A request with what each of them has.
    fn request(&mut self, method: &str, uri: &str) -> Message {
        let mut request = Message::request(method, uri);
        let via = format!("SIP/2.0/UDP {};branch={}", self.config.local, self.ids.branch());
        request.headers.push("Via", via);
        request.headers.push("Max-Forwards", "70");
        request
    }

    /// One that begins something of its own: by way of the proxy and of whoever serves this subscriber.
    fn first_request(&mut self, method: &str, to: &str) -> Message {
        let (call_id, tag) = (self.ids.call_id(*self.config.local.ip()), self.ids.tag());
        let mut request = self.request(method, to);
        let headers = &mut request.headers;
        headers.push("Route", format!("<sip:{};lr>", self.config.proxy));
        for route in &self.registration.service_routes {
            headers.push("Route", route);
        }
        headers.push("From", format!("<{}>;tag={tag}", self.card.public));
        headers.push("To", format!("<{to}>"));
        headers.push("Call-ID", call_id);
        headers.push("CSeq", format!("1 {method}"));
        request
    }

    fn ask(&mut self, request: Message, purpose: Purpose, now_ms: u64) {
        let branch = request.branch().unwrap_or_default().to_owned();
        let bytes = request.encode();
        self.out.push(bytes.clone());
        let transaction = Transaction::new(self.config.timers, request.method() == "INVITE", now_ms);
        let waiting = Waiting {
            transaction,
            bytes,
            purpose,
        };
        self.waiting.insert(branch, waiting);
    }

    fn contact(&self) -> String {
        let user = self.card.private.split('@').next().unwrap_or_default();
        format!("sip:{user}@{}", self.config.local)
    }
}

/// What a request is known by when it comes again.
fn key(request: &Message) -> (String, String) {
    (
        request.branch().unwrap_or_default().to_owned(),
        request.method().to_owned(),
    )
}

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod tests;
