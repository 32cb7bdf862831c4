//! Not part of the CNI protocol: `gantry-cni host` makes the host's side before there is any pod,
//! `gantry-cni purge` removes everything that this plugin ever made for an instance.

use gantry_ebpf::Datapath;

use crate::config::Config;
use crate::crash;
use crate::error::CniError;
use crate::host;
use crate::names;
use crate::netlink::Netlink;
use crate::pod::{PodLink, open_netns};
use crate::store::{Intent, Store};

/// Makes the host device, routes, masquerade and datapath, or what was lost of them, and takes over the links of pods.
pub fn host_up(config: &Config) -> Result<(), CniError> {
    let store = Store::create(&config.data_dir)?;
    let mut netlink = Netlink::open()?;
    host::make(config, &store, &mut netlink)?;
    for intent in store.all_intents()? {
        // A pod that is gone, or on its way out, has nothing to take over, and is no reason to leave out others.
        let _ = renew(config, &intent, &mut netlink);
    }
    Ok(())
}

fn renew(config: &Config, intent: &Intent, netlink: &mut Netlink) -> Result<(), CniError> {
    let Some(address) = intent.address else {
        return Ok(());
    };
    let pod = PodLink {
        link: &intent.link,
        container: &intent.container,
        ifname: &intent.ifname,
        netns: &open_netns(&intent.netns)?,
        address,
        gateway: config.gateway,
        mtu: config.mtu,
    };
    pod.renew(netlink)
}

/// Removes all links, the nft table, the datapath and our files. Files go last: an interrupted
/// purge can be repeated.
pub fn purge(config: &Config) -> Result<(), CniError> {
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        if names::is_pod_link(&config.instance, &link.name) {
            netlink.delete_link(&link.name)?;
        }
    }
    crash::point(30);
    host::remove(config, &mut netlink)?;
    crash::point(31);
    Datapath::unload(&config.bpf_dir)?;
    crash::point(32);
    Store::at(&config.data_dir).remove_all()
}
