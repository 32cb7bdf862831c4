//! Authentication and key agreement as subscribers and their home network do it: vectors and answers (TS 33.102, with Milenage of
//! TS 35.206), the key of a visited LTE network (TS 33.401), the digest that carries them in SIP (RFC 3310), and the file in which
//! subscribers are written down.

mod digest;
mod key;
mod sqn;
mod subscribers;

pub use digest::{Challenge, Credentials};
pub use key::{Answer, Auts, Key, NotAuthentic, Vector};
pub use sqn::{Seen, Sqn};
pub use subscribers::{Subscriber, SubscriberError, read};
