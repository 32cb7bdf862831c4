//! Client to service and back: which addresses a packet must get.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use gantry_ebpf_common::behind::{Asked, Behind, tag};
use gantry_ebpf_common::layout::{
    ASKED, Backend, BackendStats, Config, DIRECT, Flow, FlowKey, Fragment, SCTP, ServiceKey, TRANSLATED,
};
use gantry_ebpf_common::packet::{Ipv4, Ports, opening_offset, opens};
use gantry_ebpf_common::reason::{DropReason, Path};
use gantry_ebpf_common::verdict::{
    Addresses, FlowVerdict, flow_hash, flow_of, flow_verdict, maglev_slot, reverse_of, takes_new,
};

use crate::maps::{BACKEND_STATS, BACKENDS, FRAGMENTS, PODS, SERVICES, TABLES, count_path};
use crate::{behind, quoted, share};

/// Slots looked at before a service counts as without backend. One is enough except in the instant
/// when userspace replaces a table.
const ATTEMPTS: u32 = 3;

/// The addresses that the packet must leave with. `behind`: the pod that its source is behind.
#[inline(always)]
pub fn translate(
    ctx: &TcContext,
    config: &Config,
    ip: &Ipv4,
    entered: u32,
    behind: Option<&Behind>,
) -> Result<Addresses, DropReason> {
    if !ip.has_ports() {
        if let Some(addresses) = quoted::translate(ctx, config, ip, entered, behind)? {
            return Ok(addresses);
        }
        if config.is_service_net(ip.dst) {
            return Err(DropReason::NoService);
        }
        return Ok(Addresses::unchanged(ip, Ports::default()));
    }
    if ip.later_fragment {
        return later_fragment(config, ip, behind);
    }
    let l4: [u8; 4] = ctx
        .load(ip.l4_offset as usize)
        .map_err(|_| DropReason::Malformed)?;
    let ports = Ports::parse(&l4);
    let key = ip.flow_key(ports);
    let addresses = with_ports(ctx, config, ip, &key, entered, behind)?;
    if ip.more_fragments {
        let fragment = Fragment {
            src: addresses.src,
            dst: addresses.dst,
        };
        // Also where nothing changed: an earlier datagram may have had the same identification. A full table only costs the later
        // fragments to services, which are then counted as drops.
        let _ = FRAGMENTS.insert(&ip.fragment_key(behind.map_or(0, |b| b.owner)), &fragment, 0);
    }
    Ok(addresses)
}

/// Later fragments have no ports: they get what the first one got.
#[inline(always)]
fn later_fragment(config: &Config, ip: &Ipv4, behind: Option<&Behind>) -> Result<Addresses, DropReason> {
    let key = ip.fragment_key(behind.map_or(0, |b| b.owner));
    // SAFETY: entries are written whole and only read here.
    if let Some(first) = unsafe { FRAGMENTS.get(&key) } {
        return Ok(Addresses {
            src: first.src,
            dst: first.dst,
            ports: Ports::default(),
        });
    }
    if config.is_service_net(ip.dst) {
        return Err(DropReason::FragmentWithoutFirst);
    }
    Ok(Addresses::unchanged(ip, Ports::default()))
}

#[inline(always)]
fn with_ports(
    ctx: &TcContext,
    config: &Config,
    ip: &Ipv4,
    key: &FlowKey,
    entered: u32,
    behind: Option<&Behind>,
) -> Result<Addresses, DropReason> {
    // SAFETY: entries are written whole, except `direct`, whose values are all right to act on.
    if let Some(reverse) = share::reverse(key).map(|reverse| unsafe { &*reverse }) {
        if reverse.direct == TRANSLATED {
            count_path(Path::Reply);
            let behind = behind::tag_of(config, entered, reverse.client);
            mark_seen(&flow_of(key, reverse, behind));
            return Ok(Addresses::to_client(key, reverse));
        }
        if reverse.direct == ASKED {
            return Ok(Asked::answer(key, reverse));
        }
    }
    if config.is_pod_net(ip.dst) {
        if let Some(behind) = behind
            && let Some(asked) = behind::ask(config, key, behind, entered)
        {
            return Ok(asked);
        }
        mark_direct(key);
        return Ok(Addresses::unchanged(
            ip,
            Ports {
                src: key.sport,
                dst: key.dport,
            },
        ));
    }
    let service_key = ServiceKey {
        vip: ip.dst,
        port: key.dport,
        protocol: ip.protocol,
        pad: 0,
    };
    // SAFETY: entries are a single word.
    let Some(service) = (unsafe { SERVICES.get(&service_key) }) else {
        if config.is_service_net(ip.dst) {
            return Err(DropReason::NoService);
        }
        return Ok(Addresses::unchanged(
            ip,
            Ports {
                src: key.sport,
                dst: key.dport,
            },
        ));
    };
    let addresses = to_service(ctx, config, ip, key, service.index, entered, behind)?;
    count_path(Path::Service);
    Ok(addresses)
}

/// Protocols with fixed ports on both sides (SIP, PFCP, GTP-C) may talk to a pod through a service and
/// directly from one socket, and TCP clients use their ports again. The form that the client used last
/// decides how replies look.
#[inline(always)]
fn mark_direct(key: &FlowKey) {
    if let Some(reverse) = share::reverse(&key.swapped()) {
        // SAFETY: a whole aligned field of a live entry; a lost update is repaired by the next packet.
        unsafe { (*reverse).direct = DIRECT }
    }
}

