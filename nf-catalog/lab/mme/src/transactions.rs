//! Requests of GTPv2-C that wait for their answers (TS 29.274, 7.6). No I/O: time is told.
//!
//! An SGW may have few places for requests, and keep a place for a while after its answer: so requests are spread evenly and few at once.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use gantry_lab_gtp::Message;

/// Requests that wait to be sent, at most.
const WAITING: usize = 4096;
/// Sequence numbers have 24 bits, the highest of which is another one's (7.6: it tells requests that a command has caused).
const SEQUENCES: u32 = 1 << 23;

/// See [`crate::config::S11`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests without an answer at once.
    pub outstanding: usize,
    /// Least time between two requests.
    pub between: Duration,
    /// T3-RESPONSE.
    pub t3: Duration,
    /// N3-REQUESTS.
    pub n3: u32,
}

/// What happened to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent for the first time.
    pub requests: u64,
    /// Sent again.
    pub retransmissions: u64,
    /// Not answered at all.
    pub unanswered: u64,
    /// Answers to nothing: late, or twice.
    pub stray: u64,
}

struct Pending<W> {
    kind: u8,
    bytes: Vec<u8>,
    to: SocketAddrV4,
    again: Instant,
    sent: u32,
    who: W,
}

/// What is to be done.
#[derive(Debug)]
pub struct Due<W> {
    /// Datagrams.
    pub send: Vec<(SocketAddrV4, Vec<u8>)>,
    /// Those whose requests got no answer.
    pub unanswered: Vec<W>,
}

/// See the module. `W` is whoever waits for an answer.
pub struct Transactions<W> {
    limits: Limits,
    waiting: VecDeque<(SocketAddrV4, Message, W)>,
    pending: HashMap<u32, Pending<W>>,
    next_sequence: u32,
    next_request: Option<Instant>,
    counts: Counts,
}

