//! The kernel side of the datapath: one program on the ingress of every pod's host end.
//!
//! Shell only: what is decided stands in `gantry-ebpf-common`, tested on the host.
#![no_std]
#![no_main]

mod behind;
mod maps;
mod quoted;
mod refuse;
mod rewrite;
mod service;
mod share;

use aya_ebpf::bindings::{BPF_F_INGRESS, TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_peer};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use gantry_ebpf_common::behind::{Behind, may_reach};
use gantry_ebpf_common::layout::{Config, POD_IS_HOST, Pod, Sender};
use gantry_ebpf_common::packet::Ipv4;
use gantry_ebpf_common::reason::{DropReason, Path};
use gantry_ebpf_common::verdict::is_own;

use crate::maps::{CONFIG, PODS, count_drop, count_path};

/// EtherType of IPv4 as `__sk_buff.protocol` shows it.
const ETH_P_IP_BE: u32 = 0x0800u16.to_be() as u32;
/// Offset of the destination address in the Ethernet header.
const ETH_DESTINATION: usize = 0;

/// Takes what a pod (or the host, through its device) sends.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    match handle(&ctx) {
        Ok(action) => action,
        Err(reason) => {
            count_drop(reason);
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn handle(ctx: &TcContext) -> Result<i32, DropReason> {
    let Some(config) = CONFIG.get(0) else {
        return Err(DropReason::NotConfigured);
    };
    // The kernel takes the outermost tag off before this program and the next one after it (`__netif_receive_skb_core`,
    // net/core/dev.c): what has one is not what it looks like here. ARP is for nobody: neighbours are fixed.
    // SAFETY: the kernel hands the program a valid context, and checks each access to it.
    if ctx.skb.protocol() != ETH_P_IP_BE || unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return Err(DropReason::NotIpv4);
    }
    let ip = ctx
        .load(0)
        .ok()
        .and_then(|head| Ipv4::parse(&head))
        .ok_or(DropReason::Malformed)?;
    // SAFETY: userspace replaces entries whole.
    let owner = unsafe { PODS.get(&ip.src) };
    // SAFETY: the kernel hands the program a valid context, and checks each access to it.
    let entered = unsafe { (*ctx.skb.skb).ifindex };
    let behind = match is_own(config, entered, owner) {
        true => None,
        false => Some(behind::source(entered, ip.src)?),
    };
    if ip.is_fragment() && !share::take_fragment(config, entered, service::now_s()) {
        return Err(DropReason::FragmentBeyondShare);
    }
    if let Some(behind) = &behind
        && config.is_pod_net(ip.dst)
    {
        behind::check(behind, ip.dst)?;
    }
    let addresses = match service::translate(ctx, config, &ip, entered, behind.as_ref()) {
        Err(reason) if config.is_service_net(ip.dst) => {
            count_drop(reason);
            return Ok(refuse::refuse(ctx, &ip, entered).unwrap_or(TC_ACT_SHOT));
        }
        other => other?,
    };
    rewrite::rewrite(ctx, &ip, &addresses)?;
    // What the host sends to a pod goes there, also if it is the answer to what that one has asked for somebody behind it.
    let to = match entered == config.host_peer && config.is_pod_net(ip.dst) {
        true => ip.dst,
        false => addresses.dst,
    };
    // What its owner asks in its place is the owner's.
    let behind = behind.filter(|behind| behind.owner != addresses.src);
    deliver(ctx, config, to, entered, behind.as_ref())
}

/// On to the host's IP stack. The CNI plugin's rules for new connections read the priority; when the stack forwards a packet it
/// writes one of its own.
#[inline(always)]
fn to_stack(ctx: &TcContext, config: &Config, entered: u32, sender: Option<&Sender>) -> i32 {
    if entered != config.host_peer {
        let group = sender.map_or(entered, |sender| sender.group);
        // SAFETY: the kernel hands the program a valid context, and checks each access to it.
        unsafe { (*ctx.skb.skb).priority = group };
    }
    count_path(Path::Stack);
    TC_ACT_OK
}

#[inline(always)]
fn deliver(
    ctx: &TcContext,
    config: &Config,
    dst: u32,
    entered: u32,
    behind: Option<&Behind>,
) -> Result<i32, DropReason> {
    // SAFETY: userspace replaces entries whole.
    if let Some(pod) = unsafe { PODS.get(&dst) } {
        if let Some(behind) = behind {
            may_reach(&behind.realm, pod, behind::sender(pod.ifindex))?;
        }
        return to_pod(ctx, pod);
    }
    if config.is_pod_net(dst) {
        return Err(DropReason::NoPod);
    }
    let sender = behind::sender(entered);
    if let Some(owner) = behind::way(entered, sender, dst) {
        return to_pod(ctx, owner?);
    }
    match behind {
        Some(_) => Err(DropReason::BehindToOutside),
        None => Ok(to_stack(ctx, config, entered, sender)),
    }
}

#[inline(always)]
fn to_pod(ctx: &TcContext, pod: &Pod) -> Result<i32, DropReason> {
    ctx.store(ETH_DESTINATION, &pod.mac, 0)
        .map_err(|_| DropReason::RewriteFailed)?;
    if pod.flags & POD_IS_HOST != 0 {
        count_path(Path::Host);
        // SAFETY: the helper has no preconditions.
        return Ok(unsafe { bpf_redirect(pod.ifindex, BPF_F_INGRESS as u64) } as i32);
    }
    count_path(Path::Pod);
    // SAFETY: the helper has no preconditions.
    Ok(unsafe { bpf_redirect_peer(pod.ifindex, 0) } as i32)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // SAFETY: the verifier refuses any program from which this could be reached.
    unsafe { core::hint::unreachable_unchecked() }
}
