//! Faults between devices and their network, each of which is counted. No I/O and no clock: a packet is shown, and what becomes of it is
//! returned. See the README.

mod counted;
pub mod packet;
mod sip;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use packet::Datagram;
use sip::Sip;

/// Where a device takes SIP (RFC 3261, 18.1.1).
const SIP_PORT: u16 = 5060;
/// How long the first of a packet's fragments waits, so that the others come before it.
const REORDERED: Duration = Duration::from_millis(20);

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a device.
    Up,
    /// To a device.
    Down,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Audio is lost.
    Loss,
    /// Audio comes twice.
    Duplicate,
    /// Audio comes late.
    Delay,
    /// A registration is answered with another's contact.
    Wrong200,
    /// A BYE is lost.
    DropBye,
    /// Audio goes to the port of SIP.
    RtpWrongPort,
    /// Devices that call hear nothing.
    RtpOneWay,
    /// A challenge shows CK and IK.
    LeakKeys,
    /// A challenge is of a network that does not know the key.
    WrongAutn,
    /// The first fragment of a packet comes after the others.
    ReorderFragments,
}

/// A word that is no fault's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no fault; faults are {names}", names = names())]
pub struct Unknown(String);

/// What is done, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What.
    pub fault: Fault,
    /// To each so many of those that it can be done to, from 1 on.
    pub every: u64,
    /// How late is late.
    pub delay: Duration,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on as it is.
    Passes,
    /// It goes nowhere.
    Lost,
    /// It goes on twice.
    Twice,
    /// It goes on, after that time.
    Later(Duration),
    /// This goes on in its place.
    Changed(Vec<u8>),
}

/// See the module.
#[derive(Debug)]
pub struct Faults {
    plan: Plan,
    met: u64,
    injected: u64,
    /// Devices that have called somebody.
    callers: HashSet<Ipv4Addr>,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Loss,
        Self::Duplicate,
        Self::Delay,
        Self::Wrong200,
        Self::DropBye,
        Self::RtpWrongPort,
        Self::RtpOneWay,
        Self::LeakKeys,
        Self::WrongAutn,
        Self::ReorderFragments,
    ];

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::Delay => "delay",
            Self::Wrong200 => "wrong-200",
            Self::DropBye => "drop-bye",
            Self::RtpWrongPort => "rtp-wrong-port",
            Self::RtpOneWay => "rtp-one-way",
            Self::LeakKeys => "leak-keys",
            Self::WrongAutn => "wrong-autn",
            Self::ReorderFragments => "reorder-fragments",
        }
    }
}

fn names() -> String {
    Fault::ALL.map(Fault::word).join(", ")
}

impl FromStr for Fault {
    type Err = Unknown;

    fn from_str(word: &str) -> Result<Self, Unknown> {
        let found = Self::ALL.into_iter().find(|fault| fault.word() == word);
        found.ok_or_else(|| Unknown(word.to_owned()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Faults {
    /// None yet.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            met: 0,
            injected: 0,
            callers: HashSet::new(),
        }
    }

    /// What is done.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// How often it was done.
    pub fn injected(&self) -> u64 {
        self.injected
    }

    /// A packet goes by.
    pub fn pass(&mut self, way: Way, packet: &[u8]) -> Fate {
        let Some(fate) = self.fate(way, packet) else {
            return Fate::Passes;
        };
        self.met += 1;
        if !self.met.is_multiple_of(self.plan.every.max(1)) {
            return Fate::Passes;
        }
        self.injected += 1;
        fate
    }

    /// What can be done to it; `None` if nothing.
    fn fate(&mut self, way: Way, packet: &[u8]) -> Option<Fate> {
        if self.plan.fault == Fault::ReorderFragments {
            let fragment = packet::fragment(packet)?;
            return fragment.is_first.then_some(Fate::Later(REORDERED));
        }
        let datagram = Datagram::read(packet)?;
        match way {
            Way::Up => self.up(&datagram),
            Way::Down if is_rtp(datagram.payload) => self.audio(&datagram),
            Way::Down => {
                let changed = self.answer(&Sip::read(datagram.payload)?)?;
                Some(Fate::Changed(datagram.with_payload(&changed)?))
            }
        }
    }

    fn up(&mut self, datagram: &Datagram<'_>) -> Option<Fate> {
        if !matches!(self.plan.fault, Fault::DropBye | Fault::RtpOneWay) || is_rtp(datagram.payload) {
            return None;
        }
        let sip = Sip::read(datagram.payload)?;
        match (self.plan.fault, sip.method()?) {
            (Fault::DropBye, "BYE") => Some(Fate::Lost),
            (Fault::RtpOneWay, "INVITE") if sip.begins_dialog() => {
                self.callers.insert(*datagram.source.ip());
                None
            }
            _ => None,
        }
    }

    /// Each packet of audio goes up and down: what is done to it on its last way is done once.
    fn audio(&self, datagram: &Datagram<'_>) -> Option<Fate> {
        match self.plan.fault {
            Fault::Loss => Some(Fate::Lost),
            Fault::Duplicate => Some(Fate::Twice),
            Fault::Delay => Some(Fate::Later(self.plan.delay)),
            Fault::RtpWrongPort => datagram.to_port(SIP_PORT).map(Fate::Changed),
            Fault::RtpOneWay => self
                .callers
                .contains(datagram.destination.ip())
                .then_some(Fate::Lost),
            Fault::Wrong200
            | Fault::DropBye
            | Fault::LeakKeys
            | Fault::WrongAutn
            | Fault::ReorderFragments => None,
        }
    }

    fn answer(&self, sip: &Sip<'_>) -> Option<Vec<u8>> {
        match self.plan.fault {
            Fault::Wrong200 if sip.answers("200", "REGISTER") => sip.with_another_contact(),
            Fault::LeakKeys if sip.answers("401", "REGISTER") => sip.with_keys(),
            Fault::WrongAutn if sip.answers("401", "REGISTER") => sip.with_wrong_autn(),
            _ => None,
        }
    }
}

/// Version 2 (RFC 3550, 5.1), and no type of RTCP (RFC 5761, 4).
fn is_rtp(payload: &[u8]) -> bool {
    const HEADER_BYTES: usize = 12;
    const RTCP: std::ops::Range<u8> = 64..96;
    payload.len() >= HEADER_BYTES && payload[0] >> 6 == 2 && !RTCP.contains(&(payload[1] & 0x7f))
}
