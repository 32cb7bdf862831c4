//! The data directory: what is where, and the settings that `up` remembers.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use gantry_orchestrator::plainfile;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The settings once more, for when the first file is damaged.
pub const SETTINGS_COPY: &str = "settings.copy.json";

/// Paths below the data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// What `up` was told, so that a second `up` needs no options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Tells this Gantry from others on the same machine: in names of links, cgroups, tables. It stays when the directory moves.
    pub instance: String,
    pub listen: SocketAddr,
    pub pod_cidr: ipnet::Ipv4Net,
    pub service_cidr: ipnet::Ipv4Net,
    /// A CPU list, or `none`.
    pub reserved_cpus: String,
    /// A quantity such as `1Gi`; none: what the agent reserves by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_memory: Option<String>,
    /// The cluster whose state this is, once it has come up; settings of the first version name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

impl DataDir {
    /// However the path is spelled, it is the same directory.
    pub fn new(path: &Path) -> Self {
        Self(canonical(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }
    /// What is in it. Damage may have put a pipe in its place: that is not waited for.
    pub fn read_kubeconfig(&self) -> io::Result<String> {
        let bytes = plainfile::read(&self.kubeconfig())?;
        String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }
    fn settings_file(&self) -> PathBuf {
        self.0.join("settings.json")
    }

    /// The instance of a directory that has no settings yet.
    pub fn new_instance(&self) -> String {
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

    /// Held while `up` or `down` changes what runs; another one that starts meanwhile is refused.
    pub fn lock(&self) -> Result<File> {
        let path = self.0.join("lock");
        let mut options = fs::OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let file = plainfile::make_way(&path)
            .and_then(|()| options.open(&path))
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!(
                "another `gantry up` or `gantry down` is at work on {}; try again when it is done",
                self.0.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// The settings, or their copy where they are missing or damaged; `None` if nothing was ever started from here.
    pub fn load_settings(&self) -> Result<Option<Settings>> {
        match read(&self.settings_file()) {
            Ok(Some(settings)) => Ok(Some(settings)),
            first => match read(&self.0.join(SETTINGS_COPY)) {
                Ok(Some(copy)) => Ok(Some(copy)),
                _ => first,
            },
        }
    }

    /// Replaces the settings, if they are not these: whoever reads them sees the old or the new ones. Damaged ones are set
    /// aside.
    pub fn save_settings(&self, settings: &Settings) -> Result<()> {
        let path = self.settings_file();
        match read(&path) {
            Ok(Some(saved)) if saved == *settings => return Ok(()),
            Err(error) => {
                let set_aside = plainfile::set_aside(&path);
                let aside = set_aside.with_context(|| format!("cannot set {} aside", path.display()))?;
                gantry_log::say(format_args!(
                    "gantry: {error:#}; it is set aside as {} and made anew",
                    aside.display()
                ));
            }
            Ok(_) => {}
        }
        self.write(&path, settings)
    }

    /// Keeps a copy of settings that have proved to be good.
    pub fn copy_settings(&self, settings: &Settings) -> Result<()> {
        let path = self.0.join(SETTINGS_COPY);
        match read(&path) {
            Ok(Some(saved)) if saved == *settings => Ok(()),
            _ => self.write(&path, settings),
        }
    }

    fn write(&self, path: &Path, settings: &Settings) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&serde_json::to_vec_pretty(settings)?)?;
            file.as_file().sync_all()?;
            plainfile::make_way(path)?;
            file.persist(path)?;
            File::open(&self.0)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Seconds since the Unix epoch, for names of what is set aside.
pub fn now_s() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_secs()
}

fn read(path: &Path) -> Result<Option<Settings>> {
    match plainfile::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is damaged, or not Gantry's", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The one spelling of a path, symbolic links resolved; what does not exist yet keeps its name.
fn canonical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        let (Ok(mut real), Ok(rest)) = (ancestor.canonicalize(), absolute.strip_prefix(ancestor)) else {
            continue;
        };
        for component in rest.components() {
            match component {
                Component::ParentDir => drop(real.pop()),
                other => real.push(other),
            }
        }
        return real;
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_has_one_instance_however_it_is_spelled() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        fs::create_dir(&real).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let instance = |path: PathBuf| DataDir::new(&path).new_instance();
        // Before the directory exists and after.
        for _ in 0..2 {
            let plain = instance(real.join("data"));
            assert_eq!(instance(real.join("data/")), plain);
            assert_eq!(instance(real.join("./data/../data")), plain);
            assert_eq!(instance(link.join("data")), plain);
            assert_ne!(instance(real.join("other")), plain);
            DataDir::new(&real.join("data")).create().unwrap();
        }
    }

    #[test]
    fn settings_come_back_and_others_files_are_no_settings() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(root.path());
        assert_eq!(data_dir.load_settings().unwrap(), None);
        let settings = Settings {
            instance: data_dir.new_instance(),
            listen: "127.0.0.1:6443".parse().unwrap(),
            pod_cidr: "10.85.0.0/16".parse().unwrap(),
            service_cidr: "10.86.0.0/16".parse().unwrap(),
            reserved_cpus: "0".to_owned(),
            reserved_memory: Some("1Gi".to_owned()),
            cluster: None,
        };
        data_dir.save_settings(&settings).unwrap();
        assert_eq!(data_dir.load_settings().unwrap(), Some(settings.clone()));
        fs::write(data_dir.settings_file(), "{\"editor.tabSize\": 2}").unwrap();
        assert!(data_dir.load_settings().is_err());
        // With a copy neither damage nor loss matters; what was there is kept.
        data_dir.copy_settings(&settings).unwrap();
        assert_eq!(data_dir.load_settings().unwrap(), Some(settings.clone()));
        data_dir.save_settings(&settings).unwrap();
        let names = fs::read_dir(root.path())
            .unwrap()
            .flatten()
            .map(|e| e.file_name());
        assert_eq!(
            names
                .filter(|n| n.to_string_lossy().contains(".corrupt-"))
                .count(),
            1
        );
        fs::remove_file(data_dir.settings_file()).unwrap();
        assert_eq!(data_dir.load_settings().unwrap(), Some(settings));
    }

    #[test]
    fn only_one_at_a_time_changes_what_runs() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(root.path());
        let held = data_dir.lock().unwrap();
        assert!(data_dir.lock().unwrap_err().to_string().contains("another"));
        drop(held);
        data_dir.lock().unwrap();
    }
}
