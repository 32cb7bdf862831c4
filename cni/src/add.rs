//! ADD: gives a container an interface. Everything is checked, then the intent is written, then the node
//! is changed; whatever interrupts it, DEL finds its way from there.

use std::path::Path;

use gantry_ebpf::{Datapath, PodEntry, Sending};
use serde_json::Value;

use crate::config::Config;
use crate::environment::Target;
use crate::error::CniError;
use crate::names;
use crate::netlink::Netlink;
use crate::pod::{PodLink, open_netns};
use crate::store::{Intent, Store};
use crate::{crash, del, host, result};

/// Adds the interface and returns the CNI result.
pub fn add(config: &Config, target: &Target, netns: &Path) -> Result<Value, CniError> {
    let netns_file = open_netns(netns)?;
    let mut netlink = Netlink::open()?;
    let store = Store::create(&config.data_dir)?;
    if let Some(before) = store.intent(target)? {
        if before.address.is_some() {
            let Target { container, ifname } = target.clone();
            return Err(CniError::Exists { container, ifname });
        }
        // An ADD that was cut short and never followed by its DEL.
        del::del(config, target)?;
    }
    let link = names::pod_link(&config.instance, target);
    let intent = Intent {
        container: target.container.clone(),
        ifname: target.ifname.clone(),
        netns: netns.to_owned(),
        link,
        address: None,
    };
    store.write_intent(&intent, true)?;
    crash::point(1);
    let made = make(config, target, &store, intent, &netns_file, &mut netlink);
    if made.is_err() {
        // The first error is the one to tell; what DEL cannot undo now, the runtime's own DEL will.
        let _ = del::del(config, target);
    }
    made
}

fn make(
    config: &Config,
    target: &Target,
    store: &Store,
    mut intent: Intent,
    netns: &std::fs::File,
    netlink: &mut Netlink,
) -> Result<Value, CniError> {
    let datapath = host::ensure(config, store, netlink)?;
    crash::point(5);
    let address = store.reserve(target, config.address, &config.pod_cidr, config.gateway)?;
    crash::point(6);
    let pod = PodLink {
        link: &intent.link,
        container: &target.container,
        ifname: &target.ifname,
        netns,
        address,
        gateway: config.gateway,
        mtu: config.mtu,
    };
    let sending = Sending {
        group: config.share_group.as_deref(),
        realm: config.realm.as_deref(),
    };
    wire(&pod, &sending, netlink, &datapath)?;
    let value = result::success(config, &pod, &intent.netns.display().to_string());
    intent.address = Some(address);
    store.write_intent(&intent, false)?;
    crash::point(11);
    Ok(value)
}

fn wire(
    pod: &PodLink,
    sending: &Sending<'_>,
    netlink: &mut Netlink,
    datapath: &Datapath,
) -> Result<(), CniError> {
    pod.create(netlink)?;
    crash::point(7);
    crate::sysctl::prepare_link(pod.link)?;
    let host_end = pod.host_end(netlink)?;
    datapath.attach(pod.link, pod.link)?;
    crash::point(8);
    // A link without any address fails even the loose reverse path filter.
    netlink.add_address(host_end.index, pod.gateway, 32)?;
    let entry = PodEntry {
        ip: pod.address,
        ifindex: host_end.index,
        mac: pod.pod_mac(),
        is_host: false,
    };
    datapath.add_pod(&entry)?;
    datapath.set_sender(host_end.index, sending)?;
    netlink.set_up(host_end.index, true)?;
    crash::point(9);
    // Last, so that the pod's first packet has a known source. And a veth that comes up after its peer can send at once; one
    // that comes up before it sends into nothing until the kernel's work queue gets to it.
    pod.configure()?;
    crash::point(10);
    Ok(())
}
