//! Starting one container. `libcontainer` runs in a child of the shim that ends with the start, for two reasons: what it
//! allocates goes away with it, and a hang of it can be ended. The container's first process is the shim's own child
//! (`CLONE_PARENT`), and is killed by the kernel when the shim ends (`PR_SET_PDEATHSIG`).

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use gantry_nodeagent_api::MAX_ID;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use oci_spec::runtime::Spec;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use super::wall::Wall;
use super::{complaints, fresh, spec, stage, targets};
use crate::chain::chain;
use crate::guard;
use crate::runtime::{ContainerStart, PodDir};

/// How long a start may take, the wait for slow mounts included; shorter than what the agent waits for an answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What libcontainer complains of is told this often: first which mount it is, then why. What follows says the same again.
const COMPLAINTS: usize = 2;

/// A container that runs.
pub(super) struct Launched {
    pub(super) pid: u32,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// What the start tells the shim through a pipe, one JSON object a line. The pipe's end means that the program runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Report {
    Pid(i32),
    /// What went wrong first, mostly; it counts only if the start fails.
    Complaint(String),
    Failed(String),
    CannotRun(String),
}

/// Why there is no container.
#[derive(Debug)]
pub(super) enum LaunchError {
    /// It was made, and its program cannot be run: a run that ended at once.
    CannotRun(String),
    /// It could not be made.
    Failed(String),
}

impl From<String> for LaunchError {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Name of one attempt, unique within the pod.
pub(super) fn id(start: &ContainerStart) -> String {
    format!("{}-{}", start.name, start.attempt)
}

pub(super) fn launch(dir: &PodDir, start: &ContainerStart) -> Result<Launched, LaunchError> {
    let bundle = dir.container(&start.name);
    write_bundle(&bundle, start)?;
    let (stdout, stdout_writer) = output_pipe(start).map_err(|e| words("make a pipe", &e))?;
    let (stderr, stderr_writer) = output_pipe(start).map_err(|e| words("make a pipe", &e))?;
    let (report, report_writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| words("make a pipe", &e.into()))?;
    let shim = own_pidfd().map_err(|e| words("open a pidfd", &e))?;
    // SAFETY: the shim has one thread, so the child may do anything that a process may do.
    let helper = match unsafe { fork() }.map_err(|e| words("fork", &e.into()))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((stdout, stderr, report));
            if let Err(reason) = create(
                dir,
                &bundle,
                start,
                stdout_writer,
                stderr_writer,
                report_writer.as_raw_fd(),
                shim,
            ) {
                send(report_writer.as_fd(), &Report::Failed(reason));
            }
            // The container's own copy of the pipe stays open until its program runs.
            std::process::exit(0);
        }
    };
    drop((stdout_writer, stderr_writer, report_writer));
    let outcome = collect(report);
    if outcome.is_err() {
        let _ = kill(helper, Signal::SIGKILL);
    }
    let _ = waitpid(helper, None);
    match outcome {
        Ok(pid) => Ok(Launched {
            pid: pid.as_raw().unsigned_abs(),
            stdout,
            stderr,
        }),
        Err((pid, reason)) => {
            if let Some(pid) = pid {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitpid(pid, None);
            }
            forget(dir, start);
            Err(reason)
        }
    }
}

/// Removes libcontainer's record of an attempt that has ended.
pub(super) fn forget(dir: &PodDir, start: &ContainerStart) {
    let _ = fs::remove_dir_all(dir.libcontainer_root().join(id(start)));
}

fn write_bundle(bundle: &Path, start: &ContainerStart) -> Result<(), String> {
    if let Some(id) = start.user.wrong_id() {
        return Err(format!("{id} is no user or group: ids are 0 to {MAX_ID}"));
    }
    targets::check(start)?;
    let spec = spec::build(start).map_err(|e| chain(&e))?;
    fs::create_dir_all(bundle).map_err(|e| words(&format!("create {}", bundle.display()), &e))?;
    save(&spec, bundle)
}

