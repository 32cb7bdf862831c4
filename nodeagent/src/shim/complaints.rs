//! What libcontainer says of a start that fails. Its errors name the step; which path, and why, it says only in its log.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};

use tracing::Level;

use super::launch::{Report, send};

/// Of one line, in bytes: a line is sent whole or not at all (`PIPE_BUF`).
const LINE_BYTES: usize = 1024;

/// From here on every error that is logged by this process, or by one that it becomes the parent of, is a report.
pub(super) fn listen(report: RawFd) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(Level::ERROR)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .with_writer(move || Complaints(report))
        .finish();
    // Fails only where somebody listens already.
    let _ = tracing::subscriber::set_global_default(lines);
}

struct Complaints(RawFd);

impl Write for Complaints {
    /// One line each time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES)]);
        // SAFETY: the shim's pipe stays open until the program runs.
        let report = unsafe { BorrowedFd::borrow_raw(self.0) };
        send(report, &Report::Complaint(text.trim_end().to_owned()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
