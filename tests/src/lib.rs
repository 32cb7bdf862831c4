//! The harness of system tests and of the demo: a real Gantry driven by its command line, what the machine shows of it,
//! and the records of load generator and proxies. The tests themselves are in `tests/`.

pub mod api;
pub mod bare;
pub mod busybox;
pub mod devices;
pub mod faults;
pub mod gantry;
pub mod leftovers;
pub mod load;
pub mod processes;
pub mod scraper;
pub mod sip;
pub mod sipp;
pub mod volte;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where cargo puts the binaries of the dev profile.
pub fn target_dir() -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("debug")
}

/// Images of the catalog that are kept between runs together, in a data directory with nothing but an image store.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    cache: &'static str,
    names: &'static [&'static str],
}

impl Images {
    /// Of the demo's SIP core and its load.
    pub const SIP: Self = Self {
        cache: "demo-images",
        names: &["kamailio", "sipp"],
    };
    /// Of the core networks for labs.
    pub const CORE: Self = Self {
        cache: "core-images",
        names: &[
            "dns",
            "freediameter",
            "kamailio-ims",
            "lab",
            "nextepc",
            "rtpengine",
        ],
    };
    /// Of the database that `ims` has beside those.
    pub const DATABASE: Self = Self {
        cache: "core-images",
        names: &["mariadb"],
    };
    /// Of packet data of 2G and 3G.
    pub const DATA: Self = Self {
        cache: "core-images",
        names: &["dns", "lab", "osmo-ggsn"],
    };

    fn cache(self) -> PathBuf {
        target_dir().with_file_name(self.cache)
    }
}

/// Polls until `found` has something, or the deadline has passed.
pub fn poll<T>(patience: Duration, found: impl FnMut() -> Option<T>) -> Option<T> {
    poll_each(Duration::from_millis(50), patience, found)
}

/// The same for what is asked less often.
pub fn poll_each<T>(
    interval: Duration,
    patience: Duration,
    mut found: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = found() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(interval);
    }
}
