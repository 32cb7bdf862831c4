//! Flows within and beyond shares.

use gantry_ebpf_common::layout::{Config, Flow, FlowKey, Reverse};
use gantry_ebpf_common::share::Share;

use crate::maps::{
    BEYOND, FLAGS, FLOWS, FLOWS_BEYOND, REVERSE, REVERSE_BEYOND, SHARES, UNBOUND, flag, group,
};

/// One more flow through this interface; false if it is beyond its group's share.
#[inline(always)]
pub fn take_flow(config: &Config, entered: u32, now_s: u32) -> bool {
    take(config, entered, Share::take_flow, now_s)
}

/// One more fragment through this interface; false if it is beyond its group's share.
#[inline(always)]
pub fn take_fragment(config: &Config, entered: u32, now_s: u32) -> bool {
    take(config, entered, Share::take_fragment, now_s)
}

/// The host has no share: its clients are everybody's.
#[inline(always)]
fn take(config: &Config, entered: u32, what: fn(&mut Share, u32) -> bool, now_s: u32) -> bool {
    if entered == config.host_peer || flag(UNBOUND) {
        return true;
    }
    with(group(entered), now_s, what) || with(entered, now_s, Share::count_beyond)
}

#[inline(always)]
fn with(key: u32, now_s: u32, what: fn(&mut Share, u32) -> bool) -> bool {
    if let Some(share) = SHARES.get_ptr_mut(&key) {
        // SAFETY: a live entry of words; a lost update of another CPU counts one too few.
        return what(unsafe { &mut *share }, now_s);
    }
    let mut share = Share::full(now_s);
    let within = what(&mut share, now_s);
    let _ = SHARES.insert(&key, &share, 0);
    within
}

/// The flow of this key, and whether it is beyond a share.
#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<(*mut Flow, bool)> {
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        return Some((flow, false));
    }
    if !flag(BEYOND) {
        return None;
    }
    FLOWS_BEYOND.get_ptr_mut(key).map(|flow| (flow, true))
}

/// What a reply with this key must look like.
#[inline(always)]
pub fn reverse(key: &FlowKey) -> Option<*mut Reverse> {
    if let Some(reverse) = REVERSE.get_ptr_mut(key) {
        return Some(reverse);
    }
    if !flag(BEYOND) {
        return None;
    }
    REVERSE_BEYOND.get_ptr_mut(key)
}

/// Remembers a flow. Without the entry the next packet picks again, and by the same table the same backend.
#[inline(always)]
pub fn remember(key: &FlowKey, flow: &Flow, beyond: bool) {
    if !beyond {
        let _ = FLOWS.insert(key, flow, 0);
        return;
    }
    let _ = FLAGS.set(BEYOND, &1, 0);
    let _ = FLOWS_BEYOND.insert(key, flow, 0);
}

/// Remembers what its replies must look like.
#[inline(always)]
pub fn remember_reverse(key: &FlowKey, reverse: &Reverse, beyond: bool) {
    if !beyond {
        let _ = REVERSE.insert(key, reverse, 0);
        return;
    }
    let _ = FLAGS.set(BEYOND, &1, 0);
    let _ = REVERSE_BEYOND.insert(key, reverse, 0);
}
