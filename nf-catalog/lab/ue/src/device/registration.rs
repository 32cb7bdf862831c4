//! The registration of a device (TS 24.229, 5.1.1): asked for, challenged, held, asked for anew before it ends.

use gantry_lab_aka::{Challenge, Credentials, NotAuthentic, Seen};

use super::{Device, Purpose};
use crate::sip::{Message, NameAddr, param};

/// How long a device waits before it tries again, in milliseconds: twice as long each time, as often as the second says, and spread
/// (RFC 5626, 4.5, where these times are longer).
const RETRY_MS: u64 = 1000;
const RETRY_DOUBLINGS: u32 = 3;
/// Challenges in a row that it answers: one, and one more after its number was set right.
const CHALLENGES: u32 = 2;

/// Where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody has asked for it.
    #[default]
    Out,
    /// Under way.
    Asking {
        /// Since then.
        since_ms: u64,
        /// Challenges that were answered.
        answered: u32,
        /// It was registered before.
        refresh: bool,
    },
    /// It stands.
    In {
        /// Then it is asked for anew.
        refresh_ms: u64,
    },
    /// It did not work; it is tried again then.
    Failed {
        /// When.
        retry_ms: u64,
    },
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    pub(super) state: State,
    call_id: String,
    tag: String,
    cseq: u32,
    /// Where its requests go first (RFC 3608), as the network has told.
    pub(super) service_routes: Vec<String>,
    /// How often in a row it did not work.
    failures: u32,
    /// It is not asked for any more.
    quiet: bool,
}

impl Registration {
    /// Whether calls may be made.
    pub fn stands(&self) -> bool {
        matches!(self.state, State::In { .. } | State::Asking { refresh: true, .. })
    }

    /// When there is something to do without a word of the network.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        match self.state {
            _ if self.quiet => None,
            State::In { refresh_ms } => Some(refresh_ms),
            State::Failed { retry_ms } => Some(retry_ms),
            State::Out | State::Asking { .. } => None,
        }
    }
}

impl Device {
    /// Asks for no registration any more: what is under way comes to its end before the device does.
    pub fn be_quiet(&mut self) {
        self.registration.quiet = true;
    }

