//! What the HSS remembers of each user, and the rules by which that changes (TS 29.228, 6.1 to 6.3; TS 29.272, 5.2). No I/O: what
//! must outlive the process is a record.

use gantry_lab_aka::{Auts, Key, Sqn, Vector};
use serde::{Deserialize, Serialize};

use crate::identity::{Nth, Users};

/// How many numbers are reserved in a record at once, so that not each vector is a write.
const RESERVED: u64 = 64;
/// Steps of a number: its sequence counts, its index stays.
const STEP: u64 = 32;

/// What must be the same after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// No number above this one was given out.
    pub sqn_below: u64,
    /// SIP URI of the S-CSCF that serves the user.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Registered; else the name is only kept.
    #[serde(default)]
    pub registered: bool,
    /// DiameterIdentity of that S-CSCF: requests of the HSS go there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_host: String,
    /// DiameterIdentity of the MME that the user is attached at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mme: String,
}

/// Of one user.
#[derive(Clone, Debug, Default)]
pub struct State {
    record: Record,
    /// Last number that was given out.
    sqn: u64,
    /// An S-CSCF that has asked for a vector, until it is assigned.
    authenticating: String,
}

/// For which domain a vector is: each has an index of its own, so that neither makes the other's numbers stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Over Cx.
    Ims,
    /// Over S6a.
    Eps,
}

/// Why an S-CSCF is assigned (Server-Assignment-Type, TS 29.229, 6.3.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// It wants the profile only.
    None,
    /// It serves a user who has registered.
    Registered,
    /// It serves a user who has not.
    Unregistered,
    /// The user is gone.
    Gone,
    /// The user is gone, and the name stays.
    GoneButKept,
    /// The user could not show who it is.
    NotAuthenticated,
}

impl Assignment {
    /// By its number.
    pub fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 | 2 => Self::Registered,
            3 => Self::Unregistered,
            4 | 5 | 8 | 11 => Self::Gone,
            6 | 7 => Self::GoneButKept,
            9 | 10 => Self::NotAuthenticated,
            _ => return None,
        })
    }
}

impl State {
    /// What must be the same after a restart.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// UAR for a registration: who serves the user, or is about to.
    pub fn served(&self) -> Option<&str> {
        let known = [&self.record.server, &self.authenticating];
        known
            .into_iter()
            .map(String::as_str)
            .find(|server| !server.is_empty())
    }

    /// LIR, and UAR for the end of a registration: who serves the user.
    pub fn location(&self) -> Option<&str> {
        Some(self.record.server.as_str()).filter(|server| !server.is_empty())
    }

    /// MAR: this S-CSCF is about to serve the user.
    pub fn authenticating(&mut self, server: &str) {
        server.clone_into(&mut self.authenticating);
    }

    /// A vector for this user's card.
    pub fn vector(&mut self, key: &Key, domain: Domain, rand: [u8; 16]) -> Vector {
        self.sqn += STEP;
        if self.sqn >= self.record.sqn_below {
            self.record.sqn_below = self.sqn + RESERVED * STEP;
        }
        match domain {
            Domain::Ims => key.vector(rand, Sqn::new(self.sqn)),
            Domain::Eps => key.eps_vector(rand, Sqn::new(self.sqn | 1)),
        }
    }

    /// A card says which number it has seen: whether it was this user's. One that would take the next number anyway sets nothing back
    /// (TS 33.102, 6.3.5).
    pub fn resync(&mut self, key: &Key, rand: &[u8; 16], auts: &Auts) -> bool {
        let Some(told) = key.resync(rand, auts) else {
            return false;
        };
        self.sqn = self.sqn.max(told.number() / STEP * STEP);
        true
    }

    /// SAR: an S-CSCF serves the user from now on, or no longer. False if another one does.
    pub fn assign(&mut self, server: &str, host: &str, why: Assignment) -> bool {
        let is_theirs = self.record.server.is_empty() || self.record.server == server;
        match why {
            Assignment::None => return is_theirs,
            Assignment::Registered | Assignment::Unregistered => {
                server.clone_into(&mut self.record.server);
                host.clone_into(&mut self.record.server_host);
                self.record.registered = why == Assignment::Registered;
            }
            // One that no longer serves the user has no say.
            _ if !is_theirs => return false,
            Assignment::GoneButKept => self.record.registered = false,
            Assignment::Gone => self.unserve(),
            Assignment::NotAuthenticated => {}
        }
        self.authenticating.clear();
        true
    }

    /// The S-CSCF of a user is forgotten, so that the next registration may go to another one. Returns its DiameterIdentity, empty if
    /// it was about to serve the user and did not yet.
    pub fn release(&mut self) -> Option<String> {
        self.served()?;
        let host = self.record.server_host.clone();
        self.unserve();
        self.authenticating.clear();
        Some(host)
    }

    fn unserve(&mut self) {
        self.record.registered = false;
        self.record.server.clear();
        self.record.server_host.clear();
    }

    /// ULR: the user is attached at this MME.
    pub fn attach(&mut self, mme: &str) {
        mme.clone_into(&mut self.record.mme);
    }
}

/// See the module.
pub struct Registry {
    states: Vec<State>,
    /// S-CSCFs for new users, in turn.
    servers: Vec<String>,
    next_server: usize,
}

impl Registry {
    /// Nobody is registered; S-CSCFs by their SIP URIs.
    pub fn new(users: &Users, servers: Vec<String>) -> Self {
        Self {
            states: vec![State::default(); users.len()],
            servers,
            next_server: 0,
        }
    }

