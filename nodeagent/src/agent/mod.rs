//! The agent's shell: tells the core what happens, does what it asks, talks to the orchestrator.

mod cni;
mod dns;
mod driver;
mod entering;
mod excess;
mod failure;
mod hook;
mod http;
mod ledger;
mod link;
mod lock;
mod memory;
mod netns;
mod network;
mod observe;
mod own_ids;
mod pods;
mod probe;
mod purge;
mod rootfs;
mod run;
mod session;
mod settings;
mod slots;
mod storage;
#[cfg(test)]
mod tests;
mod tls;
mod turns;
mod wall;
mod watch;

use failure::Failure;

pub use purge::purge;
pub use run::{main, run};
pub use settings::{Args, ArgumentError, Orchestrator, PurgeArgs, Settings};
