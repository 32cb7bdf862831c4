//! Runs mmdebstrap.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{BuildError, BuildEvent, EPOCH_S, Job};
use crate::recipe::Debian;

/// Where a Debian host says which mirrors it uses.
const HOST_SOURCES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];
/// Lines of the log that an error shows.
const TAIL_LINES: usize = 15;

impl Job<'_> {
    /// Installs the packages into a tar file in the scratch folder.
    pub(super) fn bootstrap(
        &self,
        debian: &Debian,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<PathBuf, BuildError> {
        let image = || self.recipe.name.to_string();
        if !rustix::process::geteuid().is_root() {
            return Err(BuildError::NotRoot { image: image() });
        }
        let tar = self.scratch.path().join("base.tar");
        let mut command = self.mmdebstrap(debian, &tar);
        let mut child = spawn_apart(&mut command).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => BuildError::NoMmdebstrap { image: image() },
            _ => self.io("start mmdebstrap")(e),
        })?;
        let mut tail = VecDeque::new();
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).split(b'\n') {
                let line = line.map_err(self.io("read the log of mmdebstrap"))?;
                // A progress bar rewrites its line.
                let line = String::from_utf8_lossy(line.rsplit(|b| *b == b'\r').next().unwrap_or(&line))
                    .into_owned();
                // What it is about to do explains no failure.
                if !line.starts_with("I: ") {
                    tail.push_back(line.clone());
                }
                if tail.len() > TAIL_LINES {
                    tail.pop_front();
                }
                progress(BuildEvent::Log(line));
            }
        }
        let status = child.wait().map_err(self.io("wait for mmdebstrap"))?;
        if !status.success() {
            let tail = tail.make_contiguous().join("\n");
            let (suite, status) = (debian.suite.clone(), status.to_string());
            return Err(BuildError::Mmdebstrap {
                image: image(),
                suite,
                status,
                tail,
            });
        }
        Ok(tar)
    }

    fn mmdebstrap(&self, debian: &Debian, tar: &Path) -> Command {
        let mut command = Command::new("mmdebstrap");
        command
            .arg(format!("--variant={}", debian.variant))
            .args(["--mode=root", "--format=tar"])
            .arg(&debian.suite)
            .arg(tar)
            .env("SOURCE_DATE_EPOCH", EPOCH_S.to_string())
            .env("TMPDIR", self.scratch.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if !debian.packages.is_empty() {
            command.arg(format!("--include={}", debian.packages.join(",")));
        }
        // The host's own mirrors if they carry the release, else mmdebstrap's default.
        command.args(
            HOST_SOURCES
                .iter()
                .filter(|f| names_suite(Path::new(f), &debian.suite)),
        );
        command
    }
}

/// Starts the command in a mount namespace of its own: what it mounts goes with it, however it ends.
fn spawn_apart(command: &mut Command) -> io::Result<Child> {
    let start = || {
        // SAFETY: threads share neither memory nor file descriptors through a mount namespace; this one ends here.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        command.spawn()
    };
    std::thread::scope(|scope| match scope.spawn(start).join() {
        Ok(started) => started,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// True if an apt source file (either format) has the release on a line that is not a comment.
fn names_suite(file: &Path, suite: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else {
        return false;
    };
    text.lines()
        .filter(|l| l.starts_with("deb ") || l.starts_with("Suites:"))
        .any(|l| l.split_whitespace().any(|word| word == suite))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_mounts_goes_with_it() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: what_a_tool_mounts_goes_with_it needs root");
            let required = std::env::var("REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|r| r == "images"),
                "REQUIRE=images, but not root"
            );
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "none"]).arg(dir.path());
        assert!(spawn_apart(&mut mount).unwrap().wait().unwrap().success());
        std::fs::remove_dir(dir.path()).unwrap();
    }

    #[test]
    fn sources_of_the_release_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.sources");
        std::fs::write(&file, "# bookworm\nSuites: trixie trixie-updates\n").unwrap();
        assert!(names_suite(&file, "trixie") && !names_suite(&file, "bookworm"));
        std::fs::write(&file, "deb [signed-by=/x] uri bookworm main\n").unwrap();
        assert!(names_suite(&file, "bookworm"));
        assert!(!names_suite(&dir.path().join("missing"), "bookworm"));
    }
}
