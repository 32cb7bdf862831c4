//! The agent's end of a pod's socket.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::{
    ContainerStart, ContainerState, PodDir, Reply, Request, RuntimeError, ShimStatus, read_line, sealed,
    write_line,
};
use crate::guard;

/// How long a shim may take to answer; a start has a limit of its own inside the shim, which is shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// The running agent's binary, even when its file was replaced or removed meanwhile.
pub fn own_executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// A pod's shim that answered. Each call opens a connection of its own, so a handle is cheap, and may be shared.
#[derive(Clone, Debug)]
pub struct ShimHandle {
    dir: PodDir,
}

impl ShimHandle {
    /// Starts the shim of a pod, or connects to the one that already runs. Returns when it answers.
    /// `executable` is a `gantry-nodeagent` binary, normally [`own_executable`].
    pub fn spawn(dir: &PodDir, executable: &Path) -> Result<Self, RuntimeError> {
        match Self::connect(dir) {
            Err(RuntimeError::ShimGone { .. }) => {}
            answered => return answered,
        }
        let log = dir.log_file();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| RuntimeError::io("open", &log, e))?;
        let failed = |reason: String| RuntimeError::Spawn {
            dir: dir.path().to_owned(),
            reason,
        };
        // The command returns when its grandchild, the shim, listens; the shim itself is nobody's child.
        let mut command = sealed::command(executable);
        command
            .arg("shim")
            .arg("--dir")
            .arg(dir.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::piped());
        guard::pass_on(&mut command);
        let output = command
            .output()
            .map_err(|e| failed(format!("{}: {e}", executable.display())))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Self::connect(dir)
    }

    /// Connects to a pod's shim; [`RuntimeError::ShimGone`] if there is none.
    pub fn connect(dir: &PodDir) -> Result<Self, RuntimeError> {
        let handle = Self { dir: dir.clone() };
        handle.status()?;
        Ok(handle)
    }

    /// Starts a container; returns when its program runs. Its cgroup exists already.
    pub fn start_container(&self, start: &ContainerStart) -> Result<ContainerState, RuntimeError> {
        match self.call(&Request::Start(Box::new(start.clone())))? {
            Reply::Container(state) => Ok(state),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends a signal (number as in `signal(7)`) to a container's first process. Refused if it does not run.
    pub fn signal(&self, container: &str, signal: i32) -> Result<(), RuntimeError> {
        self.done(&Request::Signal {
            name: container.to_owned(),
            signal,
        })
    }

    /// The shim and its containers.
    pub fn status(&self) -> Result<ShimStatus, RuntimeError> {
        match self.call(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends the shim. Refused while a container runs.
    pub fn shutdown(&self) -> Result<(), RuntimeError> {
        self.done(&Request::Shutdown)
    }

    /// A stream of changes: first the state of each container as it is now, then each start and each exit.
    pub fn events(&self) -> Result<Events, RuntimeError> {
        let mut stream = self.open()?;
        write_line(&mut stream, &Request::Subscribe).map_err(|e| self.broken(e))?;
        Ok(Events {
            dir: self.dir.clone(),
            stream: BufReader::new(stream),
        })
    }

    fn done(&self, request: &Request) -> Result<(), RuntimeError> {
        match self.call(request)? {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    fn call(&self, request: &Request) -> Result<Reply, RuntimeError> {
        let mut stream = self.open()?;
        stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(|e| self.broken(e))?;
        write_line(&mut stream, request).map_err(|e| self.broken(e))?;
        match read_line(&mut BufReader::new(stream)) {
            Ok(Some(Reply::Error { message })) => Err(RuntimeError::Refused(message)),
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(gone(&self.dir, io::ErrorKind::UnexpectedEof.into())),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(gone(&self.dir, e)),
            Err(source) => Err(RuntimeError::Protocol {
                dir: self.dir.path().to_owned(),
                source,
            }),
        }
    }

    fn open(&self) -> Result<UnixStream, RuntimeError> {
        let dir = File::open(self.dir.path()).map_err(|e| self.broken(e))?;
        // A path by way of the directory's descriptor: socket addresses are limited to 107 bytes.
        let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), PodDir::socket_name());
        UnixStream::connect(path).map_err(|e| self.broken(e))
    }

    /// Only what a socket says that nobody serves counts as a dead shim: its pod is killed for it. Any other error (no
    /// descriptors left, no permission) is this process's own trouble.
    fn broken(&self, source: io::Error) -> RuntimeError {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
        match source.kind() {
            NotFound | ConnectionRefused | ConnectionReset | BrokenPipe => gone(&self.dir, source),
            _ => RuntimeError::io("talk to the shim of pod directory", self.dir.path(), source),
        }
    }

    fn unexpected(&self, reply: &Reply) -> RuntimeError {
        let source = io::Error::other(format!("unexpected reply {reply:?}"));
        RuntimeError::Protocol {
            dir: self.dir.path().to_owned(),
            source,
        }
    }
}

/// Changes of a pod's containers, in order.
#[derive(Debug)]
pub struct Events {
    dir: PodDir,
    stream: BufReader<UnixStream>,
}

impl Events {
    /// The next change. Blocks until there is one; [`RuntimeError::ShimGone`] when the shim ends.
    pub fn wait(&mut self) -> Result<ContainerState, RuntimeError> {
        match read_line(&mut self.stream) {
            Ok(Some(state)) => Ok(state),
            Ok(None) => Err(gone(&self.dir, io::ErrorKind::UnexpectedEof.into())),
            Err(e) => Err(gone(&self.dir, e)),
        }
    }

    /// Makes a blocked [`Self::wait`] of another thread end: call it on a clone of the socket.
    pub fn closer(&self) -> io::Result<EventsCloser> {
        self.stream.get_ref().try_clone().map(EventsCloser)
    }
}

fn gone(dir: &PodDir, source: io::Error) -> RuntimeError {
    RuntimeError::ShimGone {
        dir: dir.path().to_owned(),
        source,
    }
}

/// Ends an [`Events`] stream from another thread; also when dropped.
#[derive(Debug)]
pub struct EventsCloser(UnixStream);

impl Drop for EventsCloser {
    fn drop(&mut self) {
        // Fails only when the shim has closed it already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unserved_socket_is_a_dead_shim() {
        let handle = ShimHandle {
            dir: PodDir::new("/p"),
        };
        let dead = |raw| {
            let error = handle.broken(io::Error::from_raw_os_error(raw));
            matches!(error, RuntimeError::ShimGone { .. })
        };
        use nix::libc::{EACCES, ECONNREFUSED, ECONNRESET, EMFILE, ENFILE, ENOENT, ENOMEM, EPIPE};
        assert!([ENOENT, ECONNREFUSED, ECONNRESET, EPIPE].into_iter().all(dead));
        assert!(![EMFILE, ENFILE, EACCES, ENOMEM].into_iter().any(dead));
    }
}
