//! Diameter as the lab's elements need it: messages (RFC 6733, sections 3 and 4), and peers over TCP that exchange capabilities,
//! watch each other, and send requests both ways (sections 5 and 6).

mod avp;
pub mod codes;
mod connection;
mod message;
mod node;
mod peer;

pub use avp::{Avp, AvpCode, Avps, MalformedAvp, VENDOR_3GPP};
pub use message::{Header, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, Malformed, Message};
pub use node::{Application, Identity, Node, NodeError, Service};
pub use peer::{Peer, RequestError};
