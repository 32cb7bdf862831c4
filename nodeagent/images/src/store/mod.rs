//! The image store: an OCI image layout plus unpacked layers.
//!
//! ```text
//! DIR/oci-layout, index.json, blobs/sha256/<hex>   the OCI layout (image spec, image-layout.md)
//! DIR/index.copy.json                              the index once more, for when the first is damaged
//! DIR/layers/sha256-<diff id>/                     layers in overlayfs form
//! DIR/leases/                                      which mounted root file systems use which layers
//! DIR/cache/                                       Debian bases and what is known of layers, of builds
//! DIR/tmp/                                         work in progress, each folder locked by its owner
//! DIR/lock                                         held while any of the above changes
//! ```

pub mod admit;
mod blobs;
mod choose;
mod gc;
pub mod import;
mod index;
mod lease;
mod scratch;

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::limits::Limits;
use crate::reference::{Reference, ReferenceError};

pub(crate) use blobs::{read_bounded, sync_dir};
pub use gc::GcReport;
pub(crate) use index::{NewImage, canonical_json, digest_of};
pub(crate) use scratch::Scratch;

/// An operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {operation} {path} in the image store; check permissions and free space")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No such image.
    #[error(
        "no image {reference} in {store}; see `gantry image ls`, then `gantry image build` or `gantry image import`"
    )]
    NotFound {
        /// What was asked for.
        reference: String,
        /// The store.
        store: PathBuf,
    },
    /// Not an image name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A document is not what it must be.
    #[error("{what} of image {image} is not valid: {why}; build or import the image again")]
    Invalid {
        /// Which document.
        what: &'static str,
        /// Which image.
        image: String,
        /// What is wrong.
        why: String,
    },
}

impl StoreError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

/// One line of `gantry image ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// `repository:tag`; `None` for an image whose name went to a newer one.
    pub name: Option<String>,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Config and compressed layers together.
    pub size_bytes: u64,
    /// Number of layers.
    pub layers: usize,
    /// Hash of the recipe it was built from, if built here.
    pub recipe_hash: Option<String>,
}

/// An image of the store, all its documents read and checked.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name it was resolved by or has.
    pub name: Option<String>,
    /// Digest of the manifest; this is the image's identity.
    pub digest: Digest,
    /// What a runtime needs.
    pub config: ImageConfig,
    /// The whole OCI configuration.
    pub oci_config: ImageConfiguration,
    /// Layer blobs, base first.
    pub layers: Vec<Descriptor>,
    /// Digests of the uncompressed layers, base first, as many as `layers`.
    pub diff_ids: Vec<Digest>,
}

impl Image {
    /// Digests of each layer with all below it (OCI image spec, config.md: ChainID), as many as `layers`.
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut ids: Vec<Digest> = Vec::new();
        for diff_id in &self.diff_ids {
            let id = match ids.last() {
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
                None => diff_id.clone(),
            };
            ids.push(id);
        }
        ids
    }

    /// An image from its documents; in words if they do not fit together.
    pub(crate) fn of(
        name: Option<String>,
        digest: Digest,
        manifest: &ImageManifest,
        oci_config: ImageConfiguration,
        limits: &Limits,
    ) -> Result<Self, String> {
        let diff_ids = check_layers(manifest, &oci_config, limits)?;
        Ok(Self {
            name,
            digest,
            config: ImageConfig::from_oci(&oci_config),
            oci_config,
            layers: manifest.layers().clone(),
            diff_ids,
        })
    }

    /// `NAME@sha256:HEX`, or the digest alone.
    pub fn pinned(&self) -> String {
        match &self.name {
            Some(name) => format!("{name}@{}", self.digest),
            None => self.digest.to_string(),
        }
    }
}

/// A store on disk. Cheap to open; any number of processes may have it open.
#[derive(Clone, Debug)]
pub struct ImageStore {
    dir: PathBuf,
    limits: Limits,
}

