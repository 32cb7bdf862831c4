//! The orchestrator's end of the streams to the node agents (gRPC over mutual TLS; the agents dial in).
//!
//! [`NodeLink`] serves; [`LinkHandle`] is what the rest of the orchestrator holds.

mod handle;
mod service;
mod session;

pub use handle::{LinkError, LinkEvent, LinkHandle};
pub use service::{NodeIdentity, NodeLink};
pub use session::Session;