    /// Asks for the registration, for the first time or anew.
    pub(super) fn register(&mut self, now_ms: u64) {
        let refresh = matches!(self.registration.state, State::In { .. });
        if self.registration.call_id.is_empty() {
            self.registration.call_id = self.ids.call_id(*self.config.local.ip());
        }
        // A registration that is begun anew is a new dialog in nobody's eyes but the From tag's.
        self.registration.tag = self.ids.tag();
        self.registration.state = State::Asking {
            since_ms: now_ms,
            answered: 0,
            refresh,
        };
        let count = if refresh {
            &mut self.counts.refreshes
        } else {
            &mut self.counts.registrations
        };
        count.begun += 1;
        let empty = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"\", uri=\"sip:{}\", response=\"\"",
            self.card.private, self.config.domain, self.config.domain
        );
        self.send_register(empty, now_ms);
    }

    fn send_register(&mut self, authorization: String, now_ms: u64) {
        let uri = format!("sip:{}", self.config.domain);
        let own = format!("<{}>", self.card.public);
        self.registration.cseq += 1;
        let mut request = self.request("REGISTER", &uri);
        let headers = &mut request.headers;
        headers.push("From", format!("{own};tag={}", self.registration.tag));
        headers.push("To", own);
        headers.push("Call-ID", &self.registration.call_id);
        headers.push("CSeq", format!("{} REGISTER", self.registration.cseq));
        headers.push(
            "Contact",
            format!("<{}>;expires={}", self.contact(), self.config.expires_s),
        );
        headers.push("Authorization", authorization);
        headers.push("Supported", "path");
        self.ask(request, Purpose::Register, now_ms);
    }

    /// What must be true of each answer to a REGISTER, of one that comes again, too.
    pub(super) fn judge_registration(&mut self, code: u16, response: &Message) {
        let header = response.headers.get("WWW-Authenticate");
        if let Some(challenge) = header.and_then(Challenge::parse) {
            self.counts.leaked_keys += u64::from(challenge.shows_keys);
            // Whether the number is fresh is asked once, where it is answered.
            let answer = challenge.rand_and_autn().map(|(rand, autn)| {
                let key = &self.card.key;
                key.answer(&rand, &autn, &mut Seen::default())
            });
            self.counts.not_authentic += u64::from(matches!(answer, Some(Err(NotAuthentic::Mac))));
        }
        self.counts.wrong_contacts += u64::from(code == 200 && self.granted_s(response).is_none());
    }

    /// The answer to a REGISTER; 0: nobody answered.
    pub(super) fn registered(&mut self, code: u16, response: Option<&Message>, now_ms: u64) {
        let State::Asking {
            since_ms,
            answered,
            refresh,
        } = self.registration.state
        else {
            return;
        };
        match (code, response) {
            (401, Some(response)) => {
                if let Some(authorization) = self.authorization(response, answered) {
                    self.registration.state = State::Asking {
                        since_ms,
                        answered: answered + 1,
                        refresh,
                    };
                    return self.send_register(authorization, now_ms);
                }
            }
            (200, Some(response)) => {
                if let Some(granted_s) = self.granted_s(response) {
                    self.counts.unchallenged += u64::from(answered == 0);
                    return self.stand(response, granted_s, since_ms, refresh, now_ms);
                }
            }
            _ => {}
        }
        let count = if refresh {
            &mut self.counts.refreshes
        } else {
            &mut self.counts.registrations
        };
        count.failed(code);
        let wait_ms = RETRY_MS << self.registration.failures.min(RETRY_DOUBLINGS);
        self.registration.failures += 1;
        self.registration.state = State::Failed {
            retry_ms: now_ms + wait_ms / 2 + self.config.share_of(wait_ms / 2),
        };
    }

    fn stand(&mut self, response: &Message, granted_s: u64, since_ms: u64, refresh: bool, now_ms: u64) {
        let count = if refresh {
            &mut self.counts.refreshes
        } else {
            &mut self.counts.registrations
        };
        count.done(now_ms.saturating_sub(since_ms));
        self.registration.failures = 0;
        let routes = response.headers.list("Service-Route");
        self.registration.service_routes = routes.into_iter().map(str::to_owned).collect();
        let wanted_ms = self.config.refresh_s.min(granted_s * 9 / 10).max(1) * 1000;
        // Devices that came together shall not come together again.
        let spread_ms = wanted_ms * u64::from(self.config.spread_percent) / 100;
        let sooner_ms = self.config.share_of(spread_ms);
        self.registration.state = State::In {
            refresh_ms: now_ms + wanted_ms - sooner_ms,
        };
        if !refresh {
            self.subscribe(now_ms);
        }
    }

    /// The answer to a challenge; `None` if it is none that a card answers, or one too many.
    fn authorization(&mut self, response: &Message, answered: u32) -> Option<String> {
        let header = response.headers.get("WWW-Authenticate")?;
        let challenge = Challenge::parse(header)?;
        let (uri, cnonce) = (format!("sip:{}", self.config.domain), self.ids.tag());
        let who = Credentials {
            username: &self.card.private,
            uri: &uri,
            method: "REGISTER",
            cnonce: &cnonce,
            count: 1,
        };
        let answer = challenge.answer(&self.card.key, &mut self.card.seen, who);
        answer.ok().filter(|_| answered < CHALLENGES)
    }

    /// Seconds for which the network holds the own contact.
    fn granted_s(&self, response: &Message) -> Option<u64> {
        let own = self.contact();
        let contacts = response.headers.list("Contact");
        let contact = contacts
            .iter()
            .filter_map(|value| NameAddr::parse(value))
            .find(|c| c.uri == own)?;
        param(contact.parameters, "expires")?
            .parse()
            .ok()
            .filter(|seconds| *seconds > 0)
    }

    /// The network says that the registration is over, in the words of RFC 3680.
    pub(super) fn reg_event(&mut self, body: &str, now_ms: u64) {
        let over = body.split("<registration").skip(1).any(|registration| {
            let tag = registration.split('>').next().unwrap_or_default();
            tag.contains("state=\"terminated\"")
        });
        if over && self.registration.stands() {
            self.counts.terminated += 1;
            self.registration.state = State::Out;
            self.register(now_ms);
        }
    }
}