    /// Goes on where a record ends.
    pub fn restore(&mut self, nth: Nth, record: Record) {
        let state = &mut self.states[nth];
        state.sqn = record.sqn_below;
        state.record = record;
    }

    /// How many are registered.
    pub fn registered(&self) -> usize {
        self.states.iter().filter(|state| state.record.registered).count()
    }

    /// How many are attached.
    pub fn attached(&self) -> usize {
        self.states
            .iter()
            .filter(|state| !state.record.mme.is_empty())
            .count()
    }

    /// Of this user.
    pub fn get(&self, nth: Nth) -> &State {
        &self.states[nth]
    }

    /// From now on it is this.
    pub fn set(&mut self, nth: Nth, state: State) {
        self.states[nth] = state;
    }

    /// The S-CSCF whose turn it is to get a new user. `None` if there is none.
    pub fn next_server(&mut self) -> Option<String> {
        let nth = self.next_server % self.servers.len().max(1);
        let server = self.servers.get(nth)?.clone();
        self.next_server = self.next_server.wrapping_add(1);
        Some(server)
    }
}

#[cfg(test)]
mod tests {
    use gantry_lab_aka::Seen;

    use super::*;
    use crate::identity::tests::two;

    const A: &str = "sip:a.lab:5060";
    const B: &str = "sip:b.lab:5060";

    #[test]
    fn new_users_are_spread() {
        let mut registry = Registry::new(&two(), vec![A.to_owned(), B.to_owned()]);
        let turns = [0; 3].map(|_| registry.next_server().unwrap());
        assert_eq!(turns, [A, B, A]);
        assert_eq!(Registry::new(&two(), vec![]).next_server(), None);
    }

    #[test]
    fn a_user_stays_where_it_is() {
        let mut state = State::default();
        assert_eq!(state.served(), None);
        state.authenticating(A);
        assert_eq!(
            (state.served(), state.location()),
            (Some(A), None),
            "between MAR and SAR"
        );
        assert!(state.assign(A, "a.lab", Assignment::Registered));
        assert!(state.record().registered && state.location() == Some(A));
        let before = state.record().clone();
        assert!(state.assign(A, "a.lab", Assignment::Registered));
        assert_eq!(*state.record(), before, "nothing new to keep");
        let mut registry = Registry::new(&two(), vec![]);
        registry.set(1, state);
        assert_eq!((registry.registered(), registry.attached()), (1, 0));
    }

    #[test]
    fn only_the_one_that_serves_a_user_may_let_go() {
        let mut state = State::default();
        state.assign(A, "a.lab", Assignment::Registered);
        assert!(!state.assign(B, "b.lab", Assignment::Gone));
        assert!(state.assign(A, "a.lab", Assignment::GoneButKept));
        assert_eq!((state.location(), state.record().registered), (Some(A), false));
        assert!(state.assign(A, "a.lab", Assignment::Gone));
        assert_eq!(state.location(), None);
    }

    #[test]
    fn a_released_user_may_go_elsewhere() {
        let mut state = State::default();
        state.assign(A, "a.lab", Assignment::Registered);
        state.authenticating(A);
        assert_eq!(state.release().as_deref(), Some("a.lab"));
        assert_eq!((state.served(), state.record().registered), (None, false));
        assert_eq!(state.release(), None);
    }

    #[test]
    fn a_server_that_never_came_to_serve_a_user_is_released_too() {
        let mut state = State::default();
        state.authenticating(A);
        assert_eq!(state.release().as_deref(), Some(""));
        assert_eq!(state.served(), None);
    }

    #[test]
    fn numbers_never_come_twice_not_even_after_a_restart() {
        let users = two();
        let key = &users.get(0).key;
        let mut before = State::default();
        let mut seen = Seen::default();
        let mut kept = Record::default();
        let mut answer = |vector: &Vector| key.answer(&[7; 16], &vector.autn, &mut seen).is_ok();
        let mut writes = 0;
        for turn in 0..100 {
            let domain = if turn % 2 == 0 { Domain::Ims } else { Domain::Eps };
            let vector = before.vector(key, domain, [7; 16]);
            writes += usize::from(*before.record() != kept);
            kept = before.record().clone();
            assert!(answer(&vector));
        }
        assert_eq!(writes, 2);
        let mut after = Registry::new(&users, vec![]);
        after.restore(0, kept);
        let mut after = after.get(0).clone();
        assert!(answer(&after.vector(key, Domain::Ims, [7; 16])));
    }

    #[test]
    fn a_card_that_is_ahead_sets_the_number_right() {
        let users = two();
        let key = &users.get(0).key;
        let mut seen = Seen::default();
        let ahead = key.vector([1; 16], Sqn::new(1 << 20));
        assert!(key.answer(&[1; 16], &ahead.autn, &mut seen).is_ok());
        let mut state = State::default();
        let stale = state.vector(key, Domain::Ims, [2; 16]);
        let Some(gantry_lab_aka::NotAuthentic::Sync(auts)) =
            key.answer(&[2; 16], &stale.autn, &mut seen).err()
        else {
            panic!("it is stale")
        };
        assert!(
            !state.resync(&users.get(1).key, &[2; 16], &auts),
            "another's card"
        );
        let before = state.record().clone();
        assert!(state.resync(key, &[2; 16], &auts));
        let fresh = state.vector(key, Domain::Ims, [3; 16]);
        assert!(key.answer(&[3; 16], &fresh.autn, &mut seen).is_ok() && *state.record() != before);
        let sqn = state.sqn;
        assert!(state.resync(key, &[2; 16], &auts));
        assert_eq!(state.sqn, sqn, "an old word sets nothing back");
    }
}
