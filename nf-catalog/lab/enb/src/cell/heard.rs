//! What the MME says to the devices of a cell.

use std::net::Ipv4Addr;
use std::time::Instant;

use gantry_lab_aka::NotAuthentic;
use gantry_lab_radio::{Bytes, Down, Tunnel, Up};

use super::{Action, Cell, State};

impl Cell {
    /// What the MME says.
    pub fn heard(&mut self, message: &Down, now: Instant) -> Vec<Action> {
        let Some(&nth) = self.by_imsi.get(message.imsi()) else {
            self.counts.strangers += 1;
            return Vec::new();
        };
        match message {
            Down::Challenge { rand, autn, .. } => vec![self.challenged(nth, &rand.0, &autn.0)],
            Down::Setup { address, tunnel, .. } => self.set_up(nth, *address, *tunnel),
            Down::Accepted { .. } => self.accepted(nth, now),
            Down::Rejected { cause, .. } => self.rejected(nth, cause, now),
            Down::Released { .. } => self.released(nth),
            Down::Page { .. } => {
                self.counts.pages += 1;
                self.enqueue(nth);
                Vec::new()
            }
            Down::Detach { reattach, .. } => self.ordered_out(nth, *reattach),
            Down::Detached { .. } => match self.devices[nth].state {
                State::Leaving(_, address) => {
                    self.counts.detached += 1;
                    vec![self.gone(nth, address, State::Gone)]
                }
                _ => Vec::new(),
            },
        }
    }

    fn challenged(&mut self, nth: usize, rand: &[u8; 16], autn: &[u8; 16]) -> Action {
        let device = &mut self.devices[nth];
        let imsi = device.subscriber.imsi.clone();
        Action::Say(match device.subscriber.key.answer(rand, autn, &mut device.seen) {
            Ok(answer) => Up::Response {
                imsi,
                res: Bytes(answer.res),
            },
            Err(NotAuthentic::Sync(auts)) => {
                self.counts.resynchronisations += 1;
                let auts = Some(Bytes(auts));
                Up::Failure { imsi, auts }
            }
            Err(NotAuthentic::Mac) => {
                self.counts.not_authentic += 1;
                Up::Failure { imsi, auts: None }
            }
        })
    }

    fn set_up(&mut self, nth: usize, address: Ipv4Addr, sgw: Tunnel) -> Vec<Action> {
        let (own_teid, tunnel) = (self.teid(nth), self.own_end(nth));
        let device = &mut self.devices[nth];
        let State::Attaching(_, given @ None) = &mut device.state else {
            return Vec::new();
        };
        *given = Some((address, sgw));
        let imsi = device.subscriber.imsi.clone();
        let add = Action::Add {
            nth,
            address,
            sgw,
            own_teid,
        };
        vec![add, Action::Say(Up::Ready { imsi, tunnel })]
    }

    fn accepted(&mut self, nth: usize, now: Instant) -> Vec<Action> {
        let device = &mut self.devices[nth];
        match device.state {
            State::Attaching(since, Some((address, _))) => {
                self.counts.attached(now - since);
                device.state = State::On {
                    address,
                    idle: false,
                    asked: None,
                };
                self.changed = true;
                if self.leaving {
                    self.enqueue(nth);
                }
                Vec::new()
            }
            State::On { address, .. } => {
                device.state = State::On {
                    address,
                    idle: false,
                    asked: None,
                };
                vec![Action::Idle(address, false)]
            }
            _ => Vec::new(),
        }
    }

    fn rejected(&mut self, nth: usize, cause: &str, now: Instant) -> Vec<Action> {
        match self.devices[nth].state {
            State::Attaching(..) => self.not_attached(nth, cause, now).into_iter().collect(),
            State::Leaving(_, address) => vec![self.gone(nth, address, State::Gone)],
            State::On { address, .. } if cause == "not_attached" => {
                // The MME has forgotten it.
                let action = self.gone(nth, address, State::Off(None));
                self.enqueue(nth);
                vec![action]
            }
            State::On { address, idle, .. } => {
                self.devices[nth].state = State::On {
                    address,
                    idle,
                    asked: None,
                };
                Vec::new()
            }
            State::Off(_) | State::Gone => Vec::new(),
        }
    }

    fn released(&mut self, nth: usize) -> Vec<Action> {
        let State::On { address, .. } = self.devices[nth].state else {
            return Vec::new();
        };
        self.counts.releases += 1;
        self.devices[nth].state = State::On {
            address,
            idle: true,
            asked: None,
        };
        vec![Action::Idle(address, true)]
    }

    fn ordered_out(&mut self, nth: usize, reattach: bool) -> Vec<Action> {
        let State::On { address, .. } = self.devices[nth].state else {
            return Vec::new();
        };
        self.counts.ordered_out += 1;
        let next = if reattach { State::Off(None) } else { State::Gone };
        let removed = self.gone(nth, address, next);
        self.enqueue(nth);
        let imsi = self.devices[nth].subscriber.imsi.clone();
        vec![removed, Action::Say(Up::Detached { imsi })]
    }
}
