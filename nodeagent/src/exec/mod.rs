//! Runs a command in a running container: with its namespaces, cgroup, user and capabilities. One short-lived process a command,
//! single-threaded, because it forks. stdin, stdout and stderr are the caller's; when this process is killed, so is the command.

mod ids;

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use rustix::fs::FileType;

use ids::OwnIds;

use crate::chain::chain;
use crate::runtime::{PodDir, RuntimeError};
use crate::shim::fresh;
use crate::shim::launch::{die_with, execvp, give, own_pidfd};
use crate::shim::wall::Wall;

/// The exit code when the command could not be run at all; else it is the command's own, 128 + signal if killed.
pub const NOT_RUN: u8 = 125;

/// A command's socket is out of use long before this.
const SOCKET_AGE: Duration = Duration::from_secs(60);

/// Arguments of `gantry-nodeagent exec`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The pod's directory
    #[arg(long)]
    pod_dir: PathBuf,
    /// The container's name
    #[arg(long)]
    container: String,
    /// Directory of the control group in which entering the container counts
    #[arg(long)]
    cpu_group: Option<PathBuf>,
    /// Make stdin, a terminal, the command's controlling terminal
    #[arg(long)]
    tty: bool,
    /// The command
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
enum ExecError {
    #[error("container `{0}` does not run")]
    NotRunning(String),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("cannot read the description of container `{name}`: {reason}")]
    Spec { name: String, reason: String },
    #[error("cannot run `{command}` in container `{name}`: {reason}")]
    Run {
        command: String,
        name: String,
        reason: String,
    },
    #[error("cannot wait for the command")]
    Wait(#[from] Errno),
    #[error("cannot pass on the command")]
    Io(#[from] io::Error),
}

/// Runs the command; ends with its exit code.
pub fn main(args: &Args) -> ExitCode {
    match start(args).and_then(wait) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            gantry_log::say(chain(&e));
            ExitCode::from(NOT_RUN)
        }
    }
}

fn start(args: &Args) -> Result<Pid, ExecError> {
    if let Some(group) = &args.cpu_group {
        // Whoever cannot be counted enters all the same; libcontainer puts the command itself into its groups.
        let _ = std::fs::write(group.join("cgroup.procs"), "0");
    }
    let dir = PodDir::new(&args.pod_dir);
    let state = dir
        .states()?
        .into_iter()
        .find(|s| s.name == args.container && s.running());
    let state = state.ok_or_else(|| ExecError::NotRunning(args.container.clone()))?;
    let bundle = dir.container(&args.container);
    let wall = Wall::load(&bundle)?;
    let (open_files, oom_score) = wall
        .as_ref()
        .map_or((None, 0), |w| (w.open_files, w.oom_score_adj));
    fresh::process(open_files, oom_score)?;
    let container = container(&bundle, args)?;
    let own_ids = OwnIds::of(&container)?;
    let process = process_file(&container, args, wall.as_ref().map_or(0, |w| w.first_id))?;
    let id = format!("{}-{}", state.name, state.attempt);
    remove_old_sockets(&dir.libcontainer_root().join(&id));
    // Whatever comes for this process is for the command.
    SigSet::all().thread_block()?;
    let failed = |reason: String| ExecError::Run {
        command: args.argv.join(" "),
        name: args.container.clone(),
        // libcontainer pads what the command's process says with NUL bytes.
        reason: reason.replace('\0', ""),
    };
    ContainerBuilder::new(
        format!("{}-{}", state.name, state.attempt),
        SyscallType::default(),
    )
    .with_root_path(dir.libcontainer_root())
    .map_err(|e| failed(chain(&e)))?
    .with_executor(Command {
        tty: args.tty,
        carrier: own_pidfd()?,
        wall: Rc::new(wall),
        own_ids,
    })
    .as_tenant()
    .with_detach(false)
    .with_process(Some(format!("/proc/self/fd/{}", process.as_raw_fd())))
    .build()
    .map(|pid| Pid::from_raw(pid.as_raw()))
    .map_err(|e| failed(chain(&e)))
}

