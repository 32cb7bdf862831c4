//! Which packet goes into which tunnel, and which one may come out of it. No I/O.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use gantry_lab_gtp::{USER_PORT, user};
use gantry_lab_radio::Tunnel;

/// Bytes of an IPv4 header without options.
const IPV4_BYTES: usize = 20;

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// No packet of IPv4.
    NotIpv4,
    /// No attached device has its source address.
    UnknownSource,
    /// The device is idle; its service was asked for.
    Idle,
    /// No tunnel has this name.
    UnknownTeid,
    /// The tunnel is another device's than its destination.
    WrongDestination,
    /// No GTP-U, or none that is spoken here.
    Malformed,
    /// The kernel did not take it.
    NotSent,
}

impl DropReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::NotIpv4,
        Self::UnknownSource,
        Self::Idle,
        Self::UnknownTeid,
        Self::WrongDestination,
        Self::Malformed,
        Self::NotSent,
    ];

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotIpv4 => "not_ipv4",
            Self::UnknownSource => "unknown_source",
            Self::Idle => "idle",
            Self::UnknownTeid => "unknown_teid",
            Self::WrongDestination => "wrong_destination",
            Self::Malformed => "malformed",
            Self::NotSent => "not_sent",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bearer {
    nth: usize,
    sgw: Tunnel,
    own_teid: u32,
    idle: bool,
}

/// Tunnels of the devices that are attached.
#[derive(Debug, Default)]
pub struct Tunnels {
    by_address: HashMap<Ipv4Addr, Bearer>,
    by_teid: HashMap<u32, Ipv4Addr>,
}

/// Where a packet goes, and what comes before it; or why it goes nowhere, and whose it is.
pub type Up = Result<(SocketAddrV4, [u8; user::HEADER_BYTES]), (DropReason, Option<usize>)>;

impl Tunnels {
    /// A device has this address, and packets of it go to the SGW's end. Whoever had the address has it no longer.
    pub fn add(&mut self, nth: usize, address: Ipv4Addr, sgw: Tunnel, own_teid: u32) {
        self.remove(address);
        let bearer = Bearer {
            nth,
            sgw,
            own_teid,
            idle: false,
        };
        self.by_address.insert(address, bearer);
        self.by_teid.insert(own_teid, address);
    }

    /// It has it no longer.
    pub fn remove(&mut self, address: Ipv4Addr) {
        if let Some(bearer) = self.by_address.remove(&address) {
            self.by_teid.remove(&bearer.own_teid);
        }
    }

    /// Whether its packets may go.
    pub fn set_idle(&mut self, address: Ipv4Addr, idle: bool) {
        if let Some(bearer) = self.by_address.get_mut(&address) {
            bearer.idle = idle;
        }
    }

    /// A packet of a device.
    pub fn up(&self, packet: &[u8]) -> Up {
        let (source, _) = addresses(packet).ok_or((DropReason::NotIpv4, None))?;
        let bearer = self.by_address.get(&source);
        let bearer = bearer.ok_or((DropReason::UnknownSource, None))?;
        if bearer.idle {
            return Err((DropReason::Idle, Some(bearer.nth)));
        }
        let header = user::header(bearer.sgw.teid, packet.len()).ok_or((DropReason::Malformed, None))?;
        Ok((SocketAddrV4::new(bearer.sgw.address, USER_PORT), header))
    }

    /// A packet for a device.
    pub fn down(&self, teid: u32, packet: &[u8]) -> Result<(), DropReason> {
        let address = self.by_teid.get(&teid).ok_or(DropReason::UnknownTeid)?;
        let (_, destination) = addresses(packet).ok_or(DropReason::NotIpv4)?;
        if destination == *address {
            Ok(())
        } else {
            Err(DropReason::WrongDestination)
        }
    }
}

/// Source and destination.
fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let header = packet.first_chunk::<IPV4_BYTES>()?;
    let [.., a, b, c, d, e, f, g, h] = *header;
    (header[0] >> 4 == 4).then(|| (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 45, 0, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

    fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&from.octets());
        packet[16..20].copy_from_slice(&to.octets());
        packet
    }

    fn tunnels() -> Tunnels {
        let mut tunnels = Tunnels::default();
        let sgw = Tunnel {
            address: Ipv4Addr::new(10, 0, 0, 2),
            teid: 5,
        };
        tunnels.add(3, DEVICE, sgw, 9);
        tunnels
    }

    #[test]
    fn a_device_has_its_tunnel() {
        let mut tunnels = tunnels();
        let (to, header) = tunnels.up(&packet(DEVICE, SERVER)).unwrap();
        assert_eq!(to.to_string(), "10.0.0.2:2152");
        assert_eq!(header, [0x30, 0xff, 0, 28, 0, 0, 0, 5]);
        assert_eq!(tunnels.down(9, &packet(SERVER, DEVICE)), Ok(()));
        tunnels.set_idle(DEVICE, true);
        assert_eq!(
            tunnels.up(&packet(DEVICE, SERVER)),
            Err((DropReason::Idle, Some(3)))
        );
        tunnels.remove(DEVICE);
        let none = tunnels.down(9, &packet(SERVER, DEVICE));
        assert_eq!(none, Err(DropReason::UnknownTeid));
    }

    #[test]
    fn what_is_not_a_devices_goes_nowhere() {
        let tunnels = tunnels();
        let up = |packet: &[u8]| tunnels.up(packet).unwrap_err().0;
        assert_eq!(up(&packet(SERVER, DEVICE)), DropReason::UnknownSource);
        assert_eq!(up(&[0x60; 40]), DropReason::NotIpv4);
        assert_eq!(up(&[]), DropReason::NotIpv4);
        let down = tunnels.down(9, &packet(DEVICE, SERVER));
        assert_eq!(down, Err(DropReason::WrongDestination));
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }

    #[test]
    fn an_address_that_another_gets_is_its_own() {
        let mut tunnels = tunnels();
        let sgw = Tunnel {
            address: Ipv4Addr::new(10, 0, 0, 2),
            teid: 6,
        };
        tunnels.add(4, DEVICE, sgw, 10);
        let old = tunnels.down(9, &packet(SERVER, DEVICE));
        assert_eq!(old, Err(DropReason::UnknownTeid));
        assert_eq!(tunnels.down(10, &packet(SERVER, DEVICE)), Ok(()));
    }
}
