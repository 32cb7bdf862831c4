//! What orchestrator and nodeagent say to each other: the model (plain types) and its wire form.

mod check;
mod convert;
pub mod message;
pub mod model;

pub use check::{is_container_name, is_sub_path, is_system_path};
pub use convert::InvalidMessage;
pub use message::*;
pub use model::*;

/// The largest message on the streams in bytes; set it on clients and servers in both directions.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The wire form, generated from `proto/`: messages, `node_service_client` and `node_service_server`.
pub mod proto {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("gantry.node.v1");
}
