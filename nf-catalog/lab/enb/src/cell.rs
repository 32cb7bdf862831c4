//! The devices of an eNB, from being switched on to being gone. No I/O: time and messages are told, and what is to be done is returned.

mod counts;
mod heard;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gantry_lab_aka::{Seen, Subscriber};
use gantry_lab_radio::{Tunnel, Up};

pub use counts::Counts;

/// How long an MME may take (T3410 and T3417 of TS 24.301, table 10.2.1, are 15 s and 5 s; one for all).
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at who has waited for too long.
const LOOK: Duration = Duration::from_millis(500);

/// What does not change.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// This end of S1-U.
    pub own: Ipv4Addr,
    /// Least time between two beginnings: of attaches, services and detaches.
    pub between: Duration,
    /// After a failed attach; never again if absent.
    pub retry: Option<Duration>,
    /// TEIDs count from here: another place after a restart, so that packets of old tunnels fit none.
    pub first_teid: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the MME.
    Say(Up),
    /// A device has this address, and this tunnel.
    Add {
        /// Which.
        nth: usize,
        /// Its address.
        address: Ipv4Addr,
        /// The SGW's end.
        sgw: Tunnel,
        /// This end.
        own_teid: u32,
    },
    /// It has it no longer.
    Remove(Ipv4Addr),
    /// Whether packets of this address may go.
    Idle(Ipv4Addr, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not attached; once more at that time, if ever.
    Off(Option<Instant>),
    /// Asked for, since then; then with what it was given.
    Attaching(Instant, Option<(Ipv4Addr, Tunnel)>),
    /// Attached. Something is asked for since then.
    On {
        address: Ipv4Addr,
        idle: bool,
        asked: Option<Instant>,
    },
    /// It goes.
    Leaving(Instant, Ipv4Addr),
    /// For good.
    Gone,
}

struct Device {
    subscriber: Subscriber,
    seen: Seen,
    state: State,
    queued: bool,
}

/// See the module.
pub struct Cell {
    config: Config,
    devices: Vec<Device>,
    by_imsi: HashMap<String, usize>,
    queue: VecDeque<usize>,
    next_begin: Option<Instant>,
    next_look: Option<Instant>,
    connected: bool,
    leaving: bool,
    changed: bool,
    counts: Counts,
}

impl Cell {
    /// All are switched off.
    pub fn new(config: Config, subscribers: Vec<Subscriber>) -> Self {
        let devices = subscribers.into_iter().map(|subscriber| Device {
            subscriber,
            seen: Seen::default(),
            state: State::Off(None),
            queued: false,
        });
        let devices: Vec<Device> = devices.collect();
        let numbered = (0..).zip(&devices);
        let by_imsi = numbered
            .map(|(nth, device)| (device.subscriber.imsi.clone(), nth))
            .collect();
        Self {
            config,
            devices,
            by_imsi,
            queue: VecDeque::new(),
            next_begin: None,
            next_look: None,
            connected: false,
            leaving: false,
            changed: true,
            counts: Counts::default(),
        }
    }

    /// What happened.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Those that are attached, with their addresses.
    pub fn attached(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.devices.iter().filter_map(|device| match device.state {
            State::On { address, .. } => Some((device.subscriber.imsi.as_str(), address)),
            _ => None,
        })
    }

    /// Whether the list of them has changed since the last question.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether all have left that were to.
    pub fn is_empty(&self) -> bool {
        let stays = |device: &Device| matches!(device.state, State::On { .. } | State::Leaving(..));
        self.leaving && !self.devices.iter().any(stays)
    }

    /// The MME is there: whoever is not attached does it now, whoever is says that it is.
    pub fn connected(&mut self) {
        self.connected = true;
        for nth in 0..self.devices.len() {
            self.enqueue(nth);
        }
    }

    /// The MME is not there any more: nobody has a tunnel, as far as is known.
    pub fn disconnected(&mut self) -> Vec<Action> {
        self.connected = false;
        self.queue.clear();
        let mut actions = Vec::new();
        for nth in 0..self.devices.len() {
            let device = &mut self.devices[nth];
            device.queued = false;
            match device.state {
                State::Attaching(..) => {
                    device.state = State::Off(None);
                    self.counts.failed("no_mme");
                }
                State::On { address, .. } => {
                    device.state = State::On {
                        address,
                        idle: true,
                        asked: None,
                    };
                    actions.push(Action::Idle(address, true));
                }
                State::Leaving(_, address) => actions.push(self.gone(nth, address, State::Gone)),
                State::Off(_) | State::Gone => {}
            }
        }
        actions
    }

    /// An idle device has packets.
    pub fn wanted(&mut self, nth: usize) {
        self.enqueue(nth);
    }

