//! Makes one node match its configuration. `runtime`, `shim`, `host` and `exec` know containers; they know nothing of the
//! orchestrator, of services or of the network beyond the path of a network namespace.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod agent;
mod chain;
pub mod core;
pub mod exec;
mod guard;
pub mod host;
pub mod runtime;
pub mod shim;
