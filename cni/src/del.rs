//! DEL: undoes an ADD from whatever step it reached. Every step is fine with there being nothing to do.

use gantry_ebpf::Datapath;

use crate::config::{Attachment, Config};
use crate::crash;
use crate::environment::Target;
use crate::error::CniError;
use crate::names;
use crate::netlink::Netlink;
use crate::store::Store;

/// Removes the interface and forgets it. The intent goes last, so that a DEL cut short is repeated.
pub fn del(config: &Config, target: &Target) -> Result<(), CniError> {
    let store = Store::at(&config.data_dir);
    let link = names::pod_link(&config.instance, target);
    let addresses = store.reserved(target)?;
    let datapath = Datapath::open(&config.bpf_dir);
    if let Some(datapath) = &datapath {
        datapath.detach(&link)?;
    }
    crash::point(20);
    Netlink::open()?.delete_link(&link)?;
    crash::point(21);
    // Only now: what the pod still sent would make flows anew.
    if let Some(datapath) = &datapath {
        for address in &addresses {
            datapath.remove_pod(*address)?;
        }
    }
    crash::point(22);
    for address in addresses {
        store.release(address)?;
    }
    crash::point(23);
    store.remove_intent(target)
}

/// GC: removes every attachment that is not listed.
pub fn gc(config: &Config, valid: &[Attachment]) -> Result<(), CniError> {
    for intent in Store::at(&config.data_dir).all_intents()? {
        let target = intent.target();
        let known = |a: &Attachment| a.container_id == target.container && a.ifname == target.ifname;
        if !valid.iter().any(known) {
            del(config, &target)?;
        }
    }
    Ok(())
}
