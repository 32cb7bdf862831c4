//! What the HSS remembers of each user, and the rules by which that changes (TS 29.228, 6.1 to 6.3; TS 29.272, 5.2). No I/O: what
//! must outlive the process is returned as a record.

use gantry_lab_aka::{Auts, Sqn, Vector};
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
struct State {
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

/// Who serves a user that wants to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorized {
    /// Nobody yet: this one shall.
    First(String),
    /// Somebody does.
    Served(String),
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

    /// UAR for a registration: who shall serve the user. `None` if there is no S-CSCF.
    pub fn authorize(&mut self, nth: Nth) -> Option<Authorized> {
        let state = &self.states[nth];
        let known = [&state.record.server, &state.authenticating];
        if let Some(server) = known.into_iter().find(|server| !server.is_empty()) {
            return Some(Authorized::Served(server.clone()));
        }
        let server = self
            .servers
            .get(self.next_server % self.servers.len().max(1))?
            .clone();
        self.next_server = self.next_server.wrapping_add(1);
        Some(Authorized::First(server))
    }

    /// LIR, and UAR for the end of a registration: who serves the user.
    pub fn location(&self, nth: Nth) -> Option<&str> {
        Some(self.states[nth].record.server.as_str()).filter(|server| !server.is_empty())
    }

    /// MAR: this S-CSCF is about to serve the user.
    pub fn authenticating(&mut self, nth: Nth, server: &str) {
        server.clone_into(&mut self.states[nth].authenticating);
    }

    /// A vector, and the record if that must be kept before it is given out.
    pub fn vector(
        &mut self,
        users: &Users,
        nth: Nth,
        domain: Domain,
        rand: [u8; 16],
    ) -> (Vector, Option<Record>) {
        let state = &mut self.states[nth];
        state.sqn += STEP;
        let reserve = state.sqn >= state.record.sqn_below;
        if reserve {
            state.record.sqn_below = state.sqn + RESERVED * STEP;
        }
        let index = match domain {
            Domain::Ims => 0,
            Domain::Eps => 1,
        };
        let sqn = Sqn::new(state.sqn | index);
        let vector = users.get(nth).key.vector(rand, sqn);
        (vector, reserve.then(|| state.record.clone()))
    }

    /// A card says that it has seen higher numbers: whether it was this user's.
    pub fn resync(&mut self, users: &Users, nth: Nth, rand: &[u8; 16], auts: &Auts) -> bool {
        let Some(told) = users.get(nth).key.resync(rand, auts) else {
            return false;
        };
        let state = &mut self.states[nth];
        state.sqn = told.number() / STEP * STEP;
        true
    }

    /// SAR: an S-CSCF serves the user from now on, or no longer. False if another one does.
    pub fn assign(&mut self, nth: Nth, server: &str, host: &str, why: Assignment) -> (bool, Option<Record>) {
        let state = &mut self.states[nth];
        let before = state.record.clone();
        let is_theirs = before.server.is_empty() || before.server == server;
        match why {
            Assignment::None => return (is_theirs, None),
            Assignment::Registered | Assignment::Unregistered => {
                server.clone_into(&mut state.record.server);
                host.clone_into(&mut state.record.server_host);
                state.record.registered = why == Assignment::Registered;
            }
            // One that no longer serves the user has no say.
            _ if !is_theirs => return (false, None),
            Assignment::GoneButKept => state.record.registered = false,
            Assignment::Gone => {
                state.record.registered = false;
                state.record.server.clear();
                state.record.server_host.clear();
            }
            Assignment::NotAuthenticated => {}
        }
        state.authenticating.clear();
        (true, (state.record != before).then(|| state.record.clone()))
    }

    /// The S-CSCF of a user is forgotten, so that the next registration may go to another one. Returns its DiameterIdentity.
    pub fn release(&mut self, nth: Nth) -> Option<(String, Record)> {
        let record = &mut self.states[nth].record;
        if record.server.is_empty() {
            return None;
        }
        let host = std::mem::take(&mut record.server_host);
        record.server.clear();
        record.registered = false;
        Some((host, record.clone()))
    }

    /// ULR: the user is attached at this MME.
    pub fn attach(&mut self, nth: Nth, mme: &str) -> Option<Record> {
        let record = &mut self.states[nth].record;
        let new = record.mme != mme;
        mme.clone_into(&mut record.mme);
        new.then(|| record.clone())
    }
}

