//! Extracts layers once, in the form that overlayfs takes as lower directories.

mod apply;
mod tree;

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, HashingReader};
use crate::store::{Image, ImageStore, StoreError};

/// A layer cannot be unpacked; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The layer's content is wrong, or beyond the bounds.
    #[error(
        "cannot unpack layer {layer} of image {image}: {path}: {why}; the image is damaged or hostile, build or import a good one"
    )]
    Content {
        /// The image.
        image: String,
        /// The layer's diff id.
        layer: Digest,
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The layer cannot be read, or its tree cannot be written.
    #[error(
        "cannot unpack layer {layer} of image {image}: it cannot be read or written; check free space, or build (with --no-cache) or import the image again"
    )]
    Io {
        /// The image.
        image: String,
        /// The layer's diff id.
        layer: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Ownership and whiteouts need root.
    #[error("cannot unpack image {image} as an ordinary user: run as root (sudo)")]
    NotRoot {
        /// The image.
        image: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image ready to be mounted.
#[derive(Clone, Debug)]
pub struct UnpackedImage {
    /// The image.
    pub image: Image,
    /// Lower directories, top first, as overlayfs wants them.
    pub lowerdirs: Vec<PathBuf>,
    /// The store, for the lease.
    pub(crate) store: ImageStore,
}

/// Why applying one entry failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The entry must not be.
    Content(String, String),
    /// The stream or the tree failed.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl ImageStore {
    /// Makes sure that each layer of `image` is unpacked. A layer is written to a scratch folder, checked against its
    /// diff id, synced and only then renamed, so it is there completely or not at all.
    pub fn unpack(&self, image: &Image) -> Result<UnpackedImage, UnpackError> {
        let mut lowerdirs = Vec::new();
        for (descriptor, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            let target = self.layer_dir(diff_id);
            if !target.exists() {
                let blob =
                    Digest::parse(descriptor.digest().as_ref()).ok_or_else(|| StoreError::Invalid {
                        what: "layer digest",
                        image: image.pinned(),
                        why: "only sha256 is supported".to_owned(),
                    })?;
                self.unpack_layer(image, &blob, diff_id, &target)?;
            }
            lowerdirs.push(target);
        }
        lowerdirs.reverse();
        Ok(UnpackedImage {
            image: image.clone(),
            lowerdirs,
            store: self.clone(),
        })
    }

    pub(crate) fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.dir()
            .join("layers")
            .join(format!("sha256-{}", diff_id.hex()))
    }

    fn unpack_layer(
        &self,
        image: &Image,
        blob: &Digest,
        diff_id: &Digest,
        to: &Path,
    ) -> Result<(), UnpackError> {
        if !rustix::process::geteuid().is_root() {
            return Err(UnpackError::NotRoot {
                image: image.pinned(),
            });
        }
        let fail = |fault| match fault {
            // Not the machine's error, so the archive's.
            Fault::Io(e) if e.raw_os_error().is_none() => UnpackError::Content {
                image: image.pinned(),
                layer: diff_id.clone(),
                path: "(archive)".to_owned(),
                why: e.to_string(),
            },
            Fault::Io(source) => UnpackError::Io {
                image: image.pinned(),
                layer: diff_id.clone(),
                source,
            },
            Fault::Content(path, why) => UnpackError::Content {
                image: image.pinned(),
                layer: diff_id.clone(),
                path,
                why,
            },
        };
        let file = File::open(self.blob_path(blob)).map_err(|e| fail(e.into()))?;
        // Until the end: whoever else wants the layer waits here, and finds it done.
        file.lock().map_err(|e| fail(e.into()))?;
        if to.exists() {
            return Ok(());
        }
        let scratch = self.scratch()?;
        let root = scratch.path().join("layer");
        fs::create_dir(&root).map_err(|e| fail(e.into()))?;
        let stream = file.try_clone().map_err(|e| fail(e.into()))?;
        let found = apply::apply_stream(stream, &root, self.limits()).map_err(fail)?;
        if found != *diff_id {
            let why = format!("the content has digest {found}");
            return Err(fail(Fault::Content("(whole layer)".to_owned(), why)));
        }
        let dir = File::open(&root).map_err(|e| fail(e.into()))?;
        rustix::fs::syncfs(&dir).map_err(|e| fail(io::Error::from(e).into()))?;
        let _lock = self.lock()?;
        match fs::rename(&root, to) {
            // The same content in another blob was faster. XFS says that it exists, others that it is not empty.
            Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => Ok(()),
            Err(e) => Err(fail(e.into())),
            Ok(()) => Ok(crate::store::sync_dir(&self.dir().join("layers"))?),
        }
    }
}

/// Recognises gzip and zstd by their first bytes; anything else is taken as plain.
pub(crate) fn decompress(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut magic = Vec::new();
    (&mut file).take(4).read_to_end(&mut magic)?;
    file.rewind()?;
    let buffered = BufReader::with_capacity(1 << 17, file);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::Decoder::with_buffer(buffered)?;
            // 128 MiB of window at most, whatever the frame asks for.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
        _ => Box::new(buffered),
    })
}

/// A reader over a layer blob's uncompressed stream, bounded.
fn layer_reader(file: File, limit_bytes: u64) -> io::Result<HashingReader<Box<dyn Read>>> {
    Ok(HashingReader::new(decompress(file)?, limit_bytes))
}
