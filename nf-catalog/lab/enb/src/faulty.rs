//! Faults on what is carried: what is to be done with a packet now, and those that come later.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gantry_lab_faults::{Fate, Faults, Plan, Way};

/// Packets that wait at most; more go on at once.
const WAITING: usize = 10_000;

/// What goes on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// The packet as it is, so many times.
    Same(u8),
    /// Another.
    Other(Vec<u8>),
}

/// See the module.
#[derive(Debug)]
pub struct Faulty {
    faults: Faults,
    /// In the order in which they go on: all wait for the same time.
    later: VecDeque<(Instant, Way, Vec<u8>)>,
}

impl Faulty {
    /// None yet.
    pub fn new(plan: Plan) -> Self {
        Self {
            faults: Faults::new(plan),
            later: VecDeque::new(),
        }
    }

    /// How often it was done.
    pub fn injected(&self) -> u64 {
        self.faults.injected()
    }

    /// A packet goes by.
    pub fn pass(&mut self, way: Way, packet: &[u8], now: Instant) -> Now {
        match self.faults.pass(way, packet) {
            Fate::Passes => Now::Same(1),
            Fate::Lost => Now::Same(0),
            Fate::Twice => Now::Same(2),
            Fate::Changed(other) => Now::Other(other),
            Fate::Later(_) if self.later.len() == WAITING => Now::Same(1),
            Fate::Later(after) => {
                self.later.push_back((now + after, way, packet.to_vec()));
                Now::Same(0)
            }
        }
    }

    /// One whose time has come.
    pub fn due(&mut self, now: Instant) -> Option<(Way, Vec<u8>)> {
        let (_, way, packet) = self.later.pop_front_if(|(at, ..)| *at <= now)?;
        Some((way, packet))
    }

    /// How long until the next one.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.later
            .front()
            .map(|(at, ..)| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use gantry_lab_faults::{Fault, packet};

    use super::*;

    #[test]
    fn packets_that_are_late_come_in_their_order() {
        let delay = Duration::from_millis(200);
        let plan = |fault| Plan {
            fault,
            every: 1,
            delay,
        };
        let rtp = |number: u8| {
            let (from, to) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
            packet::write(from, to, &[&[0x80, 0, 0, number], [0; 8].as_slice()].concat()).unwrap()
        };
        let (mut faulty, now) = (Faulty::new(plan(Fault::Delay)), Instant::now());
        assert_eq!(faulty.wait(now), None);
        for number in [1, 2] {
            assert_eq!(faulty.pass(Way::Down, &rtp(number), now), Now::Same(0));
        }
        assert_eq!(faulty.pass(Way::Up, &rtp(3), now), Now::Same(1));
        assert_eq!((faulty.due(now), faulty.wait(now)), (None, Some(delay)));
        for number in [1, 2] {
            assert_eq!(faulty.due(now + delay), Some((Way::Down, rtp(number))));
        }
        assert_eq!((faulty.due(now + delay), faulty.injected()), (None, 2));
        let mut twice = Faulty::new(plan(Fault::Duplicate));
        assert_eq!(twice.pass(Way::Down, &rtp(1), now), Now::Same(2));
    }
}