/// The environment is in it, and in that there may be Secrets: it is for its owner only, also where a former version's was not.
pub(super) fn save(spec: &Spec, bundle: &Path) -> Result<(), String> {
    let path = bundle.join("config.json");
    let write = || -> io::Result<()> {
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(&serde_json::to_vec(spec)?)
    };
    write().map_err(|e| words(&format!("write {}", path.display()), &e))
}

/// The reading end does not block; the writing end belongs to the container's user, who may open `/dev/stdout`.
fn output_pipe(start: &ContainerStart) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    give(&writer, start.user.uid, start.user.gid, start.first_id())?;
    Ok((reader, writer))
}

/// Makes something the property of a container's user; `first_id` is the host's id of the container's root.
pub(crate) fn give(file: impl AsFd, uid: u32, gid: u32, first_id: u32) -> io::Result<()> {
    let on_host = |id: u32| first_id.checked_add(id).ok_or(io::ErrorKind::InvalidInput);
    let uid = rustix::fs::Uid::from_raw(on_host(uid)?);
    let gid = rustix::fs::Gid::from_raw(on_host(gid)?);
    Ok(rustix::fs::fchown(file, Some(uid), Some(gid))?)
}

/// In the child: creates the container, tells its pid, lets it run.
fn create(
    dir: &PodDir,
    bundle: &Path,
    start: &ContainerStart,
    stdout: OwnedFd,
    stderr: OwnedFd,
    report: RawFd,
    shim: Rc<OwnedFd>,
) -> Result<(), String> {
    // libcontainer removes the cgroup of what it cannot make: never that of a start which a later shim has begun.
    die_with(&shim).map_err(|e| words("end with the shim", &e))?;
    fresh::process(start.open_files, start.oom_score_adj).map_err(|e| words("become a fresh process", &e))?;
    let wall = Wall::of(dir, start).map_err(|e| chain(&e))?;
    wall.save(bundle)
        .map_err(|e| words("write down the container's wall", &e))?;
    let null = File::open("/dev/null").map_err(|e| words("open /dev/null", &e))?;
    if let Some(ids) = start.own_ids() {
        stage::enter(dir, bundle, start, ids)?;
    }
    complaints::listen(report);
    let root = dir.libcontainer_root();
    let mut container = ContainerBuilder::new(id(start), SyscallType::default())
        .with_root_path(&root)
        .and_then(ContainerBuilder::validate_id)
        .map_err(|e| chain(&e))?
        .with_executor(Program {
            report,
            shim,
            wall: Rc::new(wall),
            may_cover_system: start.security.privileged || guard::off("paths"),
        })
        .with_stdin(null)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()
        .map_err(|e| chain(&e))?;
    let pid = container.pid().ok_or("the container has no process")?.as_raw();
    // SAFETY: the caller holds the pipe's writing end open during this call.
    send(unsafe { BorrowedFd::borrow_raw(report) }, &Report::Pid(pid));
    container.start().map_err(|e| chain(&e))
}

/// Reads reports until every writer is gone: then the program runs, or a failure was told.
fn collect(report: OwnedFd) -> Result<Pid, (Option<Pid>, LaunchError)> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut text = Vec::new();
    let mut reader = File::from(report);
    let mut late = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match super::wait_readable(reader.as_fd(), left) {
            Ok(true) => {}
            Ok(false) => {
                late = true;
                break;
            }
            Err(e) => return Err((None, words("wait for the start", &e).into())),
        }
        let mut buffer = [0; 4096];
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err((None, words("read from the start", &e).into())),
        }
    }
    let (mut pid, mut complaints) = (None, Vec::new());
    let late = late.then(|| format!("the start took longer than {} s", START_TIMEOUT.as_secs()));
    let mut failure = late.map(LaunchError::Failed);
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Report::Pid(raw)) => pid = Some(Pid::from_raw(raw)),
            Ok(Report::Complaint(text)) if complaints.len() < COMPLAINTS => complaints.push(text),
            Ok(Report::Complaint(_)) => {}
            Ok(Report::Failed(reason)) => failure = failure.or(Some(LaunchError::Failed(reason))),
            Ok(Report::CannotRun(reason)) => failure = failure.or(Some(LaunchError::CannotRun(reason))),
            Err(_) => failure = failure.or_else(|| Some(String::from_utf8_lossy(line).into_owned().into())),
        }
    }
    match (pid, failure) {
        (Some(pid), None) => Ok(pid),
        (pid, failure) => Err((pid, with(&complaints, failure))),
    }
}

