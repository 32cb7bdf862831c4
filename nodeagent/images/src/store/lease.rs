//! Which layers are under a mounted root file system. A lease is a file that names the mount point and the layers;
//! it counts while the mount point's folder exists, so a crash can neither lose nor leak one.

use std::fs;
use std::path::{Path, PathBuf};

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

    fn lease_path(&self, target: &Path) -> PathBuf {
        let name = Digest::of(target.as_os_str().as_encoded_bytes());
        self.dir.join("leases").join(format!("{}.json", name.hex()))
    }

    /// Layers under live leases; drops the others. The caller holds the lock. A damaged lease (cannot happen by a
    /// crash) stops the collection rather than freeing what may be in use.
    pub(super) fn leased_layers(&self) -> Result<Vec<String>, StoreError> {
        let dir = self.dir.join("leases");
        let mut layers = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let path = entry.map_err(StoreError::io("list", &dir))?.path();
            if path.extension().is_none_or(|e| e != "json") {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                continue;
            }
            let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
            let lease: Lease =
                serde_json::from_slice(&bytes).map_err(|e| StoreError::io("understand", &path)(e.into()))?;
            if lease.target.exists() {
                layers.extend(lease.layers);
            } else {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(layers)
    }
}