impl ImageStore {
    /// Opens the store at `dir`, creating it (mode 0700) if it does not exist.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Limits::default())
    }

    /// Like [`ImageStore::open`], with other bounds.
    pub fn open_with(dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        let make = |path: &Path| {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(StoreError::io("create", path))
        };
        make(dir)?;
        let dir = dir.canonicalize().map_err(StoreError::io("open", dir))?;
        for sub in ["blobs/sha256", "layers", "leases", "tmp"] {
            make(&dir.join(sub))?;
        }
        let store = Self { dir, limits };
        if store.read_index().is_err() || !store.has_layout() || !store.has_copy() {
            store.initialise()?;
        }
        Ok(store)
    }

    /// Where the store is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All images, by name; those without one last.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        self.list_named(|_| true)
    }

    /// Images whose name is wanted; the others are not read, damaged or not.
    pub(crate) fn list_named(
        &self,
        wanted: impl Fn(Option<&str>) -> bool,
    ) -> Result<Vec<ImageSummary>, StoreError> {
        let index = self.read_index()?;
        let mut rows = index
            .manifests()
            .iter()
            .filter(|d| wanted(index::name_of(d)))
            .map(|d| self.summary(d))
            .collect::<Result<Vec<_>, StoreError>>()?;
        rows.sort_by(|a, b| {
            (a.name.is_none(), &a.name, &a.digest).cmp(&(b.name.is_none(), &b.name, &b.digest))
        });
        Ok(rows)
    }

    /// Finds an image by `NAME[:TAG]`, `NAME[:TAG]@sha256:HEX` or `sha256:HEX` and reads its documents.
    pub fn resolve(&self, reference: &str) -> Result<Image, StoreError> {
        let wanted = Reference::parse(reference)?;
        let index = self.read_index()?;
        let matches = |d: &&Descriptor| match &wanted {
            Reference::Name(name) => index::is_named(d, name),
            Reference::Pinned(_, digest) => d.digest().digest() == digest.hex(),
        };
        let found = index
            .manifests()
            .iter()
            .find(matches)
            .ok_or_else(|| StoreError::NotFound {
                reference: reference.to_owned(),
                store: self.dir.clone(),
            })?;
        let name = match &wanted {
            Reference::Name(name) | Reference::Pinned(Some(name), _) => Some(name.to_string()),
            Reference::Pinned(None, _) => index::name_of(found).map(str::to_owned),
        };
        self.load(name, found)
    }

    /// Removes a name (`NAME[:TAG]`) or an image with all its names (`sha256:HEX`, `NAME@sha256:HEX`), then frees
    /// what nothing refers to. Layers under a mounted root file system stay until it is unmounted.
    pub fn remove(&self, reference: &str) -> Result<GcReport, StoreError> {
        let wanted = Reference::parse(reference)?;
        let _lock = self.lock()?;
        let mut index = self.read_index()?;
        let mut kept = index.manifests().clone();
        kept.retain(|d| match &wanted {
            Reference::Name(name) => !index::is_named(d, name),
            Reference::Pinned(_, digest) => d.digest().digest() != digest.hex(),
        });
        if kept.len() == index.manifests().len() {
            return Err(StoreError::NotFound {
                reference: reference.to_owned(),
                store: self.dir.clone(),
            });
        }
        index.set_manifests(kept);
        self.write_index(&index)?;
        self.collect(&index)
    }

    fn summary(&self, d: &Descriptor) -> Result<ImageSummary, StoreError> {
        let (digest, manifest) = self.read_manifest(d)?;
        Ok(ImageSummary {
            name: index::name_of(d).map(str::to_owned),
            digest,
            size_bytes: manifest.config().size()
                + manifest.layers().iter().map(Descriptor::size).sum::<u64>(),
            layers: manifest.layers().len(),
            recipe_hash: index::recipe_hash_of(d).map(str::to_owned),
        })
    }

    fn read_manifest(&self, d: &Descriptor) -> Result<(Digest, ImageManifest), StoreError> {
        let digest = index::digest_of(d)?;
        let bytes = self.read_document(&digest, "manifest")?;
        let manifest = parse(&bytes, "manifest", &digest)?;
        Ok((digest, manifest))
    }

    fn load(&self, name: Option<String>, d: &Descriptor) -> Result<Image, StoreError> {
        let (digest, manifest) = self.read_manifest(d)?;
        let config_digest = index::digest_of(manifest.config())?;
        let bytes = self.read_document(&config_digest, "config")?;
        let oci_config: ImageConfiguration = parse(&bytes, "config", &digest)?;
        let image = digest.to_string();
        Image::of(name, digest, &manifest, oci_config, &self.limits).map_err(|why| StoreError::Invalid {
            what: "config",
            image,
            why,
        })
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
    of: &Digest,
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| StoreError::Invalid {
        what,
        image: of.to_string(),
        why: e.to_string(),
    })
}

/// The diff ids, if they are proper and as many as the layers.
fn check_layers(m: &ImageManifest, c: &ImageConfiguration, limits: &Limits) -> Result<Vec<Digest>, String> {
    let diff_ids = c.rootfs().diff_ids();
    if m.layers().len() > limits.layers {
        return Err(format!(
            "it has {} layers, {} are allowed",
            m.layers().len(),
            limits.layers
        ));
    }
    if m.layers().is_empty() || diff_ids.len() != m.layers().len() {
        return Err(format!(
            "{} layers and {} diff ids",
            m.layers().len(),
            diff_ids.len()
        ));
    }
    diff_ids
        .iter()
        .map(|d| Digest::parse(d).ok_or_else(|| format!("diff id {d:?} is not a sha256 digest")))
        .collect()
}
