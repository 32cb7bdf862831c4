//! Processes that outlive the command: started detached, found again by pid, start time and data directory, so that neither a
//! reused pid nor what runs from the directory that this one is a copy of is ever taken for ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, Result, bail};
use gantry_orchestrator::plainfile;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::statvfs;

use crate::data_dir::DataDir;

/// Length of a pid file: more than a pid and a start time can have, less than a sector, so that it is read as it was written.
const RECORD_BYTES: usize = 64;

/// One of Gantry's processes: `<name>.pid` and `<name>.log` in the data directory.
pub struct Daemon {
    name: &'static str,
    data_dir: PathBuf,
    pid_file: PathBuf,
    log_file: PathBuf,
}

impl Daemon {
    pub fn new(name: &'static str, data_dir: &Path) -> Self {
        Self {
            name,
            data_dir: data_dir.to_owned(),
            pid_file: data_dir.join(format!("{name}.pid")),
            log_file: data_dir.join(format!("{name}.log")),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// The pid, if the process that was started still runs.
    pub fn running(&self) -> Option<i32> {
        let (pid, start) = self.recorded()?;
        (start_time(pid)? == start && runs_from(pid, &self.data_dir)).then_some(pid)
    }

    /// Nobody has stopped it since it was started.
    pub fn is_expected(&self) -> bool {
        self.recorded().is_some()
    }

    fn recorded(&self) -> Option<(i32, String)> {
        let text = String::from_utf8(plainfile::read(&self.pid_file).ok()?).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        Some((pid.parse().ok()?, start.to_owned()))
    }

    /// Overwrites the record in its place, which needs no space on a disk that is full; nothing but blanks: it is stopped.
    fn record(&self, text: &str) -> io::Result<()> {
        plainfile::make_way(&self.pid_file)?;
        let mut options = fs::OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.pid_file)?;
        file.write_all_at(
            format!("{text:<width$}\n", width = RECORD_BYTES - 1).as_bytes(),
            0,
        )
    }

    /// Starts the command in a session of its own, its output appended to the log, which it is told of and begins anew.
    pub fn start(&self, command: &mut Command) -> Result<i32> {
        let mut options = fs::OpenOptions::new();
        let options = options.create(true).append(true).mode(0o600);
        let log = plainfile::make_way(&self.log_file)
            .and_then(|()| options.open(&self.log_file))
            .with_context(|| format!("cannot open {}", self.log_file.display()))?;
        command.arg("--log-file").arg(&self.log_file);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
        unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) };
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let pid = i32::try_from(child.id()).context("pid out of range")?;
        let start = start_time(pid)
            .with_context(|| format!("{} ended at once; see {}", self.name, self.log_file.display()))?;
        self.record(&format!("{pid} {start}"))
            .with_context(|| format!("cannot write {}", self.pid_file.display()))?;
        Ok(pid)
    }

    fn forget(&self) {
        if self.pid_file.exists() {
            // What is recorded has ended: the record says nothing any more.
            let _ = self.record("");
        }
    }

    /// SIGTERM, and SIGKILL when it does not help in time. True if it ran.
    pub fn stop(&self, patience: Duration) -> Result<bool> {
        let Some(pid) = self.running() else {
            self.forget();
            return Ok(false);
        };
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let _ = kill(Pid::from_raw(pid), signal);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline {
                if self.running().is_none() {
                    self.forget();
                    return Ok(true);
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        bail!("{} (pid {pid}) does not end, not even by SIGKILL", self.name)
    }

    /// The last lines of the log, for an error message.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log_file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        let mut tail = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        if statvfs(&self.log_file).is_ok_and(|disk| disk.f_bavail == 0) {
            tail += "\n(the disk has no space left: what was said last may be missing)";
        }
        tail
    }
}

/// Field 22 of /proc/PID/stat (proc(5)); `None` for a process that is gone or a zombie.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19).map(|f| (*f).to_owned()))?
}

/// Whether the process was started for this data directory (proc_pid_cmdline(5)).
fn runs_from(pid: i32, data_dir: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut arguments = line.split(|byte| *byte == 0);
    let said = arguments.find(|argument| *argument == b"--data-dir");
    let dir = said.and_then(|_| arguments.next()).map(OsStr::from_bytes);
    // It has none for a moment while it becomes another program, as the agent does when it starts.
    line.is_empty() || dir.is_some_and(|dir| DataDir::new(dir.as_ref()).path() == data_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_from_the_directory_that_was_copied_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let [first, copy] = ["first", "copy"].map(|name| DataDir::new(&root.path().join(name)));
        let link = root.path().join("link");
        for dir in [&first, &copy] {
            dir.create().unwrap();
        }
        std::os::unix::fs::symlink(first.path(), &link).unwrap();
        let daemon = |dir: &DataDir| Daemon::new("nodeagent", dir.path());
        for spelled in [first.path(), &link] {
            let mut command = Command::new("sh");
            command
                .args(["-c", "while :; do sleep 0.1; done", "sh", "--data-dir"])
                .arg(spelled);
            let pid = daemon(&first).start(&mut command).unwrap();
            fs::copy(
                first.path().join("nodeagent.pid"),
                copy.path().join("nodeagent.pid"),
            )
            .unwrap();
            assert_eq!(daemon(&first).running(), Some(pid));
            assert_eq!(daemon(&copy).running(), None);
            assert!(!daemon(&copy).stop(Duration::from_secs(1)).unwrap());
            assert_eq!(daemon(&first).running(), Some(pid), "the copy's was told to stop");
            assert!(daemon(&first).stop(Duration::from_secs(5)).unwrap());
        }
    }
}
