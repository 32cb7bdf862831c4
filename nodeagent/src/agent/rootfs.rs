//! The root file systems of a pod's containers: their images, mounted, begun anew and let go of.

use std::path::{Path, PathBuf};

use gantry_images::{ImageStore, Rootfs};
use gantry_nodeagent_api::ContainerConfig;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::own_ids::with_ids;
use super::pods::Pods;
use crate::runtime::{PodDir, UserNamespace};

/// What a container's image says, kept beside the pod, so that neither a restart nor a reboot needs the name again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) digest: String,
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) user: String,
    pub(super) working_dir: String,
    #[serde(default)]
    pub(super) volumes: Vec<String>,
    /// The signal that asks it to end; 0 where the image names none. Records of earlier versions have none.
    #[serde(default)]
    pub(super) stop_signal: i32,
}

impl Pods {
    fn images(&self) -> Result<ImageStore, Failure> {
        ImageStore::open(&self.settings.images).map_err(Failure::other)
    }

    /// Mounts the container's image, or finds it mounted.
    pub(super) fn mount_image(
        &self,
        dir: &PodDir,
        container: &ContainerConfig,
        ids: Option<&UserNamespace>,
    ) -> Result<ImageRecord, Failure> {
        let root = rootfs_dir(dir, &container.name);
        let record_path = root.join("image.json");
        let known = read_record(dir, &container.name);
        if let (Some(record), Some(_)) = (&known, Rootfs::open(&root)) {
            return Ok(record.clone());
        }
        let store = self.images()?;
        let name = known.map_or_else(|| container.image.clone(), |record| record.digest);
        let image = store.resolve(&name).map_err(Failure::image(container))?;
        let unpacked = store.unpack(&image).map_err(Failure::image(container))?;
        if Rootfs::open(&root).is_none() {
            with_ids(ids, |ids| {
                Rootfs::mount(&unpacked, &root, ids).map_err(Failure::other)
            })?;
        }
        let config = image.config;
        let stop_signal = config.stop_signal_number().unwrap_or(0);
        let record = ImageRecord {
            digest: image.digest.to_string(),
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            env: config.env,
            user: config.user,
            volumes: config.volumes,
            stop_signal,
            working_dir: config.working_dir,
        };
        let bytes = serde_json::to_vec(&record).map_err(Failure::other)?;
        std::fs::write(&record_path, bytes).map_err(Failure::io("write", &record_path))?;
        Ok(record)
    }

    /// Each run begins with the image as it is; what is to outlive a run is on a volume.
    pub(super) fn clean(&self, root: &Path, ids: Option<&UserNamespace>) -> Result<(), Failure> {
        let store = self.images()?;
        with_ids(ids, |ids| {
            Rootfs::renew(&store, root, ids).map_err(Failure::other)
        })?;
        Ok(())
    }

    /// Nothing of the pod is mounted any more.
    pub(super) fn release_images(&self, dir: &PodDir) -> Result<(), Failure> {
        let store = self.images()?;
        let roots = dir.path().join("rootfs");
        match std::fs::read_dir(&roots) {
            Ok(entries) => entries
                .flatten()
                .try_for_each(|root| store.release(&root.path()))
                .map_err(Failure::other),
            // Nothing of it has begun, or its records are all that is left.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Failure::io("list", &roots)(e)),
        }
    }

    /// Unpacked layers that no pod uses can be made again at once.
    pub(super) fn shed_layers(&self) -> Result<usize, Failure> {
        Ok(self.images()?.shed(None).map_err(Failure::other)?.layers)
    }
}

pub(super) fn rootfs_dir(dir: &PodDir, container: &str) -> PathBuf {
    dir.path().join("rootfs").join(container)
}

pub(super) fn read_record(dir: &PodDir, container: &str) -> Option<ImageRecord> {
    let bytes = std::fs::read(rootfs_dir(dir, container).join("image.json")).ok()?;
    serde_json::from_slice(&bytes).ok()
}