impl<W> Transactions<W> {
    /// None yet. Another first number than before a restart, so that no old answer fits.
    pub fn new(limits: Limits, first_sequence: u32) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            pending: HashMap::new(),
            next_sequence: first_sequence % SEQUENCES,
            next_request: None,
            counts: Counts::default(),
        }
    }

    /// What happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a request; whoever wants it is given back if too many wait.
    pub fn ask(&mut self, to: SocketAddrV4, request: Message, who: W) -> Result<(), W> {
        if self.waiting.len() >= WAITING {
            return Err(who);
        }
        self.waiting.push_back((to, request, who));
        Ok(())
    }

    /// Takes an answer; whoever waits for it.
    pub fn answered(&mut self, from: SocketAddrV4, answer: &Message) -> Option<W> {
        let fits = self
            .pending
            .get(&answer.sequence)
            .is_some_and(|asked| asked.to.ip() == from.ip() && asked.kind.wrapping_add(1) == answer.kind);
        if !fits {
            self.counts.stray += 1;
            return None;
        }
        self.pending.remove(&answer.sequence).map(|asked| asked.who)
    }

    /// What is due now.
    pub fn due(&mut self, now: Instant) -> Due<W> {
        let mut due = Due {
            send: Vec::new(),
            unanswered: Vec::new(),
        };
        self.repeat(now, &mut due);
        while self.may_send(now) {
            let Some((to, mut request, who)) = self.waiting.pop_front() else {
                break;
            };
            request.sequence = self.next_sequence;
            self.next_sequence = (self.next_sequence + 1) % SEQUENCES;
            let asked = Pending {
                kind: request.kind,
                bytes: request.encode(),
                to,
                again: now + self.limits.t3,
                sent: 1,
                who,
            };
            self.counts.requests += 1;
            self.next_request = Some(now + self.limits.between);
            due.send.push((to, asked.bytes.clone()));
            self.pending.insert(request.sequence, asked);
        }
        due
    }

    /// When something will be due.
    pub fn wake(&self) -> Option<Instant> {
        let again = self.pending.values().map(|asked| asked.again).min();
        let next = self
            .next_request
            .filter(|_| !self.waiting.is_empty() && self.has_place());
        again.into_iter().chain(next).min()
    }

    fn has_place(&self) -> bool {
        self.pending.len() < self.limits.outstanding
    }

    fn may_send(&self, now: Instant) -> bool {
        self.has_place() && self.next_request.is_none_or(|next| next <= now)
    }

    fn repeat(&mut self, now: Instant, due: &mut Due<W>) {
        let late = self.pending.iter().filter(|(_, asked)| asked.again <= now);
        let late: Vec<u32> = late.map(|(sequence, _)| *sequence).collect();
        for sequence in late {
            let Some(mut asked) = self.pending.remove(&sequence) else {
                continue;
            };
            if asked.sent >= self.limits.n3 {
                self.counts.unanswered += 1;
                due.unanswered.push(asked.who);
                continue;
            }
            asked.sent += 1;
            asked.again = now + self.limits.t3;
            self.counts.retransmissions += 1;
            due.send.push((asked.to, asked.bytes.clone()));
            self.pending.insert(sequence, asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use gantry_lab_gtp::kind;

    use super::*;

    const SGW: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2123);
    const MS: Duration = Duration::from_millis(1);

    fn with(outstanding: usize, asked: u32) -> (Transactions<u32>, Instant) {
        let limits = Limits {
            outstanding,
            between: 10 * MS,
            t3: 100 * MS,
            n3: 3,
        };
        let mut transactions = Transactions::new(limits, SEQUENCES - 1);
        for who in 0..asked {
            let request = Message::new(kind::CREATE_SESSION_REQUEST, 0, vec![]);
            transactions.ask(SGW, request, who).unwrap();
        }
        (transactions, Instant::now())
    }

    fn answer(sequence: u32) -> Message {
        Message {
            sequence,
            ..Message::new(kind::CREATE_SESSION_RESPONSE, 1, vec![])
        }
    }

    #[test]
    fn requests_are_spread_and_few_at_once() {
        let (mut transactions, now) = with(2, 3);
        assert_eq!(transactions.due(now).send.len(), 1);
        assert_eq!(transactions.wake(), Some(now + 10 * MS));
        assert_eq!(transactions.due(now + 9 * MS).send.len(), 0);
        assert_eq!(transactions.due(now + 10 * MS).send.len(), 1);
        assert_eq!(transactions.due(now + 20 * MS).send.len(), 0, "no place");
        assert_eq!(transactions.wake(), Some(now + 100 * MS));
        assert_eq!(transactions.answered(SGW, &answer(SEQUENCES - 1)), Some(0));
        assert_eq!(transactions.due(now + 20 * MS).send.len(), 1);
        assert_eq!(transactions.answered(SGW, &answer(0)), Some(1));
        assert_eq!(transactions.answered(SGW, &answer(0)), None, "twice");
        assert_eq!(transactions.counts().stray, 1);
    }

    #[test]
    fn a_request_without_an_answer_is_sent_three_times() {
        let (mut transactions, now) = with(2, 1);
        let first = transactions.due(now).send;
        assert_eq!(transactions.due(now + 100 * MS).send, first);
        assert_eq!(transactions.due(now + 199 * MS).send, []);
        assert_eq!(transactions.due(now + 200 * MS).send, first);
        let last = transactions.due(now + 300 * MS);
        assert_eq!((last.send.len(), last.unanswered), (0, vec![0]));
        let expected = Counts {
            requests: 1,
            retransmissions: 2,
            unanswered: 1,
            stray: 0,
        };
        assert_eq!(transactions.counts(), expected);
        assert_eq!(transactions.wake(), None);
    }

    #[test]
    fn an_answer_of_another_kind_or_from_elsewhere_is_none() {
        let (mut transactions, now) = with(1, 1);
        transactions.due(now);
        let mut other = answer(SEQUENCES - 1);
        let elsewhere = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 3), 2123);
        assert_eq!(transactions.answered(elsewhere, &other), None);
        other.kind = kind::DELETE_SESSION_RESPONSE;
        assert_eq!(transactions.answered(SGW, &other), None);
        other.kind = kind::CREATE_SESSION_RESPONSE;
        assert_eq!(transactions.answered(SGW, &other), Some(0));
    }

    #[test]
    fn too_many_are_given_back() {
        let (mut transactions, _) = with(1, WAITING as u32);
        let request = Message::new(kind::DELETE_SESSION_REQUEST, 1, vec![]);
        assert_eq!(transactions.ask(SGW, request, 7), Err(7));
    }
}
