//! Links, addresses, routes and neighbours of the calling thread's network namespace, by rtnetlink.
//! The only place that knows netlink. Blocking: this program has nothing else to do.

mod layout;
mod message;

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

use crate::names::Mac;
use layout::{
    KnownRoute, address_header, ipv4, link_header, neighbour_header, parse_link, parse_route, route_header,
};
use message::{Message, attributes, messages};

/// The kernel refused a request.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct NetlinkError {
    operation: String,
    #[source]
    source: Errno,
}

impl NetlinkError {
    /// Does the error say that the object does not exist?
    pub fn is_absent(&self) -> bool {
        matches!(self.source, Errno::ENODEV | Errno::ENOENT | Errno::ESRCH)
    }
}

/// What is known of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Mac,
    pub up: bool,
    /// Neither asks for neighbours nor answers who asks.
    pub no_arp: bool,
}

/// One end of a veth pair to create.
pub struct VethEnd<'a> {
    pub name: &'a str,
    pub mac: Mac,
    /// Where to create it; `None` is the caller's network namespace.
    pub netns: Option<BorrowedFd<'a>>,
}

/// A route to add.
pub struct Route {
    pub destination: (Ipv4Addr, u8),
    /// Taken to be on the link, whatever other routes say.
    pub gateway: Option<Ipv4Addr>,
    pub source: Option<Ipv4Addr>,
    pub link: u32,
}

/// A socket in the network namespace where it was opened.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

const VETH_INFO_PEER: u16 = 1;
/// linux/rtnetlink.h
const RTNH_F_ONLINK: u32 = 4;
const ACK: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const CREATE: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;

impl Netlink {
    /// Opens a socket.
    pub fn open() -> Result<Netlink, NetlinkError> {
        let failed = |source| NetlinkError {
            operation: "open a netlink socket".into(),
            source,
        };
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .map_err(failed)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Creates a veth pair, both ends down.
    pub fn create_veth(&mut self, a: &VethEnd, b: &VethEnd, mtu: u32) -> Result<(), NetlinkError> {
        let end = |m: Message, end: &VethEnd| {
            let m = m
                .text(libc::IFLA_IFNAME, end.name)
                .attribute(libc::IFLA_ADDRESS, &end.mac);
            let m = m.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
            match end.netns {
                Some(fd) => m.attribute(libc::IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes()),
                None => m,
            }
        };
        let m = self.request(libc::RTM_NEWLINK, CREATE).raw(&link_header(0, 0, 0));
        let m = end(m, a).nested(libc::IFLA_LINKINFO, |m| {
            m.attribute(libc::IFLA_INFO_KIND, b"veth")
                .nested(libc::IFLA_INFO_DATA, |m| {
                    m.nested(VETH_INFO_PEER, |m| end(m.raw(&link_header(0, 0, 0)), b))
                })
        });
        self.acknowledged(m, || format!("create the veth pair {} and {}", a.name, b.name))
    }

    /// Sets a link up; with `no_arp` without neighbour discovery on it.
    pub fn set_up(&mut self, link: u32, no_arp: bool) -> Result<(), NetlinkError> {
        let flags = libc::IFF_UP as u32 | if no_arp { libc::IFF_NOARP as u32 } else { 0 };
        let m = self
            .request(libc::RTM_NEWLINK, ACK)
            .raw(&link_header(link, flags, flags));
        self.acknowledged(m, || format!("set link {link} up"))
    }

    /// Deletes a link (and its peer). Fine if there is none.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let m = self
            .request(libc::RTM_DELLINK, ACK)
            .raw(&link_header(0, 0, 0))
            .text(libc::IFLA_IFNAME, name);
        match self.acknowledged(m, || format!("delete link {name}")) {
            Err(e) if !e.is_absent() => Err(e),
            _ => Ok(()),
        }
    }

