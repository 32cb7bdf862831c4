//! Structures that rtnetlink messages begin with, and what is read from them (linux/rtnetlink.h, linux/neighbour.h).

use std::net::Ipv4Addr;

use nix::libc;

use super::Link;
use super::message::attributes;
use crate::names::Mac;

/// What is known of a route of the main table.
pub struct KnownRoute {
    pub destination: (Ipv4Addr, u8),
    pub gateway: Option<Ipv4Addr>,
    /// `None`: over several.
    pub link: Option<u32>,
    pub metric: u32,
}

/// `struct ifinfomsg`.
pub fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(change.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
pub fn address_header(link: u32, prefix: u8) -> Vec<u8> {
    let mut header = vec![libc::AF_INET as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE];
    header.extend(link.to_ne_bytes());
    header
}

/// `struct ndmsg`.
pub fn neighbour_header(link: u32, state: u16) -> Vec<u8> {
    let mut header = vec![libc::AF_INET as u8, 0, 0, 0];
    header.extend(link.to_ne_bytes());
    header.extend(state.to_ne_bytes());
    header.extend([0, 0]);
    header
}

/// `struct rtmsg`.
pub fn route_header(prefix: u8, scope: u8, flags: u32) -> Vec<u8> {
    let family = libc::AF_INET as u8;
    let mut header = vec![
        family,
        prefix,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        scope,
        libc::RTN_UNICAST,
    ];
    header.extend(flags.to_ne_bytes());
    header
}

/// `None`: of another table than the main one.
pub fn parse_route(payload: &[u8]) -> Option<KnownRoute> {
    if payload.get(4) != Some(&libc::RT_TABLE_MAIN) {
        return None;
    }
    let mut route = KnownRoute {
        destination: (Ipv4Addr::UNSPECIFIED, *payload.get(1)?),
        gateway: None,
        link: None,
        metric: 0,
    };
    let number = |value: &[u8]| value.try_into().ok().map(u32::from_ne_bytes);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            libc::RTA_DST => route.destination.0 = ipv4(value)?,
            libc::RTA_GATEWAY => route.gateway = ipv4(value),
            libc::RTA_OIF => route.link = number(value),
            libc::RTA_PRIORITY => route.metric = number(value)?,
            _ => {}
        }
    }
    Some(route)
}

pub fn parse_link(payload: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let flags = u32::from_ne_bytes(payload.get(8..12)?.try_into().ok()?);
    let (mut name, mut mac) = (String::new(), Mac::default());
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => {
                name = String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned();
            }
            libc::IFLA_ADDRESS => mac = value.try_into().unwrap_or_default(),
            _ => {}
        }
    }
    Some(Link {
        index,
        name,
        mac,
        up: flags & libc::IFF_UP as u32 != 0,
        no_arp: flags & libc::IFF_NOARP as u32 != 0,
    })
}

pub fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}