#[cfg(test)]
mod tests {
    use gantry_lab_aka::Seen;

    use super::*;
    use crate::identity::tests::two;

    const A: &str = "sip:a.lab:5060";
    const B: &str = "sip:b.lab:5060";

    fn registry(users: &Users) -> Registry {
        Registry::new(users, vec![A.to_owned(), B.to_owned()])
    }

    #[test]
    fn new_users_are_spread_and_stay_where_they_are() {
        let users = two();
        let mut registry = registry(&users);
        assert_eq!(registry.authorize(0), Some(Authorized::First(A.to_owned())));
        assert_eq!(registry.authorize(1), Some(Authorized::First(B.to_owned())));
        registry.authenticating(0, A);
        assert_eq!(
            registry.authorize(0),
            Some(Authorized::Served(A.to_owned())),
            "between MAR and SAR"
        );
        assert_eq!(registry.location(0), None);
        let (taken, kept) = registry.assign(0, A, "a.lab", Assignment::Registered);
        assert!(taken && kept.is_some_and(|r| r.registered && r.server == A));
        assert_eq!((registry.location(0), registry.registered()), (Some(A), 1));
        assert_eq!(
            registry.assign(0, A, "a.lab", Assignment::Registered),
            (true, None),
            "nothing new to keep"
        );
    }

    #[test]
    fn only_the_one_that_serves_a_user_may_let_go() {
        let users = two();
        let mut registry = registry(&users);
        registry.assign(0, A, "a.lab", Assignment::Registered);
        assert_eq!(registry.assign(0, B, "b.lab", Assignment::Gone), (false, None));
        assert!(registry.assign(0, A, "a.lab", Assignment::GoneButKept).0);
        assert_eq!((registry.location(0), registry.registered()), (Some(A), 0));
        assert!(registry.assign(0, A, "a.lab", Assignment::Gone).0);
        assert_eq!(registry.location(0), None);
    }

    #[test]
    fn a_released_user_may_go_elsewhere() {
        let users = two();
        let mut registry = registry(&users);
        registry.authorize(1);
        registry.assign(0, A, "a.lab", Assignment::Registered);
        let (host, record) = registry.release(0).unwrap();
        assert_eq!((host.as_str(), record.registered), ("a.lab", false));
        assert_eq!(registry.authorize(0), Some(Authorized::First(B.to_owned())));
        assert_eq!(registry.release(0), None);
    }

    #[test]
    fn numbers_never_come_twice_not_even_after_a_restart() {
        let users = two();
        let mut before = registry(&users);
        let mut seen = Seen::default();
        let mut kept = Record::default();
        let mut answer = |vector: &Vector| users.get(0).key.answer(&[7; 16], &vector.autn, &mut seen).is_ok();
        let mut writes = 0;
        for turn in 0..100 {
            let domain = if turn % 2 == 0 { Domain::Ims } else { Domain::Eps };
            let (vector, record) = before.vector(&users, 0, domain, [7; 16]);
            writes += usize::from(record.is_some());
            kept = record.unwrap_or(kept);
            assert!(answer(&vector));
        }
        assert_eq!(writes, 2);
        let mut after = registry(&users);
        after.restore(0, kept);
        assert!(answer(&after.vector(&users, 0, Domain::Ims, [7; 16]).0));
    }

    #[test]
    fn a_card_that_is_ahead_sets_the_number_right() {
        let users = two();
        let key = &users.get(0).key;
        let mut seen = Seen::default();
        let ahead = key.vector([1; 16], Sqn::new(1 << 20));
        assert!(key.answer(&[1; 16], &ahead.autn, &mut seen).is_ok());
        let mut registry = registry(&users);
        let (stale, _) = registry.vector(&users, 0, Domain::Ims, [2; 16]);
        let Some(gantry_lab_aka::NotAuthentic::Sync(auts)) =
            key.answer(&[2; 16], &stale.autn, &mut seen).err()
        else {
            panic!("it is stale")
        };
        assert!(!registry.resync(&users, 1, &[2; 16], &auts), "another's card");
        assert!(registry.resync(&users, 0, &[2; 16], &auts));
        let (fresh, record) = registry.vector(&users, 0, Domain::Ims, [3; 16]);
        assert!(key.answer(&[3; 16], &fresh.autn, &mut seen).is_ok() && record.is_some());
    }
}
