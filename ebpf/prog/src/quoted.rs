//! ICMP errors: a pod tells only of what was sent to it, and the client of a service reads what it has sent.
//!
//! Without the first anybody with a raw socket ends a neighbour's calls and narrows its paths; without the second a client never
//! learns that nobody listens behind the service, and a backend never that the path to a client is narrow.

use aya_ebpf::programs::TcContext;
use gantry_ebpf_common::behind::{Behind, tag};
use gantry_ebpf_common::layout::{Backend, Config, FlowKey, TRANSLATED};
use gantry_ebpf_common::packet::{ETH_BYTES, Ipv4, Ports, checksum_offset};
use gantry_ebpf_common::quoted::{Fields, ICMP, ICMP_BYTES, QUOTED_L4_BYTES, is_error, may_say};
use gantry_ebpf_common::reason::{DropReason, Path};
use gantry_ebpf_common::verdict::Addresses;

use crate::maps::{BACKENDS, count_path};
use crate::{behind, rewrite, share};

/// Offset of the checksum in the ICMP header.
const ICMP_CHECKSUM_OFFSET: usize = 2;

/// Looks at an ICMP error, and translates what it quotes if that is a flow's; `None`: its addresses are right as they are, or it is
/// none. `behind`: the pod that its source is behind.
#[inline(always)]
pub fn translate(
    ctx: &TcContext,
    config: &Config,
    ip: &Ipv4,
    entered: u32,
    behind: Option<&Behind>,
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
    // The pod that the quoted packet's receiver is behind.
    let mut owner = behind.map(|behind| behind.owner);
    // Of the host come the errors of all routers.
    if entered != config.host_peer {
        if quoted.dst != ip.src {
            owner = behind::tells_of(config, entered, quoted.dst, ip.dst);
        }
        if !may_say(head[0], ip, &quoted, owner.is_some()) {
            return Err(DropReason::ForgedError);
        }
    }
    if !quoted.has_ports() || quoted.later_fragment || quoted.src != ip.dst {
        return Ok(None);
    }
    let l4 = frame + quoted.l4_offset as usize;
    let start: [u8; QUOTED_L4_BYTES] = ctx.load(l4).map_err(|_| DropReason::Malformed)?;
    let ports = Ports::parse(&[start[0], start[1], start[2], start[3]]);
    // What the receiver would answer.
    let back = quoted.flow_key(ports).swapped();
    let checksum = checksum_offset(quoted.protocol).map(|offset| l4 + offset as usize);
    let fields = Fields {
        src: quoted.src,
        dst: quoted.dst,
        ip_checksum: quoted.checksum,
        ports,
        checksum: checksum.and_then(|at| ctx.load(at).ok()).map(u16::from_be_bytes),
        icmp_checksum: u16::from_be_bytes([head[2], head[3]]),
    };
    // SAFETY: a live entry, written whole, except `direct`, whose values are all right to act on.
    let reverse = share::reverse(&back).map(|reverse| unsafe { *reverse });
    let (sent, src) = if let Some(reverse) = reverse.filter(|reverse| reverse.direct == TRANSLATED) {
        count_path(Path::Reply);
        let sent = fields.as_sent(quoted.protocol, &reverse);
        // A router on the way speaks for itself (RFC 5508, section 4.2).
        (sent, if ip.src == quoted.dst { sent.dst } else { ip.src })
    } else if let Some(backend) = replier(config, &back, owner) {
        count_path(Path::Service);
        (fields.as_replied(quoted.protocol, &backend), ip.src)
    } else {
        return Ok(None);
    };
    rewrite::addresses(ctx, frame, sent.ip_checksum, sent.src, sent.dst)
        .and_then(|()| ctx.store(l4, &sent.ports.bytes(), 0))
        .and_then(|()| match (checksum, sent.checksum) {
            (Some(at), Some(sum)) => ctx.store(at, &sum.to_be_bytes(), 0),
            _ => Ok(()),
        })
        .and_then(|()| ctx.store(icmp + ICMP_CHECKSUM_OFFSET, &sent.icmp_checksum.to_be_bytes(), 0))
        .map_err(|_| DropReason::RewriteFailed)?;
    Ok(Some(Addresses {
        src,
        dst: sent.src,
        ports: Ports::default(),
    }))
}

/// The backend of the flow that packets with this key are of: an error about what it has replied is for it.
#[inline(always)]
fn replier(config: &Config, key: &FlowKey, owner: Option<u32>) -> Option<Backend> {
    if !config.is_service_net(key.dst) {
        return None;
    }
    let key = FlowKey {
        behind: owner.map_or([0; 3], tag),
        ..*key
    };
    let (flow, _) = share::flow(&key)?;
    // SAFETY: a live entry; fields are words. Entries of backends are replaced whole by userspace.
    let backend = unsafe { BACKENDS.get(&(*flow).backend) }?;
    // Who reached itself was answered by itself, under another address.
    (backend.ip != key.src).then_some(*backend)
}
