//! The log of a process that goes on for long: lines on standard error. It is bounded, and it never stops its process: what cannot
//! be written is counted, and told when there is space again.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::stdio::{dup2_stderr, dup2_stdout, stderr};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// A file this long becomes `FILE.1`, in the place of the one before it: so there are at most two.
const LIMIT_BYTES: u64 = 8 << 20;

/// Logs to standard error from now on, by `RUST_LOG` or from `info` on. `file` is what standard error and output go to, if that
/// may be put aside when it is long.
///
/// # Panics
/// If something else logs already.
pub fn start(file: Option<&Path>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = Log {
        out: io::stderr(),
        lost: 0,
        why: String::new(),
        is_torn: false,
        turn: file.map(|path| Turn {
            path: path.to_owned(),
            limit_bytes: LIMIT_BYTES,
        }),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Mutex::new(log))
        // It would be on standard error, and a panic where that fails.
        .log_internal_errors(false)
        .with_ansi(false)
        .init();
}

/// A line on standard error, if it can be had.
pub fn say(line: impl Display) {
    // Nobody is left to be told.
    let _ = writeln!(io::stderr(), "{line}");
}

/// See the crate.
struct Log<W> {
    out: W,
    /// Lines since one could be written.
    lost: u64,
    why: String,
    /// The last line that could be written was cut off.
    is_torn: bool,
    turn: Option<Turn>,
}

impl<W: Write> Write for Log<W> {
    /// One line each time. It never fails: whoever logs cannot help it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(turn) = &self.turn {
            // The file only grows until it can be put aside.
            let _ = turn.if_long();
        }
        if self.lost > 0 && self.put(self.told().as_bytes()).is_ok() {
            self.lost = 0;
        }
        if self.lost > 0 {
            self.lost += 1;
        } else if let Err(error) = self.put(line) {
            (self.lost, self.why) = (1, error.to_string());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Log<W> {
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.is_torn = count < bytes.len();
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn told(&self) -> String {
        let mut time = String::new();
        // A text takes everything.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let begin = if self.is_torn { "\n" } else { "" };
        let (lost, why) = (self.lost, &self.why);
        format!("{begin}{time}  WARN gantry_log: lines of this log were lost: {why} lines={lost}\n")
    }
}

/// The file of the log, and when it is begun anew.
struct Turn {
    path: PathBuf,
    limit_bytes: u64,
}

impl Turn {
    fn if_long(&self) -> io::Result<()> {
        let length = rustix::fs::fstat(stderr())?.st_size;
        if u64::try_from(length).is_ok_and(|length| length >= self.limit_bytes) {
            let file = self.anew()?;
            dup2_stderr(&file)?;
            dup2_stdout(&file)?;
        }
        Ok(())
    }

    /// Puts the file aside. The new one is there first: without space for it, all stays.
    fn anew(&self) -> io::Result<File> {
        let beside = |end: &str| {
            let mut path = self.path.as_os_str().to_owned();
            path.push(end);
            PathBuf::from(path)
        };
        let new = beside(".new");
        let file = File::options().create(true).append(true).mode(0o600).open(&new)?;
        fs::rename(&self.path, beside(".1"))?;
        fs::rename(&new, &self.path)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so many bytes left.
    struct Disk {
        written: Vec<u8>,
        left: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.left);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.left -= count;
            self.written.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_told_once() {
        let mut log = Log {
            out: Disk {
                written: Vec::new(),
                left: 12,
            },
            lost: 0,
            why: String::new(),
            is_torn: false,
            turn: None,
        };
        for line in ["first\n", "cut off\n", "lost\n", "lost too\n"] {
            assert_eq!(log.write(line.as_bytes()).unwrap(), line.len());
        }
        log.out.left = 10_000;
        for line in ["again\n", "and on\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let text = String::from_utf8(log.out.written).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let [first, cut, told, again, on] = lines[..] else {
            panic!("{text}")
        };
        assert_eq!([first, cut, again, on], ["first", "cut of", "again", "and on"]);
        assert!(
            told.contains("no storage space") && told.ends_with("lines=3"),
            "{told}"
        );
    }

    #[test]
    fn a_long_file_is_put_aside_and_the_one_before_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let turn = Turn {
            path: path.clone(),
            limit_bytes: 0,
        };
        fs::write(&path, "one").unwrap();
        for line in ["two", "three"] {
            turn.anew().unwrap().write_all(line.as_bytes()).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["x.log", "x.log.1"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::read_to_string(dir.path().join("x.log.1")).unwrap(), "two");
    }
}
