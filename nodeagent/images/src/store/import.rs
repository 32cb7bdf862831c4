//! Takes images from another OCI layout: a folder, or a tar of one (plain, gzip or zstd).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageManifest, Os};

use super::admit::StartError;
use super::{Image, ImageStore, ImageSummary, NewImage, Scratch, StoreError, blobs};
use crate::archive;
use crate::digest::{Digest, HashingReader, HashingWriter};
use crate::limits::Limits;
use crate::reference::{ImageName, ReferenceError};
use crate::space::Budget;
use crate::unpack::decompress;

/// An import failed; the store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read.
    #[error(
        "cannot import {path}: {what} cannot be read; give an OCI layout folder or a tar of one (`docker save` since 25, \
         `podman save --format oci-archive`, `skopeo copy ... oci-archive:FILE`)"
    )]
    Read {
        /// The source.
        path: PathBuf,
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source is not a valid OCI layout, or beyond the bounds.
    #[error("cannot import {path}: {why}")]
    Invalid {
        /// The source.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The name given, or one in the layout, is not an image name.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// No container could be started from it.
    #[error("cannot import {path}")]
    CannotStart {
        /// The source.
        path: PathBuf,
        /// What is wrong with which image.
        #[source]
        source: StartError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A source being read.
pub(super) struct Layout<'a> {
    /// What the user named, for messages.
    shown: &'a Path,
    dir: PathBuf,
    pub(super) limits: Limits,
}

impl ImageStore {
    /// Imports the images for this machine's platform from `path`. With `name`, exactly one image is taken and gets
    /// that name; without, every named one is taken. Every blob is checked against its digest and size, and that a container
    /// could be started (see [`ImageStore::check_start`]).
    pub fn import_layout(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImageSummary>, ImportError> {
        let name = name.map(ImageName::parse).transpose()?;
        let scratch = self.scratch()?;
        let limits = self.limits;
        let mut layout = Layout {
            shown: path,
            dir: path.to_owned(),
            limits,
        };
        if !path.is_dir() {
            layout.dir = scratch.path().join("layout");
            layout.extract_tar()?;
        }
        let candidates = layout.choose(name)?;
        let images = candidates
            .iter()
            .map(|(name, d)| layout.stage(&scratch, name, d))
            .collect::<Result<Vec<_>, _>>()?;
        for new in &images {
            self.check_start(&scratch, &new.image)
                .map_err(|source| ImportError::CannotStart {
                    path: path.to_owned(),
                    source,
                })?;
        }
        self.commit(&scratch, &images)?;
        Ok(self.list_named(|name| images.iter().any(|i| name == Some(i.name.as_str())))?)
    }
}

impl Layout<'_> {
    pub(super) fn invalid(&self, why: impl Into<String>) -> ImportError {
        ImportError::Invalid {
            path: self.shown.to_owned(),
            why: why.into(),
        }
    }

    fn read_error(&self, what: impl Into<String>) -> impl FnOnce(io::Error) -> ImportError {
        let (path, what) = (self.shown.to_owned(), what.into());
        move |source| ImportError::Read { path, what, source }
    }

    /// Takes only the files of a layout out of a tar; everything else in it is skipped.
    fn extract_tar(&self) -> Result<(), ImportError> {
        let fail = || self.read_error("the archive");
        fs::create_dir_all(self.dir.join("blobs/sha256")).map_err(fail())?;
        // A pipe is not opened: it would be waited for.
        if !fs::metadata(self.shown).map_err(fail())?.is_file() {
            return Err(self.invalid("it is neither a folder nor a file"));
        }
        let file = File::open(self.shown).map_err(fail())?;
        let mut budget = Budget::new(&self.dir, &self.limits).map_err(fail())?;
        let reader = decompress(file).map_err(fail())?;
        let bounds = HashingReader::new(reader, self.limits.blob_bytes.saturating_mul(4));
        archive::for_each::<_, io::Error>(bounds, &self.limits, |meta, data| {
            let Some(name) = layout_file(&meta.path).filter(|_| meta.kind.is_file()) else {
                return Ok(());
            };
            let mut out = File::create(self.dir.join(name))?;
            budget.copy(data, &mut out).map(|_| ())
        })
        .map_err(fail())
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, file: &str) -> Result<T, ImportError> {
        let path = self.dir.join(file);
        let bytes = blobs::read_bounded(&path, self.limits.document_bytes)
            .map_err(self.read_error(file.to_owned()))?;
        serde_json::from_slice(&bytes).map_err(|e| self.invalid(format!("{file} is not valid: {e}")))
    }

    fn digest(&self, d: &Descriptor) -> Result<Digest, ImportError> {
        Digest::parse(d.digest().as_ref()).ok_or_else(|| {
            self.invalid(format!(
                "digest {} is not sha256, which alone is supported",
                d.digest()
            ))
        })
    }

    pub(super) fn document<T: serde::de::DeserializeOwned>(
        &self,
        d: &Descriptor,
        what: &str,
    ) -> Result<T, ImportError> {
        let digest = self.digest(d)?;
        let path = self.dir.join("blobs/sha256").join(digest.hex());
        let bytes = blobs::read_bounded(&path, self.limits.document_bytes)
            .map_err(self.read_error(format!("{what} {digest}")))?;
        if Digest::of(&bytes) != digest || bytes.len() as u64 != d.size() {
            return Err(self.invalid(format!(
                "{what} {digest} does not have its digest and size; copy it again"
            )));
        }
        serde_json::from_slice(&bytes).map_err(|e| self.invalid(format!("{what} {digest} is not valid: {e}")))
    }

    /// Checks an image completely and copies its blobs into the scratch folder.
    fn stage(&self, scratch: &Scratch, name: &ImageName, d: &Descriptor) -> Result<NewImage, ImportError> {
        let manifest: ImageManifest = self.document(d, "manifest")?;
        let config: ImageConfiguration = self.document(manifest.config(), "config")?;
        if *config.os() != Os::Linux || *config.architecture() != Arch::default() {
            let platform = format!("{}/{}", config.os(), config.architecture());
            return Err(self.invalid(format!(
                "image {name} is for {}, this machine is linux/{}",
                platform.escape_debug(),
                Arch::default()
            )));
        }
        let image = Image::of(
            Some(name.to_string()),
            self.digest(d)?,
            &manifest,
            config,
            &self.limits,
        )
        .map_err(|why| self.invalid(format!("image {name}: {why}")))?;
        let mut blobs = Vec::new();
        for blob in [d, manifest.config()].into_iter().chain(manifest.layers()) {
            blobs.push(self.copy_blob(scratch, blob)?);
        }
        Ok(NewImage {
            name: name.clone(),
            image,
            size_bytes: d.size(),
            blobs,
            recipe_hash: None,
        })
    }

    fn copy_blob(&self, scratch: &Scratch, d: &Descriptor) -> Result<Digest, ImportError> {
        let digest = self.digest(d)?;
        let fail = || self.read_error(format!("blob {digest}"));
        if d.size() > self.limits.blob_bytes {
            let allowed = self.limits.blob_bytes;
            return Err(self.invalid(format!(
                "blob {digest} has {} bytes, {allowed} are allowed",
                d.size()
            )));
        }
        let budget = Budget::new(scratch.path(), &self.limits).map_err(fail())?;
        budget.ask(d.size()).map_err(fail())?;
        let from = self.dir.join("blobs/sha256").join(digest.hex());
        if !fs::symlink_metadata(&from).map_err(fail())?.is_file() {
            return Err(self.invalid(format!("blob {digest} is not a regular file")));
        }
        let mut reader = HashingReader::new(File::open(&from).map_err(fail())?, d.size());
        let mut writer = HashingWriter::new(File::create(scratch.path().join(digest.hex())).map_err(fail())?);
        io::copy(&mut reader, &mut writer).map_err(fail())?;
        let (file, real, len_bytes) = writer.finish();
        if real != digest || len_bytes != d.size() {
            return Err(self.invalid(format!(
                "blob {digest} does not have its digest and size; copy it again"
            )));
        }
        file.sync_all().map_err(fail())?;
        Ok(digest)
    }
}

/// The name of a layout's file if the tar entry is one: nothing else can be written.
fn layout_file(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.strip_prefix("./").unwrap_or(path);
    match path {
        "oci-layout" | "index.json" => Some(path.to_owned()),
        _ => Digest::from_hex(path.strip_prefix("blobs/sha256/")?).map(|_| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_layout_files_leave_a_tar() {
        let blob = format!("blobs/sha256/{}", "0".repeat(64));
        assert_eq!(layout_file(b"./index.json").as_deref(), Some("index.json"));
        assert_eq!(layout_file(blob.as_bytes()).as_deref(), Some(blob.as_str()));
        for bad in [
            "/index.json",
            "../index.json",
            "blobs/sha256/../../x",
            "blobs/sha256/aa",
            "manifest.json",
        ] {
            assert_eq!(layout_file(bad.as_bytes()), None, "{bad}");
        }
    }
}
