//! The shim's loop: requests, ends of children, output.

mod start;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_nodeagent_api::EndReason;
use nix::errno::Errno;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::log::{LogFile, Stream};
use super::oom::OomCount;
use super::{last_words, launch};
use crate::runtime::{
    ContainerExit, ContainerStart, ContainerState, PodDir, Reply, Request, ShimStatus, read_line, write_line,
};

/// A client that connects but says nothing, or does not listen, may hold up the shim this long.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Server {
    dir: PodDir,
    listener: UnixListener,
    signals: SignalFd,
    containers: BTreeMap<String, Container>,
    subscribers: Vec<UnixStream>,
    done: bool,
}

/// The last attempt of a container; what it has open is there while it runs.
struct Container {
    state: ContainerState,
    open: Option<Open>,
}

struct Open {
    start: ContainerStart,
    log: LogFile,
    streams: Vec<Stream>,
    oom: Option<OomCount>,
}

impl Server {
    pub(super) fn new(dir: PodDir, listener: UnixListener, signals: SignalFd) -> io::Result<Self> {
        // Exits that a former shim of this pod recorded stay known. What ran then runs no more.
        let known = dir.states().map_err(io::Error::other)?;
        let mut server = Self {
            dir,
            listener,
            signals,
            containers: BTreeMap::new(),
            subscribers: Vec::new(),
            done: false,
        };
        for mut state in known {
            if state.exit.is_none() {
                let signal = Some(nix::libc::SIGKILL);
                state.exit = Some(end(128 + nix::libc::SIGKILL, signal, EndReason::Error));
                server.record(&state)?;
            }
            server
                .containers
                .insert(state.name.clone(), Container { state, open: None });
        }
        Ok(server)
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        while !self.done {
            self.wait()?;
            // Output before ends: the last words of a container come before its exit.
            self.copy_output();
            self.reap()?;
            self.subscribers.retain(still_there);
            self.serve();
        }
        // Nobody connects to a socket that nobody serves.
        let _ = fs::remove_file(self.dir.path().join(PodDir::socket_name()));
        let _ = fs::remove_file(self.dir.pid_file());
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut fds = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        let mut shortest: Option<Duration> = None;
        for open in self.containers.values_mut().filter_map(|c| c.open.as_mut()) {
            // What is written too fast waits in its pipe.
            if let Some(rest) = open.log.rest() {
                shortest = Some(shortest.map_or(rest, |least| least.min(rest)));
                continue;
            }
            let streams = open.streams.iter();
            fds.extend(streams.map(|stream| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)));
        }
        fds.extend(
            self.subscribers
                .iter()
                .map(|client| PollFd::new(client, PollFlags::empty())),
        );
        let patience = shortest.map(|rest| Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: rest.subsec_nanos().into(),
        });
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn copy_output(&mut self) {
        for open in self.containers.values_mut().filter_map(|c| c.open.as_mut()) {
            let Open { log, streams, .. } = open;
            streams.retain_mut(|stream| stream.copy(log));
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let (pid, code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code, None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32, Some(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            self.ended(pid, code, signal);
        }
    }

    /// Children that are no container's first process (steps of a start, orphans) are only reaped.
    fn ended(&mut self, pid: Pid, code: i32, signal: Option<i32>) {
        let pid = pid.as_raw().unsigned_abs();
        let Some(container) = self
            .containers
            .values_mut()
            .find(|c| c.open.is_some() && c.state.pid == pid)
        else {
            return;
        };
        let mut reason = if code == 0 {
            EndReason::Completed
        } else {
            EndReason::Error
        };
        let mut message = String::new();
        if let Some(mut open) = container.open.take() {
            for mut stream in open.streams {
                stream.drain(&mut open.log);
            }
            if code != 0 && open.oom.is_some_and(|oom| oom.has_risen()) {
                reason = EndReason::OomKilled;
            }
            message = last_words::read(&open.start.last_words, &open.start.log_path, code != 0);
            launch::forget(&self.dir, &open.start);
        }
        container.state.exit = Some(ContainerExit {
            message,
            ..end(code, signal, reason)
        });
        let state = container.state.clone();
        self.record_end(&state);
        self.tell(&state);
    }

    fn record_end(&self, state: &ContainerState) {
        if let Err(e) = self.record(state) {
            // A full disk must not end the pod's other containers; who listens hears of it, and `status` knows.
            let _ = writeln!(
                io::stderr(),
                "cannot record the exit of container `{}`: {e}",
                state.name
            );
        }
    }

    fn serve(&mut self) {
        while let Ok((mut client, _)) = self.listener.accept() {
            let limited = client
                .set_nonblocking(false)
                .and_then(|()| client.set_read_timeout(Some(CLIENT_TIMEOUT)))
                .and_then(|()| client.set_write_timeout(Some(CLIENT_TIMEOUT)));
            if limited.is_err() {
                continue;
            }
            let reply = match read_line(&mut BufReader::new(&client)) {
                Ok(Some(Request::Subscribe)) => {
                    self.subscribe(client);
                    continue;
                }
                Ok(Some(request)) => self.answer(request),
                Ok(None) => continue,
                Err(e) => Reply::Error {
                    message: format!("not understood: {e}"),
                },
            };
            // A client that is gone does not need its answer.
            let _ = write_line(&mut client, &reply);
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        let outcome = match request {
            Request::Start(start) => self.start(*start).map(Reply::Container),
            Request::Signal { name, signal } => self.signal(&name, signal).map(|()| Reply::Done),
            Request::Status => Ok(Reply::Status(ShimStatus {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                containers: self.containers.values().map(|c| c.state.clone()).collect(),
            })),
            Request::Shutdown => self.shut_down().map(|()| Reply::Done),
            Request::Subscribe => Err("a subscription is no question".to_owned()),
        };
        outcome.unwrap_or_else(|message| Reply::Error { message })
    }

    fn signal(&self, name: &str, signal: i32) -> Result<(), String> {
        let running = self.containers.get(name).filter(|c| c.open.is_some());
        let container = running.ok_or_else(|| format!("container `{name}` does not run"))?;
        // The pid cannot have been given to another process: the shim has not reaped it.
        // SAFETY: kill(2) takes two numbers. Real-time signals have no place in nix's own type.
        let sent = unsafe { nix::libc::kill(container.state.pid.cast_signed(), signal) };
        Errno::result(sent)
            .map(drop)
            .map_err(|e| format!("cannot signal container `{name}`: {e}"))
    }

    fn shut_down(&mut self) -> Result<(), String> {
        match self.containers.values().find(|c| c.open.is_some()) {
            Some(container) => Err(format!(
                "container `{}` is running; stop it first",
                container.state.name
            )),
            None => {
                self.done = true;
                Ok(())
            }
        }
    }

    fn subscribe(&mut self, mut client: UnixStream) {
        for container in self.containers.values() {
            if write_line(&mut client, &container.state).is_err() {
                return;
            }
        }
        self.subscribers.push(client);
    }

    fn tell(&mut self, state: &ContainerState) {
        self.subscribers
            .retain_mut(|client| write_line(client, state).is_ok());
    }

    /// On disk before anybody is told: written beside, synced, renamed.
    fn record(&self, state: &ContainerState) -> io::Result<()> {
        let path = self.dir.state_file(&state.name);
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    }
}

/// An end at this moment.
fn end(code: i32, signal: Option<i32>, reason: EndReason) -> ContainerExit {
    ContainerExit {
        code,
        at_ms: now_ms(),
        signal,
        reason: Some(reason),
        message: String::new(),
    }
}

/// False when the other end has closed.
fn still_there(client: &UnixStream) -> bool {
    let mut fds = [PollFd::new(client, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
