//! The element: Gx in Diameter (TS 29.212, 4.5 and 5.6; RFC 4006).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_lab_diameter::codes::{application, avp, command, result};
use gantry_lab_diameter::{Avp, Avps, Identity, MAX_NAME_BYTES, Message, Peer, Service};

use crate::sessions::{Outcome, Sessions, Step};

/// What the counts are called.
const STEPS: [(Step, &str); 3] = [
    (Step::Initial, "CCR-I"),
    (Step::Update, "CCR-U"),
    (Step::Termination, "CCR-T"),
];

/// Requests of a kind.
#[derive(Debug, Default)]
pub struct Count {
    /// All.
    pub asked: AtomicU64,
    /// Those that were not answered with success.
    pub refused: AtomicU64,
    /// Those about a session of which nothing is known.
    pub unknown: AtomicU64,
}

/// See the module.
pub struct Pcrf {
    identity: Identity,
    sessions: Mutex<Sessions>,
    counts: [Count; STEPS.len()],
}

impl Pcrf {
    /// Without sessions.
    pub fn new(identity: Identity, max_sessions: usize) -> Self {
        Self {
            identity,
            sessions: Mutex::new(Sessions::new(max_sessions)),
            counts: Default::default(),
        }
    }

    /// What is remembered.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By kind of request.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &Count)> {
        STEPS.iter().map(|(_, name)| *name).zip(&self.counts)
    }

    fn credit_control(&self, request: &Message) -> Message {
        let kind = request.avps.number(avp::CC_REQUEST_TYPE);
        let at = match kind {
            Some(1) => 0,
            Some(2) => 1,
            Some(3) => 2,
            Some(_) => return self.told(request, result::INVALID_AVP_VALUE),
            None => return self.told(request, result::MISSING_AVP),
        };
        let (session, pgw) = (request.text(avp::SESSION_ID), request.text(avp::ORIGIN_HOST));
        if session.is_empty() || pgw.is_empty() {
            return self.told(request, result::MISSING_AVP);
        }
        if session.len().max(pgw.len()) > MAX_NAME_BYTES {
            return self.told(request, result::INVALID_AVP_LENGTH);
        }
        let (step, _) = STEPS[at];
        let outcome = self.sessions().step(step, session, pgw);
        let code = match (outcome, step) {
            (Outcome::Done, _) | (Outcome::UnknownSession, Step::Termination) => result::SUCCESS,
            (Outcome::UnknownSession, _) => result::UNKNOWN_SESSION_ID,
            (Outcome::Full, _) => result::UNABLE_TO_COMPLY,
        };
        let count = &self.counts[at];
        let add = |to: &AtomicU64, is: bool| to.fetch_add(u64::from(is), Ordering::Relaxed);
        add(&count.asked, true);
        add(&count.refused, code != result::SUCCESS);
        add(&count.unknown, outcome == Outcome::UnknownSession);
        self.told(request, code)
    }

    /// An answer, with what each of them has: the application, and which request it was.
    fn told(&self, request: &Message, code: u32) -> Message {
        let mut avps = self.identity.coming_to(code);
        avps.push(Avp::number(avp::AUTH_APPLICATION_ID, application::GX));
        for code in [avp::CC_REQUEST_TYPE, avp::CC_REQUEST_NUMBER] {
            avps.extend(request.avps.find(code).cloned());
        }
        request.answer(avps)
    }
}

impl Service for Pcrf {
    async fn answer(&self, request: Message, _from: &Peer) -> Message {
        match (request.header.application, request.header.command) {
            (application::GX, command::CREDIT_CONTROL) => self.credit_control(&request),
            _ => request.unknown(&self.identity),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn pcrf() -> Pcrf {
        let identity = Identity {
            host: "pcrf.epc.lab".to_owned(),
            realm: "epc.lab".to_owned(),
            address: Ipv4Addr::LOCALHOST,
            product: "test",
            applications: vec![],
        };
        Pcrf::new(identity, 1)
    }

    fn request(kind: u32, session: &str) -> Message {
        let avps = vec![
            Avp::text(avp::SESSION_ID, session),
            Avp::text(avp::ORIGIN_HOST, "pgw1.epc.lab"),
            Avp::number(avp::CC_REQUEST_TYPE, kind),
            Avp::number(avp::CC_REQUEST_NUMBER, 7),
        ];
        Message::request(application::GX, command::CREDIT_CONTROL, avps)
    }

    #[test]
    fn an_answer_says_which_request_it_was() {
        let answer = pcrf().credit_control(&request(1, "s"));
        assert_eq!(answer.result(), Some(result::SUCCESS));
        assert_eq!(answer.text(avp::SESSION_ID), "s");
        let number = |code| answer.avps.number(code);
        assert_eq!(number(avp::CC_REQUEST_TYPE), Some(1));
        assert_eq!(number(avp::CC_REQUEST_NUMBER), Some(7));
        assert_eq!(number(avp::AUTH_APPLICATION_ID), Some(application::GX));
    }

    #[test]
    fn a_session_with_an_endless_name_is_refused() {
        let pcrf = pcrf();
        let told = |length| pcrf.credit_control(&request(1, &"s".repeat(length))).result();
        assert_eq!(told(MAX_NAME_BYTES + 1), Some(result::INVALID_AVP_LENGTH));
        assert_eq!(pcrf.sessions().count(), 0);
        assert_eq!(told(MAX_NAME_BYTES), Some(result::SUCCESS));
    }

    #[test]
    fn an_end_is_always_one() {
        let pcrf = pcrf();
        let told = |kind, session| pcrf.credit_control(&request(kind, session)).result();
        assert_eq!(told(3, "never"), Some(result::SUCCESS));
        assert_eq!(told(2, "never"), Some(result::UNKNOWN_SESSION_ID));
        assert_eq!(told(1, "a"), Some(result::SUCCESS));
        assert_eq!(told(1, "b"), Some(result::UNABLE_TO_COMPLY), "it is full");
        assert_eq!(told(9, "a"), Some(result::INVALID_AVP_VALUE));
        let unknown: Vec<u64> = pcrf
            .counts()
            .map(|(_, count)| count.unknown.load(Ordering::Relaxed))
            .collect();
        assert_eq!(unknown, [0, 1, 1]);
    }
}
