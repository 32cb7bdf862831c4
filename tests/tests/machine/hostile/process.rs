//! Memory of Gantry's processes, as the kernel shows it.

use std::fs;

use anyhow::{Context, Result};
use gantry_tests::gantry::Gantry;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One of Gantry's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// The control plane.
    Orchestrator,
    /// The agent; pods' shims are apart.
    Agent,
}

impl Process {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Agent => "nodeagent",
        }
    }

    pub(super) fn pid(self, gantry: &Gantry) -> Result<i32> {
        gantry.pid(self.name())
    }
}

/// Resident memory of a process over a while, in MiB.
pub(super) struct Memory {
    pid: i32,
    pub(super) before: u64,
}

impl Memory {
    /// From now on; the kernel forgets the peak (proc(5), `clear_refs`).
    pub(super) fn of(pid: i32) -> Result<Self> {
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of memory")?;
        Ok(Self {
            pid,
            before: mib(pid, "VmRSS:")?,
        })
    }

    pub(super) fn now(&self) -> Result<u64> {
        mib(self.pid, "VmRSS:")
    }

    /// SIGKILL; one that has ended is as dead.
    pub(super) fn kill(&self) {
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
    }

    pub(super) fn peak(&self) -> Result<u64> {
        mib(self.pid, "VmHWM:")
    }
}

fn mib(pid: i32, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let found = status.lines().find_map(|l| l.strip_prefix(line));
    let kib = found.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the process has ended")? / 1024)
}
