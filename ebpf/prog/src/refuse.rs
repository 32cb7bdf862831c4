//! Sends the answer to a packet that cannot be delivered back the way that it came.

use aya_ebpf::bindings::BPF_F_RECOMPUTE_CSUM;
use aya_ebpf::helpers::{bpf_redirect, bpf_skb_change_tail};
use aya_ebpf::programs::TcContext;
use gantry_ebpf_common::layout::{SCTP, TCP, UDP};
use gantry_ebpf_common::packet::{ETH_BYTES, HEAD_BYTES, Ipv4};
use gantry_ebpf_common::refuse::{ASKED_BYTES, QUOTED_BYTES, abort, reset, unreachable};

/// Turns the packet into its own answer; `None` if it gets none.
#[inline(always)]
pub fn refuse(ctx: &TcContext, ip: &Ipv4, entered: u32) -> Option<i32> {
    if ip.l4_offset != HEAD_BYTES as u32 || ip.later_fragment {
        return None;
    }
    match ip.protocol {
        TCP => answer(ctx, &reset(&asked::<ASKED_BYTES>(ctx)?)?)?,
        UDP => answer(ctx, &unreachable(&asked::<QUOTED_BYTES>(ctx)?))?,
        SCTP => answer(ctx, &abort(&asked::<ASKED_BYTES>(ctx)?)?)?,
        _ => return None,
    }
    // SAFETY: the helper has no preconditions.
    Some(unsafe { bpf_redirect(entered, 0) } as i32)
}

#[inline(always)]
fn asked<const N: usize>(ctx: &TcContext) -> Option<[u8; N]> {
    ctx.load(ETH_BYTES).ok()
}

#[inline(always)]
fn answer<const N: usize>(ctx: &TcContext, packet: &[u8; N]) -> Option<()> {
    let macs: [u8; 12] = ctx.load(0).ok()?;
    let [a, b, c, d, e, f, rest @ ..] = macs;
    let [g, h, i, j, k, l] = rest;
    // SAFETY: the kernel hands the program a valid context, and checks the length.
    if unsafe { bpf_skb_change_tail(ctx.skb.skb, (ETH_BYTES + N) as u32, 0) } != 0 {
        return None;
    }
    let flags = BPF_F_RECOMPUTE_CSUM as u64;
    ctx.store(0, &[g, h, i, j, k, l, a, b, c, d, e, f], flags).ok()?;
    ctx.store(ETH_BYTES, packet, flags).ok()
}
