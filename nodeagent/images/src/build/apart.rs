//! Runs tools apart from this machine: in a mount and a process namespace of their own. What they mount and start goes with
//! them, however they end, and they end with this program.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, chroot, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::BuildEvent;

/// Lines of the log that an error shows.
const TAIL_LINES: usize = 15;
/// Lines that may wait to be told.
const WAITING_LINES: usize = 64;

/// Takes the lines of a log.
pub(super) type Log = SyncSender<BuildEvent>;

/// How a tool ended.
pub(super) struct Ended {
    pub status: ExitStatus,
    /// The last lines of its log.
    pub tail: String,
}

/// Runs `work` on a thread with a mount namespace of its own. One tool may be run in it: the first is the init of the process
/// namespace, and nothing starts after its end.
pub(super) fn apart<T: Send>(
    progress: &mut dyn FnMut(BuildEvent),
    work: impl FnOnce(&Log) -> T + Send,
) -> io::Result<T> {
    let (log, lines) = sync_channel(WAITING_LINES);
    let start = move || {
        // SAFETY: threads share neither memory nor file descriptors through these namespaces; this one ends here.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWPID) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        Ok(work(&log))
    };
    thread::scope(|scope| {
        let worker = scope.spawn(start);
        for line in lines {
            progress(line);
        }
        match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs a tool to its end, in `root` if it is given. It has a /proc of its own processes, and dies with this thread.
pub(super) fn run(mut command: Command, root: Option<&Path>, log: &Log) -> io::Result<Ended> {
    let (output, writer) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let root = CString::new(root.unwrap_or(Path::new("/")).as_os_str().as_bytes())?;
    // SAFETY: system calls only, without allocations, as between fork and exec it must be.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            chroot(root.as_c_str())?;
            rustix::process::chdir(c"/")?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount(c"proc", c"/proc", c"proc", flags, None)?;
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    // It holds the pipe's other end.
    drop(command);
    let mut tail = VecDeque::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        // A progress bar rewrites its line.
        let line = String::from_utf8_lossy(line.rsplit(|b| *b == b'\r').next().unwrap_or(&line)).into_owned();
        // What it is about to do explains no failure.
        if !line.starts_with("I: ") {
            tail.push_back(line.clone());
        }
        if tail.len() > TAIL_LINES {
            tail.pop_front();
        }
        // Who is to be told waits as long as this thread lives.
        let _ = log.send(BuildEvent::Log(line));
    }
    let status = child.wait()?;
    let tail = tail.make_contiguous().join("\n");
    Ok(Ended { status, tail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_or_skip(test: &str) -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("SKIPPED: {test} needs root");
            let required = std::env::var("REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|r| r == "images"),
                "REQUIRE=images, but not root"
            );
        }
        root
    }

    #[test]
    fn what_a_tool_mounts_and_starts_goes_with_it() {
        if !root_or_skip("what_a_tool_mounts_and_starts_goes_with_it") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        // The one in the background holds the log open: we would wait for it.
        shell
            .args(["-c", "mount -t tmpfs none \"$0\"; echo $$; sleep 1000 &"])
            .arg(dir.path());
        let mut lines = Vec::new();
        let ended = apart(&mut |line| lines.push(line), |log| run(shell, None, log));
        let ended = ended.unwrap().unwrap();
        assert!(ended.status.success(), "{}", ended.tail);
        assert_eq!(lines, [BuildEvent::Log("1".to_owned())]);
        std::fs::remove_dir(dir.path()).unwrap();
    }
}
