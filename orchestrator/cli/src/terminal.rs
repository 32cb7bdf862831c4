//! The user's terminal while a command in a container has it: raw, and its size passed on.

use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use futures::SinkExt;
use kube::api::{AttachedProcess, TerminalSize};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// Raw mode until dropped: keys such as Ctrl-C go to the command, not to us.
pub struct Raw {
    before: Termios,
}

impl Raw {
    pub fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            bail!("--tty needs a terminal on standard input");
        }
        let before = tcgetattr(stdin().as_fd()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &raw).context("cannot set the terminal's mode")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing better can be done with a terminal that is gone.
        let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// Tells the command the terminal's size, now and on every change.
pub fn follow_size(process: &mut AttachedProcess) -> Result<()> {
    let Some(mut sizes) = process.terminal_size() else {
        return Ok(());
    };
    let mut changes = signal(SignalKind::window_change()).context("cannot watch the terminal's size")?;
    tokio::spawn(async move {
        while let Some(size) = size() {
            if sizes.send(size).await.is_err() || changes.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

fn size() -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(stdout().as_fd()).ok()?;
    Some(TerminalSize {
        width: size.ws_col,
        height: size.ws_row,
    })
}
