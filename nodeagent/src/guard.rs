//! Switching a protection off, so that tests can show that the same attack does harm without it (its control). Names:
//!
//! | name | without it |
//! |---|---|
//! | `sealed-binary` | shim and exec run from the binary's file |
//! | `fresh-process` | containers inherit scheduling, limits, signals and so on |
//! | `seccomp` | no filter of system calls |
//! | `capabilities` | all capabilities of the agent |
//! | `no-new-privileges` | programs may gain privileges |
//! | `keyring` | the session keyring of whoever started the agent |
//! | `paths` | nothing is masked or read-only in /proc and /sys |
//! | `devices` | every device of the host |
//!
//! `GANTRY_TEST_UNGUARDED` lists names, with commas between. It is read once a process, and only in debug builds.

use std::process::Command;

const VARIABLE: &str = "GANTRY_TEST_UNGUARDED";

/// True if this protection is switched off.
#[cfg(debug_assertions)]
pub(crate) fn off(protection: &str) -> bool {
    static NAMES: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let names = NAMES.get_or_init(|| std::env::var(VARIABLE).unwrap_or_default());
    names.split(',').any(|name| name == protection)
}

/// Nothing can be switched off.
#[cfg(not(debug_assertions))]
pub(crate) fn off(_protection: &str) -> bool {
    false
}

/// Has a command without an environment know what is switched off.
pub(crate) fn pass_on(command: &mut Command) {
    if cfg!(debug_assertions)
        && let Ok(names) = std::env::var(VARIABLE)
    {
        command.env(VARIABLE, names);
    }
}
