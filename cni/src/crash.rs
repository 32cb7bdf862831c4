//! Dying on purpose, so that tests can show that DEL converges from every step: 1 to 11 in ADD, 20 to 23 in DEL, 30 to 32 in purge.

/// Kills this process if `GANTRY_CNI_CRASH_AT` names this step. Not in release builds.
#[cfg(debug_assertions)]
pub fn point(step: u32) {
    let wanted = std::env::var("GANTRY_CNI_CRASH_AT")
        .ok()
        .and_then(|v| v.parse().ok());
    if wanted == Some(step) {
        // The kernel cannot refuse to let a process kill itself.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub fn point(_step: u32) {}