    /// The link of this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let flags = libc::NLM_F_REQUEST as u16;
        let m = self
            .request(libc::RTM_GETLINK, flags)
            .raw(&link_header(0, 0, 0))
            .text(libc::IFLA_IFNAME, name);
        match self.exchange(m, parse_link) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(Errno::ENODEV) => Ok(None),
            Err(source) => Err(NetlinkError {
                operation: format!("look up link {name}"),
                source,
            }),
        }
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let m = self.request(libc::RTM_GETLINK, DUMP).raw(&link_header(0, 0, 0));
        self.dump(m, "links", parse_link)
    }

    /// Gives a link an address. Fine if it has it.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> Result<(), NetlinkError> {
        let m = self
            .request(libc::RTM_NEWADDR, REPLACE)
            .raw(&address_header(link, prefix))
            .attribute(libc::IFA_LOCAL, &address.octets())
            .attribute(libc::IFA_ADDRESS, &address.octets());
        self.acknowledged(m, || format!("add address {address}/{prefix} to link {link}"))
    }

    /// Addresses of a link.
    pub fn addresses(&mut self, link: u32) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let m = self.request(libc::RTM_GETADDR, DUMP).raw(&address_header(0, 0));
        let all = self.dump(m, "addresses", |payload| {
            let of = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
            let local = attributes(payload.get(8..)?).find(|(k, _)| *k == libc::IFA_LOCAL)?;
            Some((of, ipv4(local.1)?))
        })?;
        Ok(all
            .into_iter()
            .filter(|(of, _)| *of == link)
            .map(|(_, a)| a)
            .collect())
    }

    /// Adds a route to the main table, at once in the place of a former one through the same link; never of another link's.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let (network, prefix) = route.destination;
        let mut added = self.send_route(route, CREATE);
        if added == Err(Errno::EEXIST) {
            let mut there = self.routes()?;
            there.retain(|r| r.destination == route.destination && r.metric == 0);
            if !there.is_empty() && there.iter().all(|r| r.link == Some(route.link)) {
                added = self.send_route(route, REPLACE);
            }
        }
        added.map_err(|source| {
            let operation = format!(
                "add a route to {network}/{prefix}: is that network in use elsewhere in this network namespace?"
            );
            NetlinkError { operation, source }
        })
    }

    fn send_route(&mut self, route: &Route, flags: u16) -> Result<(), Errno> {
        let (network, prefix) = route.destination;
        let (scope, nexthop) = match route.gateway {
            Some(_) => (libc::RT_SCOPE_UNIVERSE, RTNH_F_ONLINK),
            None => (libc::RT_SCOPE_LINK, 0),
        };
        let mut m = self.request(libc::RTM_NEWROUTE, flags);
        m = m.raw(&route_header(prefix, scope, nexthop));
        m = m.attribute(libc::RTA_OIF, &route.link.to_ne_bytes());
        if prefix > 0 {
            m = m.attribute(libc::RTA_DST, &network.octets());
        }
        for (kind, address) in [
            (libc::RTA_GATEWAY, route.gateway),
            (libc::RTA_PREFSRC, route.source),
        ] {
            m = address.iter().fold(m, |m, a| m.attribute(kind, &a.octets()));
        }
        self.exchange(m, |_| None::<()>).map(|_| ())
    }

    /// Gateways of the default routes of the main table.
    pub fn default_gateways(&mut self) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let default = self.routes()?.into_iter().filter(|r| r.destination.1 == 0);
        Ok(default.filter_map(|r| r.gateway).collect())
    }

    fn routes(&mut self) -> Result<Vec<KnownRoute>, NetlinkError> {
        let m = self.request(libc::RTM_GETROUTE, DUMP).raw(&route_header(0, 0, 0));
        self.dump(m, "routes", parse_route)
    }

    /// Says for good which MAC address an address on a link has.
    pub fn add_neighbour(&mut self, link: u32, address: Ipv4Addr, mac: &Mac) -> Result<(), NetlinkError> {
        let m = self
            .request(libc::RTM_NEWNEIGH, REPLACE)
            .raw(&neighbour_header(link, libc::NUD_PERMANENT))
            .attribute(libc::NDA_DST, &address.octets())
            .attribute(libc::NDA_LLADDR, mac);
        self.acknowledged(m, || format!("add neighbour {address} to link {link}"))
    }

    fn request(&mut self, kind: u16, flags: u16) -> Message {
        self.sequence += 1;
        Message::new(kind, flags, self.sequence)
    }

    fn acknowledged(&mut self, m: Message, what: impl Fn() -> String) -> Result<(), NetlinkError> {
        let done = self.exchange(m, |_| None::<()>);
        done.map(|_| ()).map_err(|source| NetlinkError {
            operation: what(),
            source,
        })
    }

    fn dump<T>(
        &mut self,
        m: Message,
        what: &str,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.exchange(m, parse).map_err(|source| NetlinkError {
            operation: format!("list the {what}"),
            source,
        })
    }

    /// Sends, then reads until the answer is over: an acknowledgement, the end of a dump, or, for a plain
    /// question, the first answer.
    fn exchange<T>(&mut self, m: Message, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, Errno> {
        let bytes = m.finish();
        let flags = u16::from_ne_bytes([bytes[6], bytes[7]]);
        let plain = flags & (libc::NLM_F_ACK | libc::NLM_F_DUMP) as u16 == 0;
        sendto(
            self.socket.as_raw_fd(),
            &bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut found = Vec::new();
        let mut buffer = vec![0u8; 65_536];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for message in messages(&buffer[..length]).filter(|m| m.sequence == self.sequence) {
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR => return acknowledgement(message.payload).map(|()| found),
                    libc::NLMSG_DONE => return Ok(found),
                    _ => found.extend(parse(message.payload)),
                }
                if plain {
                    return Ok(found);
                }
            }
        }
    }
}

fn acknowledgement(payload: &[u8]) -> Result<(), Errno> {
    let code = payload
        .get(..4)
        .and_then(|c| c.try_into().ok())
        .map_or(-libc::EPROTO, i32::from_ne_bytes);
    if code == 0 {
        Ok(())
    } else {
        Err(Errno::from_raw(-code))
    }
}
