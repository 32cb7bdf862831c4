//! Links, addresses, routes and neighbours of the calling thread's network namespace, by rtnetlink.
//! The only place that knows netlink. Blocking: this program has nothing else to do.

mod message;

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

use crate::names::Mac;
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
const ACK: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const CREATE: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const APPEND: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
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

    /// Adds a route to the main table. Fine if it is there; never takes the place of another link's.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let message = |netlink: &mut Netlink, kind, flags| {
            let (network, prefix) = route.destination;
            let scope = if route.gateway.is_some() {
                libc::RT_SCOPE_UNIVERSE
            } else {
                libc::RT_SCOPE_LINK
            };
            let mut m = netlink.request(kind, flags).raw(&route_header(prefix, scope));
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
            m
        };
        let mut send = |kind, flags| {
            let m = message(self, kind, flags);
            self.exchange(m, |_| None::<()>)
        };
        let added = send(libc::RTM_NEWROUTE, CREATE);
        if added == Err(Errno::EEXIST) {
            // Ours, or another's to the same place. Behind the other's there is room for ours; none for its double.
            if send(libc::RTM_NEWROUTE, APPEND) == Err(Errno::EEXIST) {
                return Ok(());
            }
            let _ = send(libc::RTM_DELROUTE, ACK);
        }
        added.map(|_| ()).map_err(|source| {
            let (network, prefix) = route.destination;
            let operation = format!(
                "add a route to {network}/{prefix}: is that network in use elsewhere in this network namespace?"
            );
            NetlinkError { operation, source }
        })
    }

    /// Gateways of the default routes of the main table.
    pub fn default_gateways(&mut self) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let m = self.request(libc::RTM_GETROUTE, DUMP).raw(&route_header(0, 0));
        self.dump(m, "routes", |payload| {
            let is_default = payload.get(1) == Some(&0) && payload.get(4) == Some(&libc::RT_TABLE_MAIN);
            let gateway = attributes(payload.get(12..)?).find(|(k, _)| *k == libc::RTA_GATEWAY)?;
            if is_default { ipv4(gateway.1) } else { None }
        })
    }

    /// Says for good which MAC address an address on a link has.
    pub fn add_neighbour(&mut self, link: u32, address: Ipv4Addr, mac: &Mac) -> Result<(), NetlinkError> {
        let mut header = vec![libc::AF_INET as u8, 0, 0, 0];
        header.extend(link.to_ne_bytes());
        header.extend(libc::NUD_PERMANENT.to_ne_bytes());
        header.extend([0, 0]);
        let m = self
            .request(libc::RTM_NEWNEIGH, REPLACE)
            .raw(&header)
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

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(change.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
fn address_header(link: u32, prefix: u8) -> Vec<u8> {
    let mut header = vec![libc::AF_INET as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE];
    header.extend(link.to_ne_bytes());
    header
}

/// `struct rtmsg`.
fn route_header(prefix: u8, scope: u8) -> Vec<u8> {
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
    header.extend([0; 4]);
    header
}

fn parse_link(payload: &[u8]) -> Option<Link> {
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
    })
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}
