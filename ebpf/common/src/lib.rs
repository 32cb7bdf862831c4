//! Map layouts, packet parsing and verdicts of the datapath.
//!
//! `no_std`, no I/O: the same functions run in the kernel programs and in host tests.
//! Addresses and ports are numbers in host byte order everywhere; only [`packet`] knows the wire.
#![cfg_attr(not(test), no_std)]

pub mod behind;
pub mod checksum;
pub mod layout;
pub mod packet;
pub mod quoted;
pub mod reason;
pub mod refuse;
pub mod share;
pub mod verdict;

/// Slots of one service's Maglev table: a prime, so that every step through it visits every slot.
pub const MAGLEV_SLOTS: u32 = 1021;
/// Services (an address, a port and a protocol each) that a node takes. The maps hold twice as many, for the moment in
/// which all are replaced; they take memory for what is in them only: 4 kB a service, most of it the Maglev table.
pub const MAX_SERVICES: u32 = 16_384;
/// Backends, over all services, that a node takes. The maps hold twice as many.
pub const MAX_BACKENDS: u32 = 65_536;
/// Pods of one node that fit in the maps.
pub const MAX_PODS: u32 = 4096;
/// Subnets behind pods that a node takes; the map takes memory for what is in it only.
pub const MAX_SUBNETS: u32 = 16_384;
/// Tracked flows; the least recently used one makes room for a new one.
pub const MAX_FLOWS: u32 = 131_072;
/// Flows tracked beyond their senders' shares, all senders together: they make room for each other only.
pub const MAX_FLOWS_BEYOND: u32 = 32_768;
/// Fragmented datagrams tracked at one time.
pub const MAX_FRAGMENTS: u32 = 4096;
/// Reasons of drops that map DROPS has room for: one more makes no new layout.
pub const MAX_REASONS: u32 = 64;
/// Raised with every change of a struct in [`layout`] or of a map's size: pinned maps are kept only if it is equal.
pub const LAYOUT_VERSION: u32 = 6;
