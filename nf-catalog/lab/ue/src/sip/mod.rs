//! SIP as a device speaks it (RFC 3261): messages as they are on the wire, and the client's side of transactions over UDP, in which each
//! datagram that is sent again is counted.

mod message;
mod transaction;
mod value;

pub use message::{MAX_BYTES, Message, Start};
pub use transaction::{Ended, Timers, Transaction, Turn};
pub use value::{NameAddr, param};
