//! Whether the kernel killed a process of a container for want of memory.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than the kernel writes into such a file.
const MAX_BYTES: u64 = 4096;

/// What the kernel had counted when a run began.
pub(super) struct OomCount {
    file: PathBuf,
    before: u64,
}

impl OomCount {
    /// Counts from now on.
    pub(super) fn begin(file: &Path) -> Self {
        Self {
            before: read(file).unwrap_or(0),
            file: file.to_owned(),
        }
    }

    /// It has killed since.
    pub(super) fn has_risen(&self) -> bool {
        read(&self.file).is_some_and(|now| now > self.before)
    }
}

fn read(file: &Path) -> Option<u64> {
    let mut text = String::new();
    File::open(file)
        .ok()?
        .take(MAX_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    killed(&text)
}

/// `oom_kill N` of `memory.events` (admin-guide/cgroup-v2.rst) and of v1's `memory.oom_control` (cgroup-v1/memory.rst).
fn killed(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_file_are_read() {
        assert_eq!(killed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(
            killed("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 1\n"),
            Some(2)
        );
        assert_eq!(killed("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn only_what_is_new_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "oom_kill 1\n").unwrap();
        let count = OomCount::begin(file.path());
        assert!(!count.has_risen());
        std::fs::write(file.path(), "oom_kill 2\n").unwrap();
        assert!(count.has_risen());
    }
}
