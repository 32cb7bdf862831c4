//! GTP as the lab's elements need it, without I/O: messages of S11 (GTPv2-C, TS 29.274) and tunnels of users' packets (GTPv1-U,
//! TS 29.281), over IPv4.

mod element;
mod message;
pub mod s11;
pub mod user;
mod value;

pub use element::{Element, Elements, MalformedElement};
pub use message::{MAX_MESSAGE_BYTES, Malformed, Message, kind};
pub use value::{FTeid, MalformedValue, Plmn, interface};

/// Port of GTPv2-C (TS 29.274, 4.2.1).
pub const CONTROL_PORT: u16 = 2123;
/// Port of GTP-U (TS 29.281, 4.4.2).
pub const USER_PORT: u16 = 2152;
