//! Which layers are under a mounted root file system. A lease is a file that names the mount point and the layers;
//! it counts while the mount point's folder exists, so a crash can neither lose nor leak one.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{ImageStore, StoreError};
use crate::digest::Digest;

#[derive(serde::Serialize, serde::Deserialize)]
struct Lease {
    /// Folder that exists as long as the lease is meant.
    target: PathBuf,
    /// Folder names under layers/.
    layers: Vec<String>,
}

impl ImageStore {
    /// Protects `layers` (folder names under layers/) while `target` exists. The caller holds the lock.
    pub(crate) fn lease(&self, target: &Path, layers: Vec<String>) -> Result<(), StoreError> {
        let path = self.lease_path(target);
        let lease = Lease {
            target: target.to_owned(),
            layers,
        };
        let json = serde_json::to_vec(&lease).map_err(|e| StoreError::io("write", &path)(e.into()))?;
        self.replace_file(&path, &json)
    }

    /// The folders of the layers that `target` was leased, topmost first.
    pub(crate) fn leased_to(&self, target: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let path = self.lease_path(target);
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let lease: Lease =
            serde_json::from_slice(&bytes).map_err(|e| StoreError::io("understand", &path)(e.into()))?;
        let layers = self.dir.join("layers");
        Ok(lease.layers.iter().map(|name| layers.join(name)).collect())
    }

    /// What was mounted at `dir` ([`crate::Rootfs::mount`]) is not mounted there again, and needs its layers no longer. It waits
    /// for nobody who works in the store.
    pub fn release(&self, dir: &Path) -> Result<(), StoreError> {
        match dir.canonicalize() {
            Ok(dir) => remove(&self.lease_path(&dir.join("merged"))),
            // Nothing was ever mounted there.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io("open", dir)(e)),
        }
    }

    fn lease_path(&self, target: &Path) -> PathBuf {
        let name = Digest::of(target.as_os_str().as_encoded_bytes());
        self.dir.join("leases").join(format!("{}.json", name.hex()))
    }

    /// Layers under live leases; drops those that nobody has released. The caller holds the lock. A damaged lease (cannot happen
    /// by a crash) stops the collection rather than freeing what may be in use.
    pub(super) fn leased_layers(&self) -> Result<Vec<String>, StoreError> {
        let dir = self.dir.join("leases");
        let mut layers = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let path = entry.map_err(StoreError::io("list", &dir))?.path();
            if path.extension().is_none_or(|e| e != "json") {
                remove(&path)?;
                continue;
            }
            let bytes = match fs::read(&path) {
                // Just released.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                read => read.map_err(StoreError::io("read", &path))?,
            };
            let lease: Lease =
                serde_json::from_slice(&bytes).map_err(|e| StoreError::io("understand", &path)(e.into()))?;
            if lease.target.exists() {
                layers.extend(lease.layers);
            } else {
                remove(&path)?;
            }
        }
        Ok(layers)
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
