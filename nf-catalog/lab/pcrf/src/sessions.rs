//! Sessions of users' traffic, each at its PGW. No I/O.

use std::collections::{BTreeMap, HashMap};

/// What a request says about a session (CC-Request-Type, RFC 4006, 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins.
    Initial,
    /// Something has changed.
    Update,
    /// It ends.
    Termination,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Nothing is known of it. An end is one nevertheless: see the README.
    UnknownSession,
    /// There are too many.
    Full,
}

/// See the module.
#[derive(Debug)]
pub struct Sessions {
    /// By Session-Id; the PGW's DiameterIdentity.
    known: HashMap<String, String>,
    most: usize,
}

impl Sessions {
    /// None yet, and so many at most.
    pub fn new(most: usize) -> Self {
        Self {
            known: HashMap::new(),
            most,
        }
    }

    /// Takes a step of a session at a PGW. A beginning that is known already is a repetition, or the PGW's own after a restart.
    pub fn step(&mut self, step: Step, session: &str, pgw: &str) -> Outcome {
        let known = self.known.contains_key(session);
        match step {
            Step::Initial if !known && self.known.len() >= self.most => Outcome::Full,
            Step::Initial => {
                self.known.insert(session.to_owned(), pgw.to_owned());
                Outcome::Done
            }
            Step::Update if known => Outcome::Done,
            Step::Termination if self.known.remove(session).is_some() => Outcome::Done,
            Step::Update | Step::Termination => Outcome::UnknownSession,
        }
    }

    /// All.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// By PGW.
    pub fn by_pgw(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for pgw in self.known.values() {
            *counts.entry(pgw.as_str()).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_pgw() {
        let mut sessions = Sessions::new(10);
        for (session, pgw) in [("a", "pgw1"), ("b", "pgw2"), ("c", "pgw1"), ("c", "pgw1")] {
            assert_eq!(sessions.step(Step::Initial, session, pgw), Outcome::Done);
        }
        assert_eq!(sessions.by_pgw(), BTreeMap::from([("pgw1", 2), ("pgw2", 1)]));
        assert_eq!(sessions.step(Step::Termination, "a", "pgw1"), Outcome::Done);
        assert_eq!(sessions.count(), 2);
    }

    #[test]
    fn of_an_unknown_session_it_is_said() {
        let mut sessions = Sessions::new(1);
        assert_eq!(sessions.step(Step::Update, "a", "pgw1"), Outcome::UnknownSession);
        assert_eq!(
            sessions.step(Step::Termination, "a", "pgw1"),
            Outcome::UnknownSession
        );
        assert_eq!(sessions.step(Step::Initial, "a", "pgw1"), Outcome::Done);
        assert_eq!(sessions.step(Step::Update, "a", "pgw1"), Outcome::Done);
        assert_eq!(sessions.step(Step::Initial, "b", "pgw1"), Outcome::Full);
    }
}
