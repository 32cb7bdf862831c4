//! CHECK: is everything still as ADD left it?

use gantry_ebpf::{Datapath, PodEntry};

use crate::config::Config;
use crate::environment::Target;
use crate::error::CniError;
use crate::names;
use crate::netlink::Netlink;
use crate::pod::{PodLink, open_netns};
use crate::store::Store;

/// Fails with the first difference.
pub fn check(config: &Config, target: &Target, netns: &std::path::Path) -> Result<(), CniError> {
    let unknown = || CniError::UnknownContainer {
        container: target.container.clone(),
        ifname: target.ifname.clone(),
    };
    let intent = Store::at(&config.data_dir).intent(target)?.ok_or_else(unknown)?;
    let address = intent.address.ok_or_else(unknown)?;
    let lost = |what: &str, problem: String| CniError::NotAsAdded {
        what: what.to_owned(),
        container: target.container.clone(),
        problem,
    };
    if let Some(previous) = &config.prev_result {
        let wanted = format!("{address}/32");
        let ips = previous["ips"].as_array().cloned().unwrap_or_default();
        if !ips.iter().any(|ip| ip["address"] == wanted.as_str()) {
            return Err(lost("prevResult", format!("it does not hold {wanted}")));
        }
    }
    let netns = open_netns(netns)?;
    let link = names::pod_link(&config.instance, target);
    let pod = PodLink {
        link: &link,
        container: &target.container,
        ifname: &target.ifname,
        netns: &netns,
        address,
        gateway: config.gateway,
        mtu: config.mtu,
    };
    let host_end = pod.host_end(&mut Netlink::open()?)?;
    if !host_end.up {
        return Err(lost("the host's end", format!("link {link} is down")));
    }
    if !host_end.no_arp {
        return Err(lost("the host's end", format!("link {link} answers ARP")));
    }
    pod.check()?;
    let datapath = Datapath::open(&config.bpf_dir).ok_or_else(|| {
        lost(
            "the datapath",
            format!("nothing is pinned at {}", config.bpf_dir.display()),
        )
    })?;
    if !datapath.is_attached(&link, &link)? {
        return Err(lost("the datapath", format!("the program is not on link {link}")));
    }
    let wanted = PodEntry {
        ip: address,
        ifindex: host_end.index,
        mac: pod.pod_mac(),
        is_host: false,
    };
    if datapath.pod(address)? != Some(wanted) {
        return Err(lost(
            "the datapath",
            format!("address {address} does not lead to link {link}"),
        ));
    }
    Ok(())
}
