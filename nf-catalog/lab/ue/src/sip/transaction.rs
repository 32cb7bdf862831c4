//! The client's side of a transaction over UDP (RFC 3261, 17.1): when it is sent again, and how it ends. No clock and no socket: times
//! are milliseconds of whoever drives it.

/// Timers of RFC 3261, 17.1.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Round-trip estimate: first time until a request is sent again.
    pub t1_ms: u64,
    /// Longest time between two sendings of what is no INVITE.
    pub t2_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1_ms: 500,
            t2_ms: 4000,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a final response.
    Answered(u16),
    /// Nobody answered within 64 times T1.
    TimedOut,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing before that time.
    Wait(u64),
    /// Send it again, then look anew.
    SendAgain,
    /// It is over.
    Over(Ended),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing came yet.
    Calling,
    /// A provisional response came.
    Proceeding,
    /// It is over.
    Over(Ended),
}

/// One request and its responses.
#[derive(Clone, Debug)]
pub struct Transaction {
    timers: Timers,
    invite: bool,
    state: State,
    begun_ms: u64,
    next_ms: u64,
    interval_ms: u64,
}

impl Transaction {
    /// The request is sent now.
    pub fn new(timers: Timers, invite: bool, now_ms: u64) -> Self {
        Self {
            timers,
            invite,
            state: State::Calling,
            begun_ms: now_ms,
            next_ms: now_ms + timers.t1_ms,
            interval_ms: timers.t1_ms,
        }
    }

    /// A response came.
    pub fn response(&mut self, code: u16) {
        self.state = match (self.state, code) {
            (over @ State::Over(_), _) => over,
            (_, 200..) => State::Over(Ended::Answered(code)),
            _ => State::Proceeding,
        };
    }

    /// What is to be done at this time.
    pub fn turn(&mut self, now_ms: u64) -> Turn {
        let proceeding = match self.state {
            State::Over(ended) => return Turn::Over(ended),
            State::Calling => false,
            State::Proceeding => true,
        };
        // Timer B and F. An INVITE that rings has no end of its own.
        let deadline_ms = match self.invite && proceeding {
            true => u64::MAX,
            false => self.begun_ms + 64 * self.timers.t1_ms,
        };
        if now_ms >= deadline_ms {
            self.state = State::Over(Ended::TimedOut);
            return Turn::Over(Ended::TimedOut);
        }
        // Timer A ends with a provisional response; timer E goes on, at its slowest.
        if self.invite && proceeding {
            return Turn::Wait(deadline_ms);
        }
        if now_ms < self.next_ms {
            return Turn::Wait(self.next_ms.min(deadline_ms));
        }
        self.interval_ms = match (self.invite, proceeding) {
            (true, _) => self.interval_ms * 2,
            (false, true) => self.timers.t2_ms,
            (false, false) => (self.interval_ms * 2).min(self.timers.t2_ms),
        };
        self.next_ms = now_ms + self.interval_ms;
        Turn::SendAgain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When it is sent again, and how it ends, if nothing but these responses comes.
    fn run(invite: bool, responses: &[(u64, u16)]) -> (Vec<u64>, Ended) {
        let mut transaction = Transaction::new(Timers::default(), invite, 0);
        let mut responses = responses.iter().peekable();
        let (mut sent, mut now_ms) = (Vec::new(), 0);
        loop {
            match transaction.turn(now_ms) {
                Turn::Over(ended) => return (sent, ended),
                Turn::SendAgain => sent.push(now_ms),
                Turn::Wait(until_ms) => {
                    now_ms = until_ms;
                    if let Some((at_ms, code)) = responses.next_if(|(at_ms, _)| *at_ms <= until_ms) {
                        now_ms = *at_ms;
                        transaction.response(*code);
                    }
                }
            }
        }
    }

    #[test]
    fn an_invite_that_nobody_answers_is_sent_seven_times() {
        let (sent, ended) = run(true, &[]);
        assert_eq!(sent, [500, 1500, 3500, 7500, 15_500, 31_500]);
        assert_eq!(ended, Ended::TimedOut);
    }

    #[test]
    fn another_request_is_sent_again_every_four_seconds_at_last() {
        let (sent, ended) = run(false, &[]);
        assert_eq!(sent[..5], [500, 1500, 3500, 7500, 11_500]);
        assert_eq!((sent.len(), ended), (10, Ended::TimedOut));
    }

    #[test]
    fn an_answer_in_time_costs_nothing() {
        assert_eq!(run(false, &[(499, 200)]), (vec![], Ended::Answered(200)));
        assert_eq!(
            run(true, &[(10, 100), (200, 180), (60_000, 200)]),
            (vec![], Ended::Answered(200))
        );
        assert_eq!(
            run(false, &[(10, 100), (600, 404)]),
            (vec![500], Ended::Answered(404))
        );
    }
}
