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
//! | `network-files` | a container may write its `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` |
//! | `user-namespace` | ids of a container are the host's, although its pod has its own |
//! | `pid-namespace` | what a program has started stays when it ends |
//! | `pids` | a pod may have all processes of the node |
//! | `memory-limit` | no limit on memory is put in force |
//! | `promised-memory` | all that a limit allows counts as promised |
//! | `socket-memory` | sockets take what memory they like, in cgroup v1 |
//! | `pod-memory` | the containers of a pod together may have more than each of them alone, in files that they leave in memory |
//! | `pods-memory` | all pods together may have all memory of the node |
//! | `cpu-weight` | every pod weighs as much as any other |
//! | `log-line` | a line of a log is kept in memory until it ends |
//! | `log-size` | a log is never put aside and begun anew |
//! | `log-rate` | a log grows as fast as a container can write |
//! | `http-bound` | answers to probes, hooks and of metrics are read to their end, however long |
//! | `probe-time` | probes and hooks have no time limit |
//! | `probe-share` | commands of probes run all at once, and what entering a container costs is the node's |
//! | `back-off` | what has ended is started at once, however often |
//! | `kill` | nothing is killed that does not end when it is asked |
//! | `flow-share` | a pod's flows push out other pods' |
//! | `service-apart` | a Service that cannot be in force is a fault of the node's whole network |
//! | `dns-rate` | as many DNS questions as one likes |
//! | `dns-places` | as many DNS connections and forwarded questions as one likes |
//! | `dns-share` | whoever has most DNS connections and forwarded questions keeps them when all are taken |
//! | `ephemeral-storage` | pods leave on the disk what they like |
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
