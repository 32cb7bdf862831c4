//! Writes new addresses into a packet, checksums included. The transport checksum goes through the
//! kernel's helper, which knows packets whose checksum a device has yet to fill in.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::programs::TcContext;
use gantry_ebpf_common::checksum::replace32;
use gantry_ebpf_common::layout::UDP;
use gantry_ebpf_common::packet::{IP_CHECKSUM_OFFSET, Ipv4, Ports, checksum_offset};
use gantry_ebpf_common::reason::DropReason;
use gantry_ebpf_common::verdict::Addresses;

/// Gives the packet its new addresses; nothing happens if they are the ones it has.
#[inline(always)]
pub fn rewrite(ctx: &TcContext, ip: &Ipv4, new: &Addresses) -> Result<(), DropReason> {
    if new.src == ip.src && new.dst == ip.dst {
        return Ok(());
    }
    if ip.has_ports() && !ip.later_fragment {
        transport(ctx, ip, new).map_err(|_| DropReason::RewriteFailed)?;
    }
    let checksum = replace32(replace32(ip.checksum, ip.src, new.src), ip.dst, new.dst);
    addresses(ctx, 0, checksum, new.src, new.dst).map_err(|_| DropReason::RewriteFailed)
}

/// Writes addresses, and the header checksum that goes with them, into the frame that begins at `at`.
#[inline(always)]
pub fn addresses(ctx: &TcContext, at: usize, checksum: u16, src: u32, dst: u32) -> Result<(), i64> {
    let (c, s, d) = (checksum.to_be_bytes(), src.to_be_bytes(), dst.to_be_bytes());
    let bytes: [u8; 10] = [c[0], c[1], s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]];
    ctx.store(at + IP_CHECKSUM_OFFSET, &bytes, 0)
}

#[inline(always)]
fn transport(ctx: &TcContext, ip: &Ipv4, new: &Addresses) -> Result<(), i64> {
    let l4 = ip.l4_offset as usize;
    let old: [u8; 4] = ctx.load(l4)?;
    let wanted = new.ports.bytes();
    if let Some(offset) = checksum_offset(ip.protocol) {
        let at = l4 + offset as usize;
        // A UDP checksum of zero means none, and must stay so (RFC 768).
        let mangled = if ip.protocol == UDP {
            BPF_F_MARK_MANGLED_0 as u64
        } else {
            0
        };
        let pseudo = mangled | BPF_F_PSEUDO_HDR as u64 | 4;
        if new.src != ip.src {
            ctx.l4_csum_replace(at, ip.src.to_be() as u64, new.src.to_be() as u64, pseudo)?;
        }
        if new.dst != ip.dst {
            ctx.l4_csum_replace(at, ip.dst.to_be() as u64, new.dst.to_be() as u64, pseudo)?;
        }
        if old != wanted {
            let (from, to) = (u32::from_ne_bytes(old), u32::from_ne_bytes(wanted));
            ctx.l4_csum_replace(at, from as u64, to as u64, mangled | 4)?;
        }
    }
    if Ports::parse(&old) != new.ports {
        ctx.store(l4, &wanted, 0)?;
    }
    Ok(())
}
