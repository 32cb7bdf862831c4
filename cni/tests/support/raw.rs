//! Frames as a pod with NET_RAW may write them, with whatever in them.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::Pod;

/// Sends frames through a pod's interface.
pub struct Raw {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
    /// From the pod to the gateway.
    ethernet: [u8; 12],
}

impl Raw {
    pub fn new(pod: &Pod, gateway: Ipv4Addr) -> Raw {
        pod.ns.run(|| {
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            // SAFETY: all zeroes is a valid value of this structure of integers.
            let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_ifindex = index as i32;
            let gateway = gateway.to_string();
            let there = mac(&["neigh", "show", &gateway, "dev", "eth0"], "lladdr");
            let here = mac(&["link", "show", "dev", "eth0"], "link/ether");
            let mut ethernet = [0; 12];
            ethernet[..6].copy_from_slice(&there);
            ethernet[6..].copy_from_slice(&here);
            Raw { socket, to, ethernet }
        })
    }

    /// Sends this after the MAC addresses: EtherType and what follows.
    pub fn send(&self, rest: &[&[u8]]) {
        let frame = [&self.ethernet[..], &rest.concat()].concat();
        // SAFETY: frame and address outlive the call, which is told their lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    }

    /// The pod's own MAC address.
    pub fn mac(&self) -> &[u8] {
        &self.ethernet[6..]
    }

    /// That of the host's end of its link.
    pub fn gateway_mac(&self) -> &[u8] {
        &self.ethernet[..6]
    }
}

fn mac(args: &[&str], after: &str) -> [u8; 6] {
    let output = Command::new("ip").args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != after).skip(1);
    let mut mac = [0; 6];
    for (byte, digits) in mac.iter_mut().zip(words.next().expect(&text).split(':')) {
        *byte = u8::from_str_radix(digits, 16).unwrap();
    }
    mac
}

/// A UDP packet, or a fragment of one: `fragment` is the field of the IPv4 header with flags and offset.
pub fn udp(src: Ipv4Addr, to: (Ipv4Addr, u16), id: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = (28 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, 17, 0, 0]);
    packet.extend(src.octets());
    packet.extend(to.0.octets());
    let sum: u32 = packet
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16 + (sum >> 16) as u16)).to_be_bytes());
    packet.extend(4000u16.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}
