//! The datapath of a node: kernel programs and their maps, loaded once and pinned, so that packets
//! flow on while whoever loaded them is gone.
//!
//! Start at [`Datapath::ensure`]. Callers see addresses, ports and services, never maps.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod admit;
mod bpffs;
mod claims;
mod datapath;
mod error;
mod flows;
mod lock;
mod maglev;
mod maps;
mod object;
mod pins;
mod plan;
mod senders;
mod services;
mod stats;
mod subnets;
mod tell;
mod upgrade;

pub use admit::{LeftOut, Why};
pub use claims::{PodSubnets, SubnetLeftOut, SubnetWhy};
pub use datapath::{Datapath, NodeNet, PodEntry};

pub use error::DatapathError;
pub use gantry_ebpf_common::reason::{DropReason, Path as PacketPath};
pub use gantry_ebpf_common::{MAX_BACKENDS, MAX_SERVICES};
pub use senders::Sending;
pub use services::{Backend, BackendState, Protocol, Service, SyncReport};
pub use stats::{BackendKey, BackendStat, Counters};
pub use subnets::{MAX_GROUP_SUBNETS, SubnetReport};
