//! ICMP errors (RFC 792) as any process with a raw socket can say them, from its pod's own address.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use super::netns::Netns;

pub const ICMP: u8 = 1;
pub const UDP: u8 = 17;

/// Type and code.
pub const PORT_UNREACHABLE: (u8, u8) = (3, 3);
pub const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
pub const REDIRECT: (u8, u8) = (5, 1);

/// A packet that an error quotes: header and 8 bytes.
#[derive(Clone, Copy)]
pub struct Quoted {
    pub protocol: u8,
    pub from: (Ipv4Addr, u16),
    pub to: (Ipv4Addr, u16),
}

impl Quoted {
    /// An echo reply: of those the kernel believes errors without a socket that has sent one (`icmp_err` of `net/ipv4/icmp.c`).
    pub fn echo(from: Ipv4Addr, to: Ipv4Addr) -> Quoted {
        Quoted {
            protocol: ICMP,
            from: (from, 0),
            to: (to, 0),
        }
    }

    pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Quoted {
        Quoted {
            protocol: UDP,
            from,
            to,
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, self.protocol, 0, 0];
        packet.extend(self.from.0.octets());
        packet.extend(self.to.0.octets());
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum);
        packet.extend(self.from.1.to_be_bytes());
        packet.extend(self.to.1.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        packet
    }
}

/// Sends an error to `to`. `rest`: the second word of its header, an MTU or a gateway.
pub fn send_error(from: &Netns, to: Ipv4Addr, (kind, code): (u8, u8), rest: u32, quoted: Quoted) {
    let mut error = vec![kind, code, 0, 0];
    error.extend(rest.to_be_bytes());
    error.extend(quoted.bytes());
    let sum = checksum(&error);
    error[2..4].copy_from_slice(&sum);
    from.run(|| {
        let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
        let raw = socket(family, SockType::Raw, flags, SockProtocol::Icmp).unwrap();
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        sendto(raw.as_raw_fd(), &error, &to, MsgFlags::empty()).unwrap();
    });
}

/// The path MTU that the kernel has learnt, if any.
pub fn learnt_mtu(ns: &Netns, to: Ipv4Addr) -> Option<u32> {
    let route = ns.run(|| {
        Command::new("ip")
            .args(["route", "get", &to.to_string()])
            .output()
            .unwrap()
    });
    let route = String::from_utf8(route.stdout).unwrap();
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(|mtu| mtu.parse().unwrap())
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    (!((folded >> 16) + folded) as u16).to_be_bytes()
}