    /// Makes a device idle; whether it can be.
    pub fn make_idle(&mut self, imsi: &str, now: Instant) -> Option<Action> {
        let device = self
            .by_imsi
            .get(imsi)
            .and_then(|nth| self.devices.get_mut(*nth))?;
        let State::On {
            idle: false,
            asked: asked @ None,
            ..
        } = &mut device.state
        else {
            return None;
        };
        *asked = Some(now);
        let imsi = imsi.to_owned();
        Some(Action::Say(Up::Release { imsi }))
    }

    /// All go, for good.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.queue.clear();
        for nth in 0..self.devices.len() {
            self.devices[nth].queued = false;
            self.enqueue(nth);
        }
    }

    /// What is due now.
    pub fn due(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.next_look.is_none_or(|look| look <= now) {
            self.next_look = Some(now + LOOK);
            self.look(now, &mut actions);
        }
        while self.connected && self.next_begin.is_none_or(|next| next <= now) {
            let Some(nth) = self.queue.pop_front() else {
                break;
            };
            self.devices[nth].queued = false;
            if let Some(begin) = self.begin(nth, now) {
                // Late turns are made up for, by at most one look.
                let earliest = now.checked_sub(LOOK).unwrap_or(now);
                let last = self.next_begin.unwrap_or(now).max(earliest);
                self.next_begin = Some(last + self.config.between);
                actions.push(begin);
            }
        }
        actions
    }

    /// When something will be due.
    pub fn wake(&self) -> Option<Instant> {
        let begin = self
            .next_begin
            .filter(|_| self.connected && !self.queue.is_empty());
        begin.into_iter().chain(self.next_look).min()
    }

    fn enqueue(&mut self, nth: usize) {
        let Some(device) = self.devices.get_mut(nth) else {
            return;
        };
        let has_turn = match device.state {
            State::Off(_) => !self.leaving,
            State::On { idle, .. } => idle || self.leaving,
            State::Attaching(..) | State::Leaving(..) | State::Gone => false,
        };
        if has_turn && !device.queued {
            device.queued = true;
            self.queue.push_back(nth);
        }
    }

    fn teid(&self, nth: usize) -> u32 {
        let nth = u32::try_from(nth).unwrap_or_default();
        self.config.first_teid.wrapping_add(nth)
    }

    fn own_end(&self, nth: usize) -> Tunnel {
        Tunnel {
            address: self.config.own,
            teid: self.teid(nth),
        }
    }

    fn begin(&mut self, nth: usize, now: Instant) -> Option<Action> {
        let tunnel = self.own_end(nth);
        let device = &mut self.devices[nth];
        let imsi = device.subscriber.imsi.clone();
        match &mut device.state {
            State::On { address, .. } if self.leaving => {
                device.state = State::Leaving(now, *address);
                Some(Action::Say(Up::Detach { imsi }))
            }
            State::On {
                idle: true,
                asked: asked @ None,
                ..
            } => {
                *asked = Some(now);
                self.counts.services += 1;
                Some(Action::Say(Up::Service { imsi, tunnel }))
            }
            State::Off(_) if !self.leaving => {
                device.state = State::Attaching(now, None);
                self.counts.attaches += 1;
                Some(Action::Say(Up::Attach { imsi }))
            }
            _ => None,
        }
    }

    fn gone(&mut self, nth: usize, address: Ipv4Addr, next: State) -> Action {
        self.devices[nth].state = next;
        self.changed = true;
        Action::Remove(address)
    }

    /// An attach has failed.
    fn not_attached(&mut self, nth: usize, cause: &str, now: Instant) -> Option<Action> {
        let State::Attaching(_, given) = self.devices[nth].state else {
            return None;
        };
        self.counts.failed(cause);
        self.devices[nth].state = match self.config.retry {
            Some(retry) => State::Off(Some(now + retry)),
            None => State::Gone,
        };
        given.map(|(address, _)| Action::Remove(address))
    }

    /// Who has waited for too long, and whose time has come.
    fn look(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let late = |since: Instant| now.saturating_duration_since(since) >= PATIENCE;
        for nth in 0..self.devices.len() {
            match &mut self.devices[nth].state {
                State::Attaching(since, _) if late(*since) => {
                    actions.extend(self.not_attached(nth, "no_answer", now));
                }
                State::On { asked, .. } if asked.is_some_and(late) => *asked = None,
                State::Leaving(since, address) if late(*since) => {
                    let address = *address;
                    actions.push(self.gone(nth, address, State::Gone));
                }
                State::Off(Some(again)) if *again <= now && self.connected => self.enqueue(nth),
                _ => {}
            }
        }
    }
}
