//! index.json: which images there are and what they are called.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, ImageManifest, MediaType};

use super::{Image, ImageStore, Scratch, StoreError, blobs};
use crate::digest::Digest;
use crate::reference::ImageName;

const INDEX: &str = "index.json";
/// The index once more: it alone knows the images' names.
const COPY: &str = "index.copy.json";
/// The file `oci-layout` (image spec, image-layout.md).
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Image spec, annotations.md.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Hash of recipe, its source files and the builder's version.
const RECIPE: &str = "dev.gantry.image.recipe";

/// The name of an index entry.
pub(super) fn name_of(d: &Descriptor) -> Option<&str> {
    d.annotations().as_ref()?.get(NAME).map(String::as_str)
}

/// Whether an index entry has this name; one written before may have a longer form of it.
pub(super) fn is_named(d: &Descriptor, name: &ImageName) -> bool {
    name_of(d).is_some_and(|text| ImageName::parse(text).is_ok_and(|own| own == *name))
}

/// The recipe hash of an index entry.
pub(super) fn recipe_hash_of(d: &Descriptor) -> Option<&str> {
    d.annotations().as_ref()?.get(RECIPE).map(String::as_str)
}

/// The digest of a descriptor, which must be SHA-256.
pub(crate) fn digest_of(d: &Descriptor) -> Result<Digest, StoreError> {
    Digest::parse(d.digest().as_ref()).ok_or_else(|| StoreError::Invalid {
        what: "digest",
        image: d.digest().to_string(),
        why: "only sha256 is supported".to_owned(),
    })
}

/// An image about to enter the store; its blobs lie in a scratch folder, named by their hex digest.
pub(crate) struct NewImage {
    /// Its name.
    pub name: ImageName,
    /// What it is.
    pub image: Image,
    /// The manifest's length.
    pub size_bytes: u64,
    /// Manifest, config and layers.
    pub blobs: Vec<Digest>,
    /// Hash of its recipe, if it was built.
    pub recipe_hash: Option<String>,
}

impl ImageStore {
    pub(super) fn has_layout(&self) -> bool {
        std::fs::read(self.dir.join("oci-layout")).is_ok_and(|found| found == LAYOUT)
    }

    pub(super) fn has_copy(&self) -> bool {
        self.dir.join(COPY).exists()
    }

    /// Makes what is missing. An index that is lost or damaged comes back from its copy, or else from the blobs: then the
    /// images have no names until they are built or imported again, and whoever names a digest finds them.
    pub(super) fn initialise(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        if !self.has_layout() {
            self.replace_file(&self.dir.join("oci-layout"), LAYOUT)?;
        }
        if let Ok(index) = self.read_index() {
            // A copy helps one day, and its absence hurts nobody today: on a disk that is full there is none.
            let _ = self.replace_file(&self.dir.join(COPY), &canonical_json(&index));
            return Ok(());
        }
        let path = self.dir.join(INDEX);
        if path.exists() {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let aside = self
                .dir
                .join(format!("{INDEX}.corrupt-{}", since_epoch.as_micros()));
            std::fs::rename(&path, &aside).map_err(StoreError::io("set aside", &path))?;
            tracing::error!(path = %path.display(), aside = %aside.display(), "the index of images is damaged: set aside and made anew");
        }
        let index = match self.read_index_file(COPY) {
            Ok(copy) => copy,
            Err(_) => self.index_of_blobs()?,
        };
        self.write_index(&index)
    }

