//! Runs a command in a container by way of `gantry-nodeagent exec`, with pipes or a terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use gantry_nodeagent_api::{SessionFrame, proto};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};

use super::{CHUNK_BYTES, Pipe, container_of};
use crate::agent::entering;
use crate::agent::pods::Pods;

/// Runs it; returns the last frame.
pub(super) async fn run(
    pods: &Pods,
    pod: &str,
    container: &str,
    argv: &[String],
    tty: bool,
    stdin: bool,
    pipe: &mut Pipe,
) -> SessionFrame {
    let dir = pods.runtime.pod(pod);
    let container = match container_of(&dir, container) {
        Ok(container) => container,
        Err(reason) => return SessionFrame::Error(reason),
    };
    let mut command = Command::from(entering::command(pods, pod, &container));
    if tty {
        command.arg("--tty");
    }
    command.arg("--").args(argv).kill_on_drop(true);
    let ended = if tty {
        with_terminal(command, pipe).await
    } else {
        with_pipes(command, stdin, pipe).await
    };
    match ended {
        Ok(status) => SessionFrame::Exit(
            status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal))
                .unwrap_or(-1),
        ),
        Err(error) => SessionFrame::Error(format!("cannot run the command: {error}")),
    }
}

async fn with_pipes(mut command: Command, stdin: bool, pipe: &mut Pipe) -> std::io::Result<ExitStatus> {
    command
        .stdin(if stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (sender, output) = mpsc::channel(4);
    tokio::spawn(copy(
        child.stdout.take().expect("asked for"),
        sender.clone(),
        SessionFrame::Stdout,
    ));
    tokio::spawn(copy(
        child.stderr.take().expect("asked for"),
        sender,
        SessionFrame::Stderr,
    ));
    let input = child.stdin.take();
    end(&mut child, converse(pipe, output, input, None).await).await
}

async fn with_terminal(mut command: Command, pipe: &mut Pipe) -> std::io::Result<ExitStatus> {
    let (master_end, slave_end) = open_terminal()?;
    let slave = |fd: &OwnedFd| fd.try_clone().map(Stdio::from);
    command
        .stdin(slave(&slave_end)?)
        .stdout(slave(&slave_end)?)
        .stderr(slave(&slave_end)?);
    let mut child = command.spawn()?;
    // Both the command and our ends of the slave are to be gone before the master reads its end.
    drop(command);
    drop(slave_end);
    let (sender, output) = mpsc::channel(4);
    let master = |fd: &OwnedFd| fd.try_clone().map(|fd| tokio::fs::File::from_std(fd.into()));
    tokio::spawn(copy(master(&master_end)?, sender, SessionFrame::Stdout));
    let input = master(&master_end)?;
    end(
        &mut child,
        converse(pipe, output, Some(input), Some(&master_end)).await,
    )
    .await
}

/// Master and slave of a new terminal. Unlike openpty(3), neither is ever open in a process that another thread starts: a shim
/// would hold it for good.
fn open_terminal() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = std::fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master)?)?;
    Ok((master.into(), slave.into()))
}

/// Waits for the command; one whose output nobody wants any more is killed first.
async fn end(child: &mut Child, wanted: bool) -> std::io::Result<ExitStatus> {
    if !wanted {
        child.start_kill()?;
    }
    child.wait().await
}

/// Until there is no more output (true), or nobody who wants it (false). Both directions go on at once: a command that waits
/// for its output to be taken takes no input meanwhile.
async fn converse(
    pipe: &mut Pipe,
    output: mpsc::Receiver<SessionFrame>,
    input: Option<impl AsyncWrite + Unpin>,
    terminal: Option<&OwnedFd>,
) -> bool {
    let (out, inbound) = pipe.split();
    // Cancel-safe: whichever ends first, the rest of the other direction is of no use.
    tokio::select! {
        wanted = give(output, out) => wanted,
        // Nobody is there any more: the command is killed.
        () = take(inbound, input, terminal) => false,
        () = out.closed() => false,
    }
}

/// Output, until it ends (true) or is not wanted (false).
async fn give(mut output: mpsc::Receiver<SessionFrame>, out: &mpsc::Sender<proto::SessionFrame>) -> bool {
    while let Some(frame) = output.recv().await {
        if out.send(frame.into()).await.is_err() {
            return false;
        }
    }
    true
}

/// Input, until the other side is gone.
async fn take(
    mut inbound: impl Stream<Item = Result<proto::SessionFrame, tonic::Status>> + Unpin,
    mut input: Option<impl AsyncWrite + Unpin>,
    terminal: Option<&OwnedFd>,
) {
    while let Some(Ok(frame)) = inbound.next().await {
        let Ok(frame) = SessionFrame::try_from(frame) else {
            return;
        };
        match frame {
            SessionFrame::Stdin(data) => {
                if let Some(target) = &mut input
                    && write(target, &data).await.is_err()
                {
                    input = None;
                }
            }
            // A terminal ends its input by a character of its own.
            SessionFrame::StdinEof if terminal.is_none() => input = None,
            SessionFrame::Resize { columns, rows } => {
                if let Some(terminal) = terminal {
                    let size = Winsize {
                        ws_row: rows,
                        ws_col: columns,
                        ws_xpixel: 0,
                        ws_ypixel: 0,
                    };
                    // A terminal that is gone has no size.
                    let _ = tcsetwinsize(terminal.as_fd(), size);
                }
            }
            _ => {}
        }
    }
}

async fn write(target: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    target.write_all(data).await?;
    target.flush().await
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<SessionFrame>,
    frame: fn(Bytes) -> SessionFrame,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    // A terminal's master ends with EIO.
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to
            .send(frame(Bytes::copy_from_slice(&buffer[..length])))
            .await
            .is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_nobody_elses() {
        let (master, slave) = open_terminal().unwrap();
        for end in [&master, &slave] {
            let flags = rustix::io::fcntl_getfd(end).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    /// A command that answers while it is still being told: neither direction may wait for the other.
    #[tokio::test]
    async fn input_and_output_go_on_at_once() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (sender, output) = mpsc::channel(1);
        tokio::spawn(copy(child.stdout.take().unwrap(), sender, SessionFrame::Stdout));
        let data = |_| SessionFrame::Stdin(vec![b'x'; CHUNK_BYTES].into());
        let frames = (0..64).map(data).chain([SessionFrame::StdinEof]);
        let inbound = tokio_stream::iter(frames.map(|frame| Ok(frame.into()))).chain(tokio_stream::pending());
        let (out, mut sent) = mpsc::channel(1);
        let count = tokio::spawn(async move {
            let mut bytes = 0;
            while let Some(frame) = sent.recv().await {
                if let Ok(SessionFrame::Stdout(data)) = SessionFrame::try_from(frame) {
                    bytes += data.len();
                }
            }
            bytes
        });
        let both = async {
            tokio::select! {
                whole = give(output, &out) => whole,
                () = take(inbound, child.stdin.take(), None) => false,
            }
        };
        let whole = tokio::time::timeout(std::time::Duration::from_secs(20), both).await;
        assert!(whole.expect("they wait for each other"));
        drop(out);
        assert_eq!(count.await.unwrap(), 64 * CHUNK_BYTES);
    }
}
