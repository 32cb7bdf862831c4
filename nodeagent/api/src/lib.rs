//! What orchestrator and nodeagent say to each other: the model (plain types) and its wire form.

mod check;
mod convert;
pub mod exposition;
pub mod message;
pub mod model;

pub use check::{
    MAX_ID, MAX_POD_SUBNETS, check_subnets, is_claim_id, is_container_name, is_sub_path, is_system_path,
    read_subnets,
};
pub use convert::InvalidMessage;
pub use message::*;
pub use model::*;

/// The largest message on the streams in bytes; set it on clients and servers in both directions.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What one stream of a node's connection may send ahead of its reader, in either direction (HTTP/2 flow control).
pub const STREAM_WINDOW_BYTES: u32 = 128 << 10;

/// What all streams of the connection may: each that takes its own in full leaves room for the others, so that output which
/// nobody reads holds up neither configurations nor statuses.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * STREAM_WINDOW_BYTES;

/// The wire form, generated from `proto/`: messages, `node_service_client` and `node_service_server`.
pub mod proto {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("gantry.node.v1");
}