    /// Every manifest whose blobs are all here.
    fn index_of_blobs(&self) -> Result<ImageIndex, StoreError> {
        let dir = self.dir.join("blobs/sha256");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let path = entry.map_err(StoreError::io("list", &dir))?.path();
            found.extend(self.manifest_at(&path));
        }
        found.sort_by_key(|d: &Descriptor| d.digest().to_string());
        let index = ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageIndex)
            .manifests(found)
            .build();
        Ok(index.expect("all required fields are set"))
    }

    /// The entry of a blob that is a manifest, as large as one may be and with the digest that it is called by.
    fn manifest_at(&self, path: &Path) -> Option<Descriptor> {
        let bytes = blobs::read_bounded(path, self.limits.document_bytes).ok()?;
        let manifest: ImageManifest = serde_json::from_slice(&bytes).ok()?;
        let digest = Digest::of(&bytes);
        let here = |d: &Descriptor| Some(self.blob_path(&digest_of(d).ok()?).exists());
        let all = path == self.blob_path(&digest)
            && here(manifest.config())?
            && manifest.layers().iter().all(|layer| here(layer) == Some(true));
        all.then(|| entry(&digest, bytes.len() as u64))
    }

    pub(super) fn read_index(&self) -> Result<ImageIndex, StoreError> {
        self.read_index_file(INDEX)
    }

    fn read_index_file(&self, name: &str) -> Result<ImageIndex, StoreError> {
        let path = self.dir.join(name);
        let bytes =
            blobs::read_bounded(&path, self.limits.document_bytes).map_err(StoreError::io("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|e| StoreError::Invalid {
            what: "index.json",
            image: self.dir.display().to_string(),
            why: e.to_string(),
        })
    }

    /// The caller holds the lock.
    pub(super) fn write_index(&self, index: &ImageIndex) -> Result<(), StoreError> {
        let json = canonical_json(index);
        self.replace_file(&self.dir.join(INDEX), &json)?;
        self.replace_file(&self.dir.join(COPY), &json)
    }

    /// Moves the blobs out of `scratch` and gives the image its name. An image that had the name stays, unnamed,
    /// so that a rollback to its digest works.
    pub(crate) fn commit(&self, scratch: &Scratch, images: &[NewImage]) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let blobs: BTreeSet<&Digest> = images.iter().flat_map(|i| &i.blobs).collect();
        for digest in blobs {
            self.adopt_blob(&scratch.path().join(digest.hex()), digest)?;
        }
        self.sync_blobs()?;
        let mut index = self.read_index()?;
        let mut entries = index.manifests().clone();
        for image in images {
            add_entry(&mut entries, image);
        }
        index.set_manifests(entries);
        self.write_index(&index)
    }
}

/// An entry without a name.
fn entry(digest: &Digest, size_bytes: u64) -> Descriptor {
    let digest: oci_spec::image::Digest = digest
        .to_string()
        .parse()
        .expect("a sha256 digest is an OCI digest");
    Descriptor::new(MediaType::ImageManifest, size_bytes, digest)
}

fn add_entry(entries: &mut Vec<Descriptor>, image: &NewImage) {
    for old in entries.iter_mut().filter(|d| is_named(d, &image.name)) {
        let mut annotations = old.annotations().clone().unwrap_or_default();
        annotations.remove(NAME);
        old.set_annotations(Some(annotations));
    }
    let mut entry = entry(&image.image.digest, image.size_bytes);
    let mut annotations = HashMap::from([(NAME.to_owned(), image.name.to_string())]);
    annotations.extend(image.recipe_hash.clone().map(|hash| (RECIPE.to_owned(), hash)));
    entry.set_annotations(Some(annotations));
    entries.push(entry);
    // An unnamed entry has nothing to add to another of the same digest.
    let digest_text = |d: &Descriptor| d.digest().digest().to_owned();
    let mut known: BTreeSet<String> = entries
        .iter()
        .filter(|d| name_of(d).is_some())
        .map(digest_text)
        .collect();
    entries.retain(|d| name_of(d).is_some() || known.insert(digest_text(d)));
}

/// JSON with sorted keys: the same value is always the same bytes.
pub(crate) fn canonical_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let ordered: BTreeMap<_, _> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
                serde_json::Value::Object(ordered.into_iter().collect())
            }
            serde_json::Value::Array(items) => items.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    let value = serde_json::to_value(value).expect("OCI documents have string keys");
    serde_json::to_vec(&sorted(value)).expect("a JSON value can be written")
}
