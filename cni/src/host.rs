//! The host's side, made once: the device through which the host reaches pods and services, routes,
//! forwarding, masquerade, the datapath.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use gantry_ebpf::{Datapath, NodeNet, PodEntry};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::crash;
use crate::error::CniError;
use crate::names;
use crate::netlink::{Link, Netlink, Route, VethEnd};
use crate::store::{self, Store};
use crate::sysctl;
use crate::tracking;

/// Raised when [`set_up`] makes something else: what an earlier version has made is then taken over by the next ADD, too.
const FORM: u32 = 1;

/// Next hop to all pods and services. Nobody has this address; the kernel needs an entry for one neighbour instead of one for each
/// pod, and this one is permanent: there is always room for it, whatever fills the table (`neigh_alloc`, net/core/neighbour.c).
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// What the host device depends on: another configuration means setting it up again.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct HostConfig {
    form: u32,
    pod_cidr: Ipv4Net,
    service_cidr: Ipv4Net,
    gateway: Ipv4Addr,
    mtu: u32,
}

impl HostConfig {
    fn of(config: &Config) -> HostConfig {
        let Config {
            pod_cidr,
            service_cidr,
            gateway,
            mtu,
            ..
        } = *config;
        HostConfig {
            form: FORM,
            pod_cidr,
            service_cidr,
            gateway,
            mtu,
        }
    }
}

/// Makes the host's side, whatever is there of it, and returns the datapath.
pub fn make(config: &Config, store: &Store, netlink: &mut Netlink) -> Result<Datapath, CniError> {
    let datapath = Datapath::ensure(&config.bpf_dir)?;
    let _lock = store.lock()?;
    set_up(config, store, netlink, &datapath)?;
    Ok(datapath)
}

/// Like [`make`], but quick if the host's side was made and its devices are there. What else can go missing
/// (routes, masquerade, forwarding) concerns all pods and comes back with the next [`make`].
pub fn ensure(config: &Config, store: &Store, netlink: &mut Netlink) -> Result<Datapath, CniError> {
    let datapath = Datapath::ensure(&config.bpf_dir)?;
    if is_ready(config, store, netlink, &datapath)? {
        return Ok(datapath);
    }
    let _lock = store.lock()?;
    if is_ready(config, store, netlink, &datapath)? {
        return Ok(datapath);
    }
    set_up(config, store, netlink, &datapath)?;
    Ok(datapath)
}

/// The datapath's entry for the gateway is written last, so it stands for all that was done before.
fn is_ready(
    config: &Config,
    store: &Store,
    netlink: &mut Netlink,
    datapath: &Datapath,
) -> Result<bool, CniError> {
    let known = store::read(&store.host_path())?.and_then(|b| serde_json::from_slice::<HostConfig>(&b).ok());
    if known != Some(HostConfig::of(config)) {
        return Ok(false);
    }
    let Some(link) = netlink.link(&names::host_device(&config.instance))? else {
        return Ok(false);
    };
    let peer = names::host_peer(&config.instance);
    let entry = datapath.pod(config.gateway)?;
    Ok(link.up && entry == Some(entry_of(config, &link)) && datapath.is_attached(&peer, &peer)?)
}

fn entry_of(config: &Config, link: &Link) -> PodEntry {
    PodEntry {
        ip: config.gateway,
        ifindex: link.index,
        mac: link.mac,
        is_host: true,
    }
}

/// Each step leaves alone what is as it should be: packets flow on meanwhile.
fn set_up(
    config: &Config,
    store: &Store,
    netlink: &mut Netlink,
    datapath: &Datapath,
) -> Result<(), CniError> {
    let (name, peer) = (
        names::host_device(&config.instance),
        names::host_peer(&config.instance),
    );
    sysctl::prepare_host()?;
    masquerade(config)?;
    crash::point(2);
    if netlink.link(&name)?.is_none() {
        // One MAC address for both: without ARP the kernel sends to the device's own.
        let mac = names::mac_of_link(&name);
        let end = |name| VethEnd {
            name,
            mac,
            netns: None,
        };
        netlink.create_veth(&end(&name), &end(&peer), config.mtu)?;
    }
    sysctl::prepare_link(&name)?;
    sysctl::prepare_link(&peer)?;
    let missing = |name: &str| CniError::NotAvailable(format!("link {name} vanished while it was set up"));
    let link = netlink.link(&name)?.ok_or_else(|| missing(&name))?;
    let peer_link = netlink.link(&peer)?.ok_or_else(|| missing(&peer))?;
    crash::point(3);
    netlink.set_up(peer_link.index, false)?;
    netlink.set_up(link.index, true)?;
    netlink.add_address(link.index, config.gateway, 32)?;
    netlink.add_neighbour(link.index, NEXT_HOP, &peer_link.mac)?;
    for net in [config.pod_cidr, config.service_cidr] {
        let destination = (net.network(), net.prefix_len());
        netlink.add_route(&Route {
            destination,
            gateway: Some(NEXT_HOP),
            source: Some(config.gateway),
            link: link.index,
        })?;
    }
    datapath.configure(&NodeNet {
        pods: (config.pod_cidr.network(), config.pod_cidr.prefix_len()),
        services: (config.service_cidr.network(), config.service_cidr.prefix_len()),
        host_peer: peer_link.index,
    })?;
    datapath.attach(&peer, &peer)?;
    crash::point(4);
    datapath.add_pod(&entry_of(config, &link))?;
    let bytes = serde_json::to_vec(&HostConfig::of(config)).expect("plain fields");
    // What is there already needs no room: on a full disk the node's network comes back all the same.
    if store::read(&store.host_path())?.as_ref() == Some(&bytes) {
        return Ok(());
    }
    store::write(&store.host_path(), &bytes, false)
}

/// Pods reach the outside under the host's address, for which the kernel tracks connections: bounded, since its table is the node's.
fn masquerade(config: &Config) -> Result<(), CniError> {
    let table = names::nft_table(&config.instance);
    nft(&table, &tracking::rules(config, tracking::most()))
}

/// Removes the host's side. Fine if nothing is there.
pub fn remove(config: &Config, netlink: &mut Netlink) -> Result<(), CniError> {
    netlink.delete_link(&names::host_device(&config.instance))?;
    let table = names::nft_table(&config.instance);
    nft(
        &table,
        &format!("table ip {table} {{}}\ndelete table ip {table}\n"),
    )
}

/// Is the nft program there?
pub fn has_nft() -> bool {
    let mut nft = Command::new("nft");
    nft.arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn nft(table: &str, script: &str) -> Result<(), CniError> {
    let failed = |problem: String| CniError::Nft {
        table: table.to_owned(),
        problem,
    };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let written = child
        .stdin
        .take()
        .expect("was asked for")
        .write_all(script.as_bytes());
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    written.map_err(|e| failed(e.to_string()))
}
