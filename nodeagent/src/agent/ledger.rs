//! The ledger on disk: replaced as a whole, or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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

    /// Reads it. A missing or damaged ledger never blocks the start: a damaged one is set aside as `ledger.json.damaged`,
    /// and what runs on the node is found by looking.
    pub fn load(&self) -> Ledger {
        let read =
            fs::read(&self.path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        match read {
            Ok(ledger) => ledger,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Err(error) => {
                let aside = self.path.with_extension("json.damaged");
                tracing::error!(path = %self.path.display(), %error, "the ledger is damaged: set aside, starting without");
                // Fails on a read-only disk; then the next save says so.
                let _ = fs::rename(&self.path, aside);
                Ledger::default()
            }
        }
    }

    /// Replaces it durably.
    pub fn save(&self, ledger: &Ledger) -> io::Result<()> {
        let dir = self.path.parent().expect("a file of a directory");
        let temporary = self.path.with_extension("json.new");
        // It tells the pods' environment and files, Secrets among them.
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(ledger)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn survives_and_never_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(dir.path());
        assert_eq!(file.load(), Ledger::default());
        let mut ledger = Ledger::default();
        ledger.config.generation.0 = 7;
        file.save(&ledger).unwrap();
        assert_eq!(file.load(), ledger);
        let mode = fs::metadata(dir.path().join("ledger.json")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds Secrets");
        fs::write(dir.path().join("ledger.json"), "{\"config\": 1").unwrap();
        assert_eq!(file.load(), Ledger::default());
        assert!(dir.path().join("ledger.json.damaged").exists());
        file.save(&ledger).unwrap();
        assert_eq!(file.load(), ledger);
    }
}
