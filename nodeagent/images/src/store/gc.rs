//! Frees blobs, layers and leftovers that nothing refers to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use oci_spec::image::ImageIndex;

use super::{Image, ImageStore, StoreError, index};
use crate::unpack::layer_names;

/// What a collection freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blobs removed.
    pub blobs: usize,
    /// Their size.
    pub blob_bytes: u64,
    /// Unpacked layers removed.
    pub layers: usize,
}

impl ImageStore {
    /// Frees whatever no image in the index and no mounted root file system refers to.
    pub fn gc(&self) -> Result<GcReport, StoreError> {
        let _lock = self.lock()?;
        self.collect(&self.read_index()?)
    }

    /// Forgets images without a name (their name went to a newer build), then frees. Rollback to their digest is
    /// no longer possible afterwards.
    pub fn prune(&self) -> Result<GcReport, StoreError> {
        let _lock = self.lock()?;
        let mut index = self.read_index()?;
        let named = index
            .manifests()
            .iter()
            .filter(|d| index::name_of(d).is_some())
            .cloned()
            .collect();
        index.set_manifests(named);
        self.write_index(&index)?;
        self.collect(&index)
    }

    /// Removes what can be made again at once: unpacked layers that neither a mounted root file system nor `wanted` has. Images
    /// stay: without a registry nobody could bring them back.
    pub fn shed(&self, wanted: Option<&Image>) -> Result<GcReport, StoreError> {
        let _lock = self.lock()?;
        let mut layers: BTreeSet<String> = self.leased_layers()?.into_iter().collect();
        if let Some(image) = wanted {
            for (diff_id, chain_id) in image.diff_ids.iter().zip(&image.chain_ids()) {
                layers.extend(layer_names(diff_id, chain_id));
            }
        }
        self.reap_scratch()?;
        let mut report = GcReport::default();
        self.sweep_layers(&layers, &mut report)?;
        Ok(report)
    }

    /// The caller holds the lock. Any unreadable document stops it before something is freed.
    pub(super) fn collect(&self, index: &ImageIndex) -> Result<GcReport, StoreError> {
        let mut blobs = BTreeSet::new();
        let mut layers: BTreeSet<String> = self.leased_layers()?.into_iter().collect();
        for d in index.manifests() {
            let (digest, manifest) = self.read_manifest(d)?;
            blobs.insert(digest.hex().to_owned());
            blobs.insert(manifest.config().digest().digest().to_owned());
            blobs.extend(manifest.layers().iter().map(|l| l.digest().digest().to_owned()));
            let image = self.load(None, d)?;
            for (diff_id, chain_id) in image.diff_ids.iter().zip(&image.chain_ids()) {
                layers.extend(layer_names(diff_id, chain_id));
            }
        }
        self.reap_scratch()?;
        let mut report = GcReport::default();
        sweep(&self.dir.join("blobs/sha256"), &blobs, |path| {
            let size_bytes = fs::metadata(path)?.len();
            fs::remove_file(path)?;
            report.blobs += 1;
            report.blob_bytes += size_bytes;
            Ok(())
        })?;
        self.sweep_layers(&layers, &mut report)?;
        Ok(report)
    }

    fn sweep_layers(&self, keep: &BTreeSet<String>, report: &mut GcReport) -> Result<(), StoreError> {
        let doomed = self.make_scratch()?;
        sweep(&self.dir.join("layers"), keep, |path| {
            // Goes with the folder, so that no crash leaves half a layer under a valid name.
            fs::rename(path, doomed.path().join(path.file_name().unwrap_or_default()))?;
            report.layers += 1;
            Ok(())
        })
    }
}

fn sweep(
    dir: &Path,
    keep: &BTreeSet<String>,
    mut remove: impl FnMut(&Path) -> std::io::Result<()>,
) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        if !entry.file_name().to_str().is_some_and(|name| keep.contains(name)) {
            remove(&entry.path()).map_err(StoreError::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}