/// libcontainer leaves the socket of each command behind. One in use is seconds old at most.
fn remove_old_sockets(container: &Path) {
    let old = |entry: &std::fs::DirEntry| {
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .map(|t| t.elapsed().unwrap_or_default());
        entry.file_name().to_string_lossy().starts_with("tenant-notify-")
            && age.is_ok_and(|age| age > SOCKET_AGE)
    };
    for entry in std::fs::read_dir(container)
        .into_iter()
        .flatten()
        .flatten()
        .filter(old)
    {
        // Somebody else may have been quicker; the next command tries again.
        let _ = std::fs::remove_file(entry.path());
    }
}

fn container(bundle: &Path, args: &Args) -> Result<Spec, ExecError> {
    Spec::load(bundle.join("config.json")).map_err(|e| ExecError::Spec {
        name: args.container.clone(),
        reason: chain(&e),
    })
}

/// The container's own process description with another command, in a file that exists only in memory. Its user gets the pipes or the
/// terminal that the command has.
fn process_file(container: &Spec, args: &Args, first_id: u32) -> Result<OwnedFd, ExecError> {
    let mut process = container.process().clone().ok_or_else(|| ExecError::Spec {
        name: args.container.clone(),
        reason: "it has no process".to_owned(),
    })?;
    let user = process.user();
    give_stdio(user.uid(), user.gid(), first_id)?;
    process.set_args(Some(args.argv.clone()));
    if args.tty {
        let mut env = process.env().clone().unwrap_or_default();
        env.push("TERM=xterm-256color".to_owned());
        process.set_env(Some(env));
    }
    let file = memfd_create("process.json", MFdFlags::MFD_CLOEXEC)?;
    std::fs::File::from(file.try_clone()?)
        .write_all(&serde_json::to_vec(&process).map_err(io::Error::from)?)?;
    Ok(file)
}

/// What is the agent's or a device of the host's is left alone.
fn give_stdio(uid: u32, gid: u32, first_id: u32) -> io::Result<()> {
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let is_pipe = FileType::from_raw_mode(rustix::fs::fstat(stream)?.st_mode) == FileType::Fifo;
        if is_pipe || rustix::termios::isatty(stream) {
            give(stream, uid, gid, first_id)?;
        }
    }
    Ok(())
}

/// Passes signals on until the command ends.
fn wait(command: Pid) -> Result<u8, ExecError> {
    loop {
        let signal = SigSet::all().wait()?;
        if signal != Signal::SIGCHLD {
            // ESRCH: it has just ended; SIGCHLD comes next.
            let _ = kill(command, signal);
            continue;
        }
        match waitpid(command, Some(nix::sys::wait::WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, code) => return Ok(code.to_le_bytes()[0]),
            WaitStatus::Signaled(_, signal, _) => return Ok(128 + signal as u8),
            _ => {}
        }
    }
}

/// The last step inside the container.
#[derive(Clone)]
struct Command {
    tty: bool,
    carrier: Rc<OwnedFd>,
    /// Of a container that a version without walls has started there is none: libcontainer takes its capabilities away.
    wall: Rc<Option<Wall>>,
    own_ids: Option<OwnIds>,
}

impl Executor for Command {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let run = || -> io::Result<()> {
            if self.tty {
                // libcontainer has made it the leader of a session.
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            fresh::signals()?;
            if let (Some(ids), Some(process)) = (&self.own_ids, spec.process()) {
                ids.assume(process.user())?;
                // The kernel forgets it when a process becomes another user (`PR_SET_PDEATHSIG(2const)`).
                die_with(&self.carrier)?;
            }
            if let Some(wall) = self.wall.as_ref() {
                wall.raise()?;
            }
            execvp(spec)
        };
        run().map_err(|e| ExecutorError::Other(e.to_string()))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        die_with(&self.carrier).map_err(|e| ExecutorValidationError::ArgValidationError(e.to_string()))?;
        DefaultExecutor {}.validate(spec)
    }
}
