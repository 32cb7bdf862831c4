//! The orchestrator: API server, store, controllers, planner loop, link to the node agents.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod apiserver;
mod cleaner;
pub mod cluster;
pub mod controllers;
pub mod core;
pub mod kinds;
pub mod link;
pub mod pki;
pub mod plainfile;
pub mod podsecurity;
pub mod quantity;
pub mod renderer;
pub mod secrets;
pub mod server;
pub mod shell;
#[cfg(test)]
mod small_disk;
pub mod state;
pub mod store;
