//! One process a pod: the parent of its containers. It starts them, writes their logs and exit codes, answers on a socket, and
//! lives on when the agent that made it ends. One thread, no timer, no allocation while idle.
//!
//! If the shim itself is killed, its containers are killed with it (`PR_SET_PDEATHSIG`): the agent finds the socket dead,
//! and there is never a container that nobody watches.

mod allowance;
mod complaints;
mod daemon;
mod devices;
pub mod fresh;
mod last_words;
pub(crate) mod launch;
mod log;
mod oom;
mod seccomp;
mod server;
mod spec;
mod stage;
mod targets;
pub(crate) mod wall;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::runtime::{PodDir, oom as scores};

/// Arguments of `gantry-nodeagent shim`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The pod's directory
    #[arg(long)]
    dir: PathBuf,
}

/// Starts the shim of a pod in the background. Ends with success when it listens; else says why not on stderr.
pub fn main(args: &Args) -> ExitCode {
    fresh::oom_score_adj(scores::SHIM);
    let started = std::path::absolute(&args.dir).and_then(|dir| daemon::start(&PodDir::new(dir)));
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            gantry_log::say(e);
            ExitCode::FAILURE
        }
    }
}

/// Waits for something to read or the end of the other side; false after `patience`.
fn wait_readable(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
