//! Switching a protection of the control plane off, so that tests can show that the same case does harm without it (its
//! control). Names:
//!
//! | name | without it |
//! |---|---|
//! | `json-patch` | operations, copies and nesting of a JSON patch are not bounded |
//! | `body` | nor are request bodies, in size and time |
//! | `share` | every request works at once, however many there are |
//! | `connections` | connections and what is half sent stay as long as the client likes |
//!
//! `GANTRY_TEST_UNGUARDED` lists names, with commas between. It is read only in debug builds.

use gantry_orchestrator::apiserver::Limits;

/// True if this protection is switched off.
fn off(protection: &str) -> bool {
    cfg!(debug_assertions)
        && std::env::var("GANTRY_TEST_UNGUARDED")
            .is_ok_and(|names| names.split(',').any(|name| name == protection))
}

/// The API server's limits, without those that are switched off.
pub fn limits() -> Limits {
    /// Longer than any test, and no time overflows by it.
    const LONG: std::time::Duration = std::time::Duration::from_secs(86_400);
    /// As many as a semaphore takes.
    const MANY: usize = usize::MAX >> 8;
    let mut limits = Limits::default();
    if off("json-patch") {
        limits.patch.operations = MANY;
        limits.patch.copied_bytes = MANY;
        limits.patch.depth = MANY;
    }
    if off("body") {
        (limits.body_bytes, limits.bodies_bytes, limits.body_time) = (MANY, MANY, LONG);
    }
    if off("share") {
        (limits.share.seats, limits.share.heavy_seats, limits.share.streams) = (MANY, MANY, MANY);
    }
    if off("connections") {
        let connections = &mut limits.connections;
        (connections.per_user, connections.total, connections.handshakes) = (MANY, MANY, MANY);
        (connections.handshake, connections.head, connections.idle) = (LONG, LONG, LONG);
    }
    limits
}
