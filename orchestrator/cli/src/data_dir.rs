//! The data directory: what is where, and the settings that `up` remembers.

use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Paths below the data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// What `up` was told, so that a second `up` needs no options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    pub listen: SocketAddr,
    pub pod_cidr: ipnet::Ipv4Net,
    pub service_cidr: ipnet::Ipv4Net,
    /// A CPU list, or `none`.
    pub reserved_cpus: String,
}

impl DataDir {
    pub fn new(path: &Path) -> Self {
        Self(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }
    fn settings_file(&self) -> PathBuf {
        self.0.join("settings.json")
    }

    /// Tells this Gantry from others on the same machine: in names of links, cgroups, tables.
    pub fn instance(&self) -> String {
        let hash = Sha256::digest(self.0.as_os_str().as_encoded_bytes());
        hash[..3].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn create(&self) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("cannot create the data directory {}", self.0.display()))
    }

    pub fn load_settings(&self) -> Result<Option<Settings>> {
        let path = self.settings_file();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub fn save_settings(&self, settings: &Settings) -> Result<()> {
        let path = self.settings_file();
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        let write =
            file.and_then(|file| serde_json::to_writer_pretty(file, settings).map_err(io::Error::from));
        write.with_context(|| format!("cannot write {}", path.display()))
    }
}
