//! Becoming a process that nobody owns: fork, new session, subreaper.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, fork, setsid};
use rustix::pipe::{PipeFlags, pipe_with};

use super::server::Server;
use crate::runtime::{PodDir, identity_of_self};

/// In the caller: returns when the shim listens, or cannot. The shim itself never returns from here.
pub(super) fn start(dir: &PodDir) -> io::Result<()> {
    let (ready, ready_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this process has one thread, so the child may do anything that a process may do.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            drop(ready_writer);
            let mut said = String::new();
            File::from(ready).read_to_string(&mut said)?;
            if said == "ready" {
                return Ok(());
            }
            Err(io::Error::other(if said.is_empty() {
                "the shim ended at once".to_owned()
            } else {
                said
            }))
        }
        ForkResult::Child => {
            drop(ready);
            let mut ready_writer = File::from(ready_writer);
            let ended = match set_up(dir) {
                Ok((server, lock)) => {
                    let told = ready_writer.write_all(b"ready").and_then(|()| leave_stderr());
                    drop(ready_writer);
                    let ended = told.and_then(|()| server.run());
                    drop(lock);
                    ended
                }
                Err(e) => {
                    // The caller prints it.
                    let _ = ready_writer.write_all(e.to_string().as_bytes());
                    std::process::exit(1);
                }
            };
            if let Err(e) = &ended {
                let _ = writeln!(io::stderr(), "shim of {} ends: {e}", dir.path().display());
            }
            std::process::exit(i32::from(ended.is_err()));
        }
    }
}

fn set_up(dir: &PodDir) -> io::Result<(Server, Flock<File>)> {
    setsid()?;
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))?;
    umask(Mode::from_bits_truncate(0o022));
    // SAFETY: ignoring a signal needs no handler.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    // Two shims of one pod would fight: the lock lasts as long as the process.
    let pid_file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.pid_file())?;
    pid_file.set_permissions(fs::Permissions::from_mode(0o600))?;
    let mut lock = match Flock::lock(pid_file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, e)) => return Err(io::Error::other(format!("another shim of this pod runs ({e})"))),
    };
    let identity = identity_of_self();
    lock.set_len(0)?;
    lock.write_all(identity.as_bytes())?;
    fs::create_dir_all(dir.libcontainer_root())?;
    let listener = listen(dir)?;
    let mut child_ended = SigSet::empty();
    child_ended.add(Signal::SIGCHLD);
    child_ended.thread_block()?;
    let signals = SignalFd::with_flags(&child_ended, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    std::env::set_current_dir("/")?;
    Ok((Server::new(dir.clone(), listener, signals)?, lock))
}

fn listen(dir: &PodDir) -> io::Result<UnixListener> {
    let socket = dir.path().join(PodDir::socket_name());
    match fs::remove_file(&socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let directory = File::open(dir.path())?;
    // By way of the directory's descriptor: socket addresses are limited to 107 bytes.
    let listener = UnixListener::bind(format!(
        "/proc/self/fd/{}/{}",
        directory.as_raw_fd(),
        PodDir::socket_name()
    ))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The caller waits for the end of stderr; from here on it is the pod's `shim.log`, as stdout is.
fn leave_stderr() -> io::Result<()> {
    rustix::stdio::dup2_stderr(rustix::stdio::stdout())?;
    Ok(())
}
