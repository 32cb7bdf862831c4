//! Container output in the log format of Kubernetes' container runtime interface
//! (`<RFC 3339 time> <stdout|stderr> <F|P> <text>`; P: the line goes on), bounded in size.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::allowance::Allowance;
use crate::guard;

/// Most bytes that one stream copies in a turn of the shim's loop: a container that writes without end must not hold up the
/// requests, the exits and the other containers. What is left makes the next poll return at once.
const TURN_BYTES: usize = 64 << 10;
/// A line longer than this is written in parts, as other runtimes do.
const MAX_LINE_BYTES: usize = 16 << 10;
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// One container's log file; when it is full it becomes `<path>.1`, in place of the one before.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    max_bytes: u64,
    allowance: Allowance,
}

impl LogFile {
    /// Opens for appending: the attempts of a container share a log.
    pub(super) fn open(path: PathBuf, max_bytes: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size_bytes,
            max_bytes: if guard::off("log-size") {
                u64::MAX
            } else {
                max_bytes
            },
            allowance: Allowance::new(Instant::now()),
        })
    }

    /// How long nothing more is copied into it, since it grows too fast; `None`: go on.
    pub(super) fn rest(&mut self) -> Option<Duration> {
        self.allowance
            .rest(Instant::now())
            .filter(|_| !guard::off("log-rate"))
    }

    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if self.size_bytes > 0 && self.size_bytes + records.len() as u64 > self.max_bytes {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            self.file = File::options().create(true).append(true).open(&self.path)?;
            self.size_bytes = 0;
        }
        self.file.write_all(records)?;
        self.size_bytes += records.len() as u64;
        self.allowance.spend(records.len(), Instant::now());
        Ok(())
    }
}

/// The reading end of a container's stdout or stderr.
#[derive(Debug)]
pub(super) struct Stream {
    name: &'static str,
    pipe: OwnedFd,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Stream {
    /// `pipe` does not block.
    pub(super) fn new(name: &'static str, pipe: OwnedFd) -> Self {
        Self {
            name,
            pipe,
            partial: Vec::new(),
        }
    }

    /// Copies what is there into the log, up to a turn's share; false at the end of the stream. A full disk loses output, never
    /// the container.
    pub(super) fn copy(&mut self, log: &mut LogFile) -> bool {
        if log.rest().is_some() {
            return true;
        }
        self.copy_up_to(TURN_BYTES, log)
    }

    /// Copies the rest when the container has ended. No more than the pipe holds: if somebody else has got its writing end,
    /// that is not the container's output any more.
    pub(super) fn drain(&mut self, log: &mut LogFile) {
        let held = rustix::pipe::fcntl_getpipe_size(&self.pipe).unwrap_or(TURN_BYTES);
        if self.copy_up_to(held, log) {
            self.finish(log);
        }
    }

    fn copy_up_to(&mut self, most_bytes: usize, log: &mut LogFile) -> bool {
        let mut buffer = [0; 16 << 10];
        let mut copied = 0;
        while copied < most_bytes {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::IO) => {
                    self.finish(log);
                    return false;
                }
                Ok(count) => {
                    copied += count;
                    let records = self.take(&buffer[..count], OffsetDateTime::now_utc());
                    if !records.is_empty() {
                        let _ = log.write(&records);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return true,
            }
        }
        true
    }

    /// Writes the last line if it had no end.
    fn finish(&mut self, log: &mut LogFile) {
        if !self.partial.is_empty() {
            let mut records = Vec::new();
            let line = std::mem::take(&mut self.partial);
            self.record(&mut records, OffsetDateTime::now_utc(), 'F', &line);
            let _ = log.write(&records);
        }
    }

    fn take(&mut self, mut bytes: &[u8], now: OffsetDateTime) -> Vec<u8> {
        let mut records = Vec::new();
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let mut parts = line.chunks(MAX_LINE_BYTES).peekable();
            if parts.peek().is_none() {
                self.record(&mut records, now, 'F', b"");
            }
            while let Some(part) = parts.next() {
                let tag = if parts.peek().is_some() { 'P' } else { 'F' };
                self.record(&mut records, now, tag, part);
            }
        }
        self.partial.extend_from_slice(bytes);
        while self.partial.len() > MAX_LINE_BYTES && !guard::off("log-line") {
            let rest = self.partial.split_off(MAX_LINE_BYTES);
            let part = std::mem::replace(&mut self.partial, rest);
            self.record(&mut records, now, 'P', &part);
        }
        records
    }

    fn record(&self, records: &mut Vec<u8>, now: OffsetDateTime, tag: char, text: &[u8]) {
        let time = now
            .format(TIME)
            .expect("the format has only fields that a date and time has");
        records.extend_from_slice(format!("{time} {} {tag} ", self.name).as_bytes());
        records.extend_from_slice(text);
        records.push(b'\n');
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream::new("stdout", rustix::pipe::pipe().unwrap().0)
    }

    fn text(records: Vec<u8>) -> String {
        String::from_utf8(records).unwrap()
    }

    #[test]
    fn lines_are_complete_and_time_has_nine_digits() {
        let mut stream = stream();
        let now = time::macros::datetime!(2026-11-21 09:08:07.5 UTC);
        assert_eq!(
            text(stream.take(b"one\nt", now)),
            "2026-11-21T09:08:07.500000000Z stdout F one\n"
        );
        assert_eq!(text(stream.take(b"wo\n\n", now)).lines().count(), 2);
        assert!(stream.partial.is_empty());
    }

    #[test]
    fn long_lines_come_in_parts_and_nothing_is_lost() {
        let mut stream = stream();
        let now = OffsetDateTime::now_utc();
        let mut records = text(stream.take(&[b'x'; MAX_LINE_BYTES + 5], now));
        records.push_str(&text(stream.take(b"yz\n", now)));
        let parts: Vec<Vec<&str>> = records.lines().map(|l| l.splitn(4, ' ').collect()).collect();
        assert_eq!(parts.iter().map(|p| p[2]).collect::<String>(), "PF");
        assert_eq!(
            parts.iter().map(|p| p[3].len()).sum::<usize>(),
            MAX_LINE_BYTES + 7
        );
    }

    #[test]
    fn a_turn_is_bounded_and_the_rest_comes_at_the_end() {
        use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path().join("log"), u64::MAX).unwrap();
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let written = 3 * TURN_BYTES;
        fcntl_setpipe_size(&writer, 4 * TURN_BYTES).unwrap();
        assert_eq!(rustix::io::write(&writer, &vec![b'\n'; written]), Ok(written));
        let mut stream = Stream::new("stdout", reader);
        assert!(stream.copy(&mut log));
        let lines = |log: &LogFile| fs::read_to_string(&log.path).unwrap().lines().count();
        assert_eq!(lines(&log), TURN_BYTES);
        // The writing end stays open: somebody has kept it.
        stream.drain(&mut log);
        assert_eq!(lines(&log), written);
    }

    #[test]
    fn a_full_log_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogFile::open(path.clone(), 10).unwrap();
        for record in ["aaaaaaa\n", "bbbbbbb\n", "ccccccc\n"] {
            log.write(record.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "ccccccc\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "bbbbbbb\n");
    }
}
