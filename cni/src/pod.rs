//! A pod's link: a veth pair between the host and the pod's network namespace, and the pod's side of it.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::error::{CniError, file};
use crate::names::{self, Mac};
use crate::netlink::{Link, Netlink, Route, VethEnd};
use crate::sysctl;

/// Everything that a pod's link is made of.
pub struct PodLink<'a> {
    /// Host's end.
    pub link: &'a str,
    /// CNI_CONTAINERID, for messages.
    pub container: &'a str,
    /// Pod's end.
    pub ifname: &'a str,
    /// The pod's network namespace.
    pub netns: &'a File,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The host's, next hop of everything.
    pub gateway: Ipv4Addr,
    /// Bytes.
    pub mtu: u32,
}

impl PodLink<'_> {
    /// MAC address of the pod's end.
    pub fn pod_mac(&self) -> Mac {
        names::mac_of_pod(self.address)
    }

    /// Creates the pair, the pod's end in its place.
    pub fn create(&self, netlink: &mut Netlink) -> Result<(), CniError> {
        let host = VethEnd {
            name: self.link,
            mac: names::mac_of_link(self.link),
            netns: None,
        };
        let pod = VethEnd {
            name: self.ifname,
            mac: self.pod_mac(),
            netns: Some(self.netns.as_fd()),
        };
        Ok(netlink.create_veth(&host, &pod, self.mtu)?)
    }

    /// Address, routes and neighbour in the pod. All traffic goes to the host's end, so the gateway's MAC
    /// address is that end's.
    pub fn configure(&self) -> Result<(), CniError> {
        inside(self.netns, |netlink| {
            if let Some(loopback) = netlink.link("lo")? {
                netlink.set_up(loopback.index, false)?;
            }
            let link = netlink
                .link(self.ifname)?
                .ok_or_else(|| self.lost("is missing in the pod"))?;
            netlink.add_address(link.index, self.address, 32)?;
            self.fix_neighbours(netlink, &link)?;
            let gateway = self.gateway;
            let to_gateway = Route {
                destination: (gateway, 32),
                gateway: None,
                source: None,
                link: link.index,
            };
            netlink.add_route(&to_gateway)?;
            let any = (Ipv4Addr::UNSPECIFIED, 0);
            netlink.add_route(&Route {
                destination: any,
                gateway: Some(gateway),
                source: None,
                link: link.index,
            })?;
            Ok(())
        })
    }

    /// Brings both ends of a link that an earlier version made to where [`PodLink::configure`] brings them.
    pub fn renew(&self, netlink: &mut Netlink) -> Result<(), CniError> {
        let host_end = self.host_end(netlink)?;
        netlink.set_up(host_end.index, true)?;
        inside(self.netns, |netlink| match netlink.link(self.ifname)? {
            Some(link) if link.up && !link.no_arp => self.fix_neighbours(netlink, &link),
            _ => sysctl::prepare_pod(self.ifname),
        })
    }

    /// Sets the pod's end up, with the gateway as its one neighbour. All network namespaces have one table of neighbours, and a pod
    /// could fill it with those that it looks for; the entries of a link without ARP go as soon as there is need of room
    /// (`arp_constructor`, net/ipv4/arp.c; `neigh_forced_gc`, net/core/neighbour.c).
    fn fix_neighbours(&self, netlink: &mut Netlink, link: &Link) -> Result<(), CniError> {
        sysctl::prepare_pod(self.ifname)?;
        netlink.set_up(link.index, true)?;
        // Behind the flag, with which the kernel forgets all (`arp_netdev_event`, net/ipv4/arp.c).
        let gateway = names::mac_of_link(self.link);
        Ok(netlink.add_neighbour(link.index, self.gateway, &gateway)?)
    }

    /// Is the pod's side as [`PodLink::configure`] left it?
    pub fn check(&self) -> Result<(), CniError> {
        inside(self.netns, |netlink| {
            let link = netlink
                .link(self.ifname)?
                .ok_or_else(|| self.lost("is missing"))?;
            if !link.up {
                return Err(self.lost("is down"));
            }
            if !link.no_arp {
                return Err(self.lost("looks for neighbours (ARP)"));
            }
            if link.mac != self.pod_mac() {
                return Err(self.lost("has another MAC address"));
            }
            if !netlink.addresses(link.index)?.contains(&self.address) {
                return Err(self.lost(&format!("has lost its address {}", self.address)));
            }
            if !netlink.default_gateways()?.contains(&self.gateway) {
                return Err(self.lost(&format!("has lost its default route by {}", self.gateway)));
            }
            Ok(())
        })
    }

    /// Host's end, which must exist.
    pub fn host_end(&self, netlink: &mut Netlink) -> Result<Link, CniError> {
        netlink
            .link(self.link)?
            .ok_or_else(|| self.lost("has lost its end on the host"))
    }

    fn lost(&self, problem: &str) -> CniError {
        CniError::NotAsAdded {
            what: format!("interface {}", self.ifname),
            container: self.container.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// Opens a network namespace.
pub fn open_netns(path: &Path) -> Result<File, CniError> {
    File::open(path).map_err(file("open network namespace", path))
}

/// Runs `work` on a thread of its own inside the namespace; this process' other threads stay outside.
fn inside(
    netns: &File,
    work: impl FnOnce(&mut Netlink) -> Result<(), CniError> + Send,
) -> Result<(), CniError> {
    let enter = || {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|e| file("enter", "the pod's network namespace")(e.into()))?;
        work(&mut Netlink::open()?)
    };
    std::thread::scope(|scope| match scope.spawn(enter).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
