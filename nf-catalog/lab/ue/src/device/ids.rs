//! Numbers that nobody else has: branches, tags, Call-IDs. From the device's own name and a count, so that a capture can be read.

/// A source of them.
#[derive(Clone, Debug)]
pub struct Ids {
    name: String,
    last: u64,
}

impl Ids {
    /// Of one device; `run` tells its lives apart.
    pub fn new(name: &str, run: u64) -> Self {
        Self {
            name: format!("{name}-{run:x}"),
            last: 0,
        }
    }

    fn next(&mut self, kind: char) -> String {
        self.last += 1;
        format!("{}-{kind}{}", self.name, self.last)
    }

    /// `branch` of a Via (RFC 3261, 8.1.1.7).
    pub fn branch(&mut self) -> String {
        format!("z9hG4bK-{}", self.next('b'))
    }

    /// `tag` of a From or To.
    pub fn tag(&mut self) -> String {
        self.next('t')
    }

    /// Call-ID.
    pub fn call_id(&mut self, address: std::net::Ipv4Addr) -> String {
        format!("{}@{address}", self.next('c'))
    }
}
