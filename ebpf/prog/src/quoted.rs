//! ICMP errors: a pod tells only of what was sent to it, and the client of a service reads what it has sent.
//!
//! Without the first anybody with a raw socket ends a neighbour's calls and narrows its paths; without the second a client never
//! learns that nobody listens behind the service.

use aya_ebpf::programs::TcContext;
use gantry_ebpf_common::layout::{Config, FORWARDS};
use gantry_ebpf_common::packet::{ETH_BYTES, Ipv4, Ports, checksum_offset};
use gantry_ebpf_common::quoted::{Fields, ICMP, ICMP_BYTES, QUOTED_L4_BYTES, is_error, may_say};
use gantry_ebpf_common::reason::{DropReason, Path};
use gantry_ebpf_common::verdict::Addresses;

use crate::maps::{SENDERS, count_path};
use crate::{rewrite, share};

/// Offset of the checksum in the ICMP header.
const ICMP_CHECKSUM_OFFSET: usize = 2;

/// Looks at an ICMP error, and translates what it quotes if that is a flow's; `None`: its addresses are right as they are, or it is
/// none.
#[inline(always)]
pub fn translate(
    ctx: &TcContext,
    config: &Config,
    ip: &Ipv4,
    entered: u32,
) -> Result<Option<Addresses>, DropReason> {
    // Later fragments hold neither type nor quoted addresses, and never get in place of those (`net/ipv4/inet_fragment.c` takes no
    // overlaps).
    if ip.protocol != ICMP || ip.later_fragment {
        return Ok(None);
    }
    let icmp = ip.l4_offset as usize;
    let head: [u8; 4] = ctx.load(icmp).map_err(|_| DropReason::Malformed)?;
    if !is_error(head[0]) {
        return Ok(None);
    }
    // The quoted packet, read as if there were an Ethernet header before it.
    let frame = icmp + ICMP_BYTES - ETH_BYTES;
    let quoted = ctx
        .load(frame)
        .ok()
        .and_then(|head| Ipv4::parse(&head))
        .ok_or(DropReason::Malformed)?;
    // Of the host come the errors of all routers.
    if entered != config.host_peer && !may_say(head[0], ip, &quoted, forwards(entered)) {
        return Err(DropReason::ForgedError);
    }
    if !quoted.has_ports() || quoted.later_fragment || quoted.src != ip.dst {
        return Ok(None);
    }
    let l4 = frame + quoted.l4_offset as usize;
    let start: [u8; QUOTED_L4_BYTES] = ctx.load(l4).map_err(|_| DropReason::Malformed)?;
    let ports = Ports::parse(&[start[0], start[1], start[2], start[3]]);
    // What was sent to the backend is the other way of what the backend would reply.
    let reply = quoted.flow_key(ports).swapped();
    // SAFETY: a live entry, written whole, except `direct`, whose two values are both right to act on.
    let Some(reverse) = share::reverse(&reply).map(|reverse| unsafe { *reverse }) else {
        return Ok(None);
    };
    if reverse.direct != 0 {
        return Ok(None);
    }
    let checksum = checksum_offset(quoted.protocol).map(|offset| l4 + offset as usize);
    let fields = Fields {
        src: quoted.src,
        dst: quoted.dst,
        ip_checksum: quoted.checksum,
        ports,
        checksum: checksum.and_then(|at| ctx.load(at).ok()).map(u16::from_be_bytes),
        icmp_checksum: u16::from_be_bytes([head[2], head[3]]),
    };
    let sent = fields.as_sent(quoted.protocol, &reverse);
    rewrite::addresses(ctx, frame, sent.ip_checksum, sent.src, sent.dst)
        .and_then(|()| ctx.store(l4, &sent.ports.bytes(), 0))
        .and_then(|()| match (checksum, sent.checksum) {
            (Some(at), Some(sum)) => ctx.store(at, &sum.to_be_bytes(), 0),
            _ => Ok(()),
        })
        .and_then(|()| ctx.store(icmp + ICMP_CHECKSUM_OFFSET, &sent.icmp_checksum.to_be_bytes(), 0))
        .map_err(|_| DropReason::RewriteFailed)?;
    count_path(Path::Reply);
    Ok(Some(Addresses {
        // A router on the way speaks for itself (RFC 5508, section 4.2).
        src: if ip.src == quoted.dst { sent.dst } else { ip.src },
        dst: sent.src,
        ports: Ports::default(),
    }))
}

/// Does the pod behind this interface forward what others send?
#[inline(always)]
fn forwards(entered: u32) -> bool {
    // SAFETY: userspace replaces entries whole.
    unsafe { SENDERS.get(&entered) }.is_some_and(|sender| sender.flags & FORWARDS != 0)
}
