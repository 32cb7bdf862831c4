//! Addresses, routes and rules of this host, by rtnetlink (linux/rtnetlink.h). Blocking, and a few messages only.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::Ipv4Net;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

/// Bytes of `nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// The table that leads to the tun: any number that no other uses.
const TABLE: u32 = 2152;
/// Before the main table's rule (32766).
const PRIORITY: u32 = 1000;
const ACK: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const REPLACE: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const CREATE: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// See the module.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// A link's MTU and queue, and up.
    pub fn set_up(&mut self, link: u32, mtu: u32, queue: u32) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        let mut header = vec![0; 4];
        for part in [link, up, up] {
            header.extend(part.to_ne_bytes());
        }
        let attributes = [
            (libc::IFLA_MTU, mtu.to_ne_bytes().to_vec()),
            (libc::IFLA_TXQLEN, queue.to_ne_bytes().to_vec()),
        ];
        self.done(libc::RTM_NEWLINK, ACK, &header, &attributes)
    }

    /// Puts an address on a link. Fine if it is there.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr) -> io::Result<()> {
        self.address(libc::RTM_NEWADDR, REPLACE, link, address)
    }

    /// Takes it away. Fine if it is not there.
    pub fn remove_address(&mut self, link: u32, address: Ipv4Addr) -> io::Result<()> {
        match self.address(libc::RTM_DELADDR, ACK, link, address) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    fn address(&mut self, kind: u16, flags: u16, link: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut header = vec![libc::AF_INET as u8, 32, 0, libc::RT_SCOPE_UNIVERSE];
        header.extend(link.to_ne_bytes());
        let octets = address.octets().to_vec();
        let attributes = [(libc::IFA_LOCAL, octets.clone()), (libc::IFA_ADDRESS, octets)];
        self.done(kind, flags, &header, &attributes)
    }

    /// What comes from addresses of the pool goes to the link.
    pub fn lead(&mut self, pool: Ipv4Net, link: u32) -> io::Result<()> {
        let route = route_header(0, 0, libc::RT_SCOPE_LINK);
        let attributes = [
            (libc::RTA_TABLE, TABLE.to_ne_bytes().to_vec()),
            (libc::RTA_OIF, link.to_ne_bytes().to_vec()),
        ];
        self.done(libc::RTM_NEWROUTE, REPLACE, &route, &attributes)?;
        let rule = route_header(0, pool.prefix_len(), 0);
        let attributes = [
            (libc::RTA_SRC, pool.network().octets().to_vec()),
            (libc::RTA_TABLE, TABLE.to_ne_bytes().to_vec()),
            (libc::RTA_PRIORITY, PRIORITY.to_ne_bytes().to_vec()),
        ];
        match self.done(libc::RTM_NEWRULE, CREATE, &rule, &attributes) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    fn done(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        attributes: &[(u16, Vec<u8>)],
    ) -> io::Result<()> {
        self.sequence += 1;
        let request = message(kind, flags, self.sequence, header, attributes);
        sendto(
            self.socket.as_raw_fd(),
            &request,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match acknowledged(&answer[..length]) {
            Some(0) => Ok(()),
            Some(error) => Err(Errno::from_raw(error).into()),
            None => Err(io::Error::other("netlink answered something else")),
        }
    }
}

/// `rtmsg`, which rules have, too (`fib_rule_hdr`): to and from how many bits.
fn route_header(to_bits: u8, from_bits: u8, scope: u8) -> [u8; 12] {
    let family = libc::AF_INET as u8;
    // The table is in an attribute: here it has one byte.
    let (table, protocol, kind) = (libc::RT_TABLE_UNSPEC, libc::RTPROT_STATIC, libc::RTN_UNICAST);
    [
        family, to_bits, from_bits, 0, table, protocol, scope, kind, 0, 0, 0, 0,
    ]
}

fn message(kind: u16, flags: u16, sequence: u32, header: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(header);
    for (kind, value) in attributes {
        let length = u16::try_from(4 + value.len()).expect("a few bytes");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(bytes.len()).expect("a few bytes");
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// The number of the error that an acknowledgement tells, 0 if it was done.
fn acknowledged(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(HEADER_BYTES..HEADER_BYTES + 4)?.try_into().ok()?);
    (i32::from(kind) == libc::NLMSG_ERROR).then_some(-error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_the_kernel_reads_it() {
        let bytes = message(20, ACK, 7, &[2, 32, 0, 0, 9, 0, 0, 0], &[(2, vec![10, 45, 0, 2])]);
        let expected = [
            32, 0, 0, 0, 20, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 32, 0, 0, 9, 0, 0, 0, 8, 0, 2, 0, 10, 45, 0,
            2,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_acknowledgement_tells_an_error() {
        let mut answer = vec![36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(acknowledged(&answer), None);
        answer.extend((-17_i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer), Some(17));
        assert_eq!(acknowledged(&[]), None);
    }
}