/// The failure with what was said before it.
fn with(complaints: &[String], failure: Option<LaunchError>) -> LaunchError {
    let failure = failure.unwrap_or_else(|| "the start ended without a word".to_owned().into());
    match failure {
        LaunchError::Failed(reason) => [&[reason], complaints].concat().join(": ").into(),
        LaunchError::CannotRun(_) => failure,
    }
}

pub(super) fn send(to: BorrowedFd<'_>, report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    if let Ok(fd) = to.try_clone_to_owned() {
        // A reader that is gone has given up on the start.
        let _ = File::from(fd).write_all(&line);
    }
}

/// The last steps inside the container: tied to the shim, signals as a fresh process has them, then the program.
#[derive(Clone)]
struct Program {
    report: RawFd,
    shim: Rc<OwnedFd>,
    wall: Rc<Wall>,
    /// Its mounts may lie over `/proc` and `/sys`.
    may_cover_system: bool,
}

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let run = || {
            if !self.may_cover_system {
                targets::are_apart(spec)?;
            }
            fresh::signals()?;
            self.wall.raise()?;
            execvp(spec)
        };
        let Err(error) = run() else {
            return Ok(());
        };
        let message = format!("cannot run `{}`: {error}", program(spec));
        self.cannot_run(&message);
        Err(ExecutorError::Other(message))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        die_with(&self.shim).map_err(|e| ExecutorValidationError::ArgValidationError(e.to_string()))?;
        DefaultExecutor {}
            .validate(spec)
            .inspect_err(|e| self.cannot_run(&format!("cannot run `{}`: {}", program(spec), chain(e))))
    }
}

impl Program {
    fn cannot_run(&self, message: &str) {
        // SAFETY: a copy of the shim's pipe, open until the program replaces this process.
        let report = unsafe { BorrowedFd::borrow_raw(self.report) };
        send(report, &Report::CannotRun(message.to_owned()));
    }
}

/// A descriptor of the calling process, for [`die_with`] in a child.
pub(crate) fn own_pidfd() -> io::Result<Rc<OwnedFd>> {
    Ok(Rc::new(rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )?))
}

/// Has the kernel kill this process when its parent ends; an error if the parent has ended already.
pub(crate) fn die_with(parent: &OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if super::wait_readable(parent.as_fd(), Duration::ZERO)? {
        return Err(io::Error::other("the process that started this one has ended"));
    }
    Ok(())
}

/// Replaces the process by the program of a specification.
pub(crate) fn execvp(spec: &Spec) -> io::Result<()> {
    let args = spec
        .process()
        .as_ref()
        .and_then(|p| p.args().clone())
        .unwrap_or_default();
    let args = args
        .into_iter()
        .map(CString::new)
        .collect::<Result<Vec<_>, _>>()?;
    let program = args.first().ok_or(io::ErrorKind::InvalidInput)?;
    nix::unistd::execvp(program, &args)?;
    Ok(())
}

fn program(spec: &Spec) -> String {
    spec.process()
        .as_ref()
        .and_then(|p| p.args().as_ref()?.first().cloned())
        .unwrap_or_default()
}

fn words(what: &str, error: &io::Error) -> String {
    format!("cannot {what}: {error}")
}
