//! Subnets behind pods: the maps around `gantry_ebpf_common::behind`.

use aya_ebpf::maps::lpm_trie::Key;
use gantry_ebpf_common::behind::{Asked, Behind, is_owner, leads_to, may_reach, tag};
use gantry_ebpf_common::layout::{Config, FlowKey, POD_IS_HOST, Place, Pod, REALM_BITS, Realm, Sender};
use gantry_ebpf_common::reason::DropReason;
use gantry_ebpf_common::verdict::Addresses;

use crate::maps::{PODS, SENDERS, SUBNETS};
use crate::{service, share};

/// Who sends through this interface.
#[inline(always)]
pub fn sender(entered: u32) -> Option<&'static Sender> {
    // SAFETY: userspace replaces entries whole.
    unsafe { SENDERS.get(&entered) }
}

#[inline(always)]
fn pod(address: u32) -> Option<&'static Pod> {
    // SAFETY: userspace replaces entries whole.
    unsafe { PODS.get(&address) }
}

/// Own address of the pod that this address is behind, as those of the realm know it.
#[inline(always)]
fn owner(realm: &Realm, address: u32) -> Option<u32> {
    SUBNETS
        .get(Key::new(REALM_BITS + 32, Place::of(realm, address)))
        .copied()
}

/// The sender of a packet whose source is not its own: the address has to be behind it.
#[inline(always)]
pub fn source(entered: u32, src: u32) -> Result<Behind, DropReason> {
    let realm = sender(entered).ok_or(DropReason::ForeignSource)?.realm;
    let owner = owner(&realm, src).ok_or(DropReason::ForeignSource)?;
    match is_owner(entered, pod(owner)) {
        true => Ok(Behind { owner, realm }),
        false => Err(DropReason::ForeignSource),
    }
}

/// May the pod at this interface tell `told` by an ICMP error of a packet to `address`, since that is behind it? Only those can have
/// sent it who know that. Its own address; `None` if it may not.
#[inline(always)]
pub fn tells_of(config: &Config, entered: u32, address: u32, told: u32) -> Option<u32> {
    let behind = source(entered, address).ok()?;
    let may = match pod(told) {
        Some(told) => may_reach(&behind.realm, told, sender(told.ifindex)).is_ok(),
        // A service's flows are looked for.
        None => config.is_service_net(told) || owner(&behind.realm, told).is_some(),
    };
    may.then_some(behind.owner)
}

/// Before anything is remembered of a packet from behind a pod: is what it is for one that it may reach? Of the host the port decides.
#[inline(always)]
pub fn check(behind: &Behind, dst: u32) -> Result<(), DropReason> {
    let receiver = pod(dst).ok_or(DropReason::NoPod)?;
    match receiver.flags & POD_IS_HOST {
        0 => may_reach(&behind.realm, receiver, sender(receiver.ifindex)),
        _ => Ok(()),
    }
}

/// May a packet from behind a pod go to this backend? To none on the host's network: nobody knows whose that is.
#[inline(always)]
pub fn reaches(behind: &Behind, backend: u32) -> Result<(), DropReason> {
    let receiver = pod(backend).ok_or(DropReason::OtherRealm)?;
    may_reach(&behind.realm, receiver, sender(receiver.ifindex))
}

/// The owner of the subnet that a packet for this address goes to; `None`: as far as `sender` knows, the address is behind nobody.
#[inline(always)]
pub fn way(entered: u32, from: Option<&Sender>, dst: u32) -> Option<Result<&'static Pod, DropReason>> {
    let realm = &from?.realm;
    let pod = pod(owner(realm, dst)?);
    let of_owner = pod.and_then(|pod| sender(pod.ifindex));
    Some(leads_to(entered, realm, pod, of_owner))
}

/// What the flows of a client are told apart by, seen from whoever answers it.
#[inline(always)]
pub fn tag_of(config: &Config, entered: u32, client: u32) -> [u8; 3] {
    if config.is_pod_net(client) {
        return [0; 3];
    }
    let known = sender(entered).and_then(|sender| owner(&sender.realm, client));
    known.map_or([0; 3], tag)
}

/// A question for the node's name server: the addresses that it leaves with.
#[inline(always)]
pub fn ask(config: &Config, key: &FlowKey, behind: &Behind, entered: u32) -> Option<Addresses> {
    let asked = Asked::of(key, behind.owner, pod(key.dst)?)?;
    let reply = asked.addresses.reply_key(key.protocol);
    if let Some(known) = share::reverse(&reply) {
        // SAFETY: a live entry, of which `direct` alone changes in place, between values that are all right to act on.
        let known = unsafe { &mut *known };
        if known.client == asked.reverse.client && known.vip_port == asked.reverse.vip_port {
            known.direct = asked.reverse.direct;
            return Some(asked.addresses);
        }
    }
    let beyond = !share::take_flow(config, entered, service::now_s());
    share::remember_reverse(&reply, &asked.reverse, beyond);
    Some(asked.addresses)
}
