//! The devices' addresses on the tun, and the way of their packets to it.

use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::netlink::Netlink;

/// See the module.
pub struct Addresses {
    netlink: Netlink,
    link: u32,
    pools: Vec<Ipv4Net>,
    held: HashSet<Ipv4Addr>,
}

impl Addresses {
    /// None yet, on this link, of these pools.
    pub fn new(netlink: Netlink, link: u32, pools: Vec<Ipv4Net>) -> Self {
        Self {
            netlink,
            link,
            pools,
            held: HashSet::new(),
        }
    }

    /// Leads what comes from the pools to the link.
    pub fn lead(&mut self) -> io::Result<()> {
        for pool in &self.pools {
            self.netlink.lead(*pool, self.link)?;
        }
        Ok(())
    }

    /// Puts an address on the link.
    pub fn add(&mut self, address: Ipv4Addr) -> io::Result<()> {
        self.netlink.add_address(self.link, address)?;
        self.held.insert(address);
        if self.held.len() == 1 {
            // With a link's last address the kernel takes away its routes.
            self.lead()?;
        }
        Ok(())
    }

    /// Takes it away.
    pub fn remove(&mut self, address: Ipv4Addr) -> io::Result<()> {
        if self.held.remove(&address) {
            self.netlink.remove_address(self.link, address)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::tun;

    const POOL: &str = "10.45.0.0/16";

    /// Whether a packet of this address finds its way.
    fn goes(from: Ipv4Addr) -> bool {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(b"x", "192.0.2.1:9").is_ok()
    }

    /// A network namespace of this thread's own.
    fn alone() -> bool {
        let missing = match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) if std::path::Path::new("/dev/net/tun").exists() => return true,
            Ok(()) => "there is no /dev/net/tun",
            Err(_) => "no network namespace can be made",
        };
        let required = std::env::var("REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|area| area == "netns"),
            "REQUIRE=netns, but {missing}"
        );
        eprintln!("SKIPPED: {missing}");
        false
    }

    fn a_way_comes_back() {
        if !alone() {
            return;
        }
        let (_tun, link) = tun::open("uetest").unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.set_up(link, 1400, 100).unwrap();
        let mut addresses = Addresses::new(netlink, link, vec![POOL.parse().unwrap()]);
        addresses.lead().unwrap();
        for last in [2, 3] {
            let address = Ipv4Addr::new(10, 45, 0, last);
            addresses.add(address).unwrap();
            addresses.add(address).unwrap();
            assert!(goes(address), "{address}");
            addresses.remove(address).unwrap();
            addresses.remove(address).unwrap();
            assert!(UdpSocket::bind((address, 0)).is_err());
        }
    }

    #[test]
    fn after_the_last_address_the_next_one_has_a_way() {
        std::thread::spawn(a_way_comes_back).join().unwrap();
    }
}
