//! The ledger on disk: replaced as a whole, or not at all.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::slots::{FileSlots, replace, set_aside};
use crate::core::Ledger;

/// Where the ledger is.
#[derive(Clone, Debug)]
pub struct LedgerFile {
    path: PathBuf,
}

impl LedgerFile {
    /// In the agent's directory.
    pub fn new(agent_dir: &Path) -> Self {
        Self {
            path: agent_dir.join("ledger.json"),
        }
    }

    /// Reads it. A missing, damaged or foreign ledger never blocks the start: it is set aside as
    /// `ledger.json.corrupt-<microseconds since the epoch>`, and what runs on the node is found by looking. `cluster` is the one that
    /// the agent belongs to, if it was told.
    pub fn load(&self, cluster: Option<&str>) -> Ledger {
        let bytes = read_plain(&self.path);
        let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        match read {
            Ok(ledger) => match foreign(&ledger, cluster) {
                Some(other) => self.set_aside(&format!("it is of cluster {other}")),
                None => ledger,
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Err(error) => self.set_aside(&error.to_string()),
        }
    }

    fn set_aside(&self, why: &str) -> Ledger {
        // Fails on a read-only disk; then the next save says so.
        let aside = set_aside(&self.path).unwrap_or_else(|_| self.path.clone());
        tracing::error!(
            path = %self.path.display(),
            aside = %aside.display(),
            why,
            "the ledger cannot be used: set aside; what runs on this node is found by looking"
        );
        Ledger::default()
    }

    /// Replaces it durably, within space that it holds already.
    pub fn save(&self, ledger: &Ledger) -> io::Result<()> {
        // It tells the pods' environment and files, Secrets among them: only its owner reads it.
        let text = serde_json::to_vec(ledger)?;
        let mut slots = FileSlots::open(&self.path, text.len())?;
        replace(&mut slots, text)
    }
}

/// What has come into a file's place must not be waited for: a pipe.
fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The cluster of a ledger that is another's.
fn foreign<'a>(ledger: &'a Ledger, cluster: Option<&str>) -> Option<&'a str> {
    let its = ledger.config.cluster.as_str();
    (!its.is_empty() && cluster.is_some_and(|own| own != its)).then_some(its)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn survives_and_never_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(dir.path());
        assert_eq!(file.load(None), Ledger::default());
        let mut ledger = Ledger::default();
        ledger.config.generation.0 = 7;
        file.save(&ledger).unwrap();
        assert_eq!(file.load(None), ledger);
        let mode = fs::metadata(dir.path().join("ledger.json")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds Secrets");
        fs::write(dir.path().join("ledger.json"), "{\"config\": 1").unwrap();
        assert_eq!(file.load(None), Ledger::default());
        assert_eq!(aside(dir.path()), 1);
        file.save(&ledger).unwrap();
        assert_eq!(file.load(None), ledger);
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ledger.json", "ledger.json.new"] {
            mknodat(CWD, dir.path().join(name), FileType::Fifo, Mode::RUSR, 0).unwrap();
        }
        let file = LedgerFile::new(dir.path());
        assert_eq!(file.load(None), Ledger::default());
        let mut ledger = Ledger::default();
        ledger.config.generation.0 = 7;
        file.save(&ledger).unwrap();
        assert_eq!((file.load(None), aside(dir.path())), (ledger, 2));
    }

    fn aside(dir: &Path) -> usize {
        let names = fs::read_dir(dir).unwrap().flatten().map(|e| e.file_name());
        names
            .filter(|n| n.to_string_lossy().contains(".corrupt-"))
            .count()
    }

    #[test]
    fn another_clusters_ledger_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(dir.path());
        let mut ledger = Ledger::default();
        ledger.config.generation.0 = 7;
        file.save(&ledger).unwrap();
        assert_eq!(
            file.load(Some("mine")),
            ledger,
            "one of the first version names none"
        );
        ledger.config.cluster = "mine".to_owned();
        file.save(&ledger).unwrap();
        assert_eq!(file.load(Some("mine")), ledger);
        assert_eq!(file.load(Some("other")), Ledger::default());
        assert_eq!(aside(dir.path()), 1);
    }
}