/// The clock that flows are timed by.
#[inline(always)]
pub fn now_s() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32
}

/// Media may run from the backend to the client only: that, too, is a flow in use.
#[inline(always)]
fn mark_seen(key: &FlowKey) {
    if let Some((flow, _)) = share::flow(key) {
        // SAFETY: a whole aligned field of a live entry; racing packets write the same value.
        unsafe { (*flow).last_seen_s = now_s() }
    }
}

#[inline(always)]
fn to_service(
    ctx: &TcContext,
    config: &Config,
    ip: &Ipv4,
    key: &FlowKey,
    service: u32,
    entered: u32,
    behind: Option<&Behind>,
) -> Result<Addresses, DropReason> {
    let opening = match opening_offset(ip.protocol) {
        Some(offset) => {
            let byte: u8 = ctx
                .load((ip.l4_offset + offset) as usize)
                .map_err(|_| DropReason::Malformed)?;
            opens(ip.protocol, byte)
        }
        None => false,
    };
    let now_s = now_s();
    let flow = FlowKey {
        behind: behind.map_or([0; 3], |behind| tag(behind.owner)),
        ..*key
    };
    let (id, backend, beyond) = match known_flow(config, &flow, opening, now_s) {
        Some(found) => found,
        None => new_flow(config, &flow, service, now_s, entered, behind)?,
    };
    if ip.protocol == SCTP && backend.port != key.dport {
        return Err(DropReason::SctpPortChange);
    }
    let addresses = Addresses::to_backend(key, &backend);
    remember_reply(key, &addresses, beyond);
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(&id) {
        // SAFETY: the entry is this CPU's.
        unsafe { count(&mut *stats, ctx.len()) }
    }
    Ok(addresses)
}

#[inline(always)]
fn count(stats: &mut BackendStats, bytes: u32) {
    stats.packets += 1;
    stats.bytes += bytes as u64;
}

/// Is there still a pod at the backend's address? It may have gone before anybody took it off the service.
#[inline(always)]
fn is_there(config: &Config, backend: &Backend) -> bool {
    // SAFETY: userspace replaces entries whole.
    !config.is_pod_net(backend.ip) || unsafe { PODS.get(&backend.ip) }.is_some()
}

#[inline(always)]
fn known_flow(config: &Config, key: &FlowKey, opening: bool, now_s: u32) -> Option<(u32, Backend, bool)> {
    let (flow, beyond) = share::flow(key)?;
    // SAFETY: a live entry; fields are words, and racing packets of one flow write the same values.
    let flow = unsafe { &mut *flow };
    // SAFETY: entries are replaced whole by userspace; only `state` ever changes.
    let backend = unsafe { BACKENDS.get(&flow.backend) }.filter(|b| is_there(config, b));
    if flow_verdict(key.protocol, flow, backend, opening, now_s) == FlowVerdict::Pick {
        return None;
    }
    flow.last_seen_s = now_s;
    if !opening {
        flow.established = 1;
    }
    backend.map(|b| (flow.backend, *b, beyond))
}

#[inline(always)]
fn new_flow(
    config: &Config,
    key: &FlowKey,
    service: u32,
    now_s: u32,
    entered: u32,
    behind: Option<&Behind>,
) -> Result<(u32, Backend, bool), DropReason> {
    let hash = flow_hash(key);
    // SAFETY: userspace replaces tables whole.
    let Some(table) = (unsafe { TABLES.get(&service) }) else {
        return Err(DropReason::NoBackend);
    };
    for attempt in 0..ATTEMPTS {
        let id = table[maglev_slot(hash, attempt)];
        // SAFETY: see `known_flow`.
        let Some(backend) = (unsafe { BACKENDS.get(&id) }) else {
            continue;
        };
        if !takes_new(backend, service) || !is_there(config, backend) {
            continue;
        }
        if let Some(behind) = behind {
            behind::reaches(behind, backend.ip)?;
        }
        let backend = *backend;
        let flow = Flow {
            backend: id,
            last_seen_s: now_s,
            established: 0,
        };
        let beyond = !share::take_flow(config, entered, now_s);
        share::remember(key, &flow, beyond);
        if let Some(stats) = BACKEND_STATS.get_ptr_mut(&id) {
            // SAFETY: the entry is this CPU's.
            unsafe { (*stats).new_flows += 1 }
        }
        return Ok((id, backend, beyond));
    }
    Err(DropReason::NoBackend)
}

/// Makes sure that replies find their way; looked up with each packet, so that the LRU map keeps both
/// directions of a flow alike.
#[inline(always)]
fn remember_reply(key: &FlowKey, addresses: &Addresses, beyond: bool) {
    let reply = addresses.reply_key(key.protocol);
    let wanted = reverse_of(key);
    if let Some(known) = share::reverse(&reply) {
        // SAFETY: a live entry; see `mark_direct`.
        let known = unsafe { &mut *known };
        if known.vip == wanted.vip && known.vip_port == wanted.vip_port && known.client == wanted.client {
            known.direct = TRANSLATED;
            return;
        }
    }
    share::remember_reverse(&reply, &wanted, beyond);
}
