//! Bootstraps Debian with mmdebstrap.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apart::{Log, apart, run};
use super::volatile::Volatile;
use super::{BuildError, BuildEvent, EPOCH_S, Job};
use crate::recipe::Debian;

/// Where a Debian host says which mirrors it uses.
const HOST_SOURCES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];

/// The host's own mirrors if they carry the release, else mmdebstrap's default.
pub(super) fn sources(suite: &str) -> Vec<PathBuf> {
    let files = HOST_SOURCES.iter().map(PathBuf::from);
    files.filter(|file| names_suite(file, suite)).collect()
}

impl Job<'_> {
    /// Makes the folder `root`, with the lists of what its mirrors have.
    pub(super) fn bootstrap(
        &self,
        debian: &Debian,
        root: &Path,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<(), BuildError> {
        let image = self.recipe.name.to_string();
        let dir = self.scratch.path().join("bootstrap");
        let work = |log: &Log| {
            let mounted = Volatile::mount(None, &dir)?;
            let ended = run(self.mmdebstrap(debian, &mounted.merged()), None, log)?;
            std::fs::rename(mounted.upper(), root)?;
            Ok(ended)
        };
        let ended = apart(progress, work).flatten();
        let ended = ended.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => BuildError::NoMmdebstrap { image: image.clone() },
            _ => self.io("run mmdebstrap")(e),
        })?;
        std::fs::remove_dir_all(dir).map_err(self.io("remove a work folder"))?;
        if ended.status.success() {
            return Ok(());
        }
        Err(BuildError::Mmdebstrap {
            image,
            suite: debian.suite.clone(),
            status: ended.status.to_string(),
            tail: ended.tail,
        })
    }

    fn mmdebstrap(&self, debian: &Debian, root: &Path) -> Command {
        let mut command = Command::new("mmdebstrap");
        command
            .arg(format!("--variant={}", debian.variant))
            // The lists are what the roles' packages are chosen from.
            .args(["--mode=root", "--format=directory", "--skip=cleanup/apt/lists"])
            .arg(&debian.suite)
            .arg(root)
            .args(sources(&debian.suite))
            .env("SOURCE_DATE_EPOCH", EPOCH_S.to_string())
            .env("TMPDIR", self.scratch.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC");
        command
    }
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
