//! Extracts layers once, in the form that overlayfs takes as lower directories.

mod apply;
mod lower;
mod tree;

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::path::PathBuf;

use crate::archive::shown;
use crate::digest::{Digest, HashingReader};
use crate::space::Budget;
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
    /// It would take more space than there is for images.
    #[error(
        "cannot unpack layer {layer} of image {image}: {source}; remove images (`gantry image rm`) or enlarge the disk"
    )]
    NoSpace {
        /// The image.
        image: String,
        /// The layer's diff id.
        layer: Digest,
        /// How much there is.
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
    /// Makes sure that each layer of `image` is unpacked; where space is short, layers that nobody uses go first. A layer is written to a scratch folder, checked against its
    /// diff id, synced and only then renamed, so it is there completely or not at all.
    pub fn unpack(&self, image: &Image) -> Result<UnpackedImage, UnpackError> {
        let unpack = || self.unpack_from(image, &|blob| self.blob_path(blob));
        match unpack() {
            Err(UnpackError::NoSpace { .. }) if self.shed(Some(image))?.layers > 0 => unpack(),
            other => other,
        }
    }

    /// Like [`ImageStore::unpack`], with the blobs where `blob` says.
    pub(crate) fn unpack_from(
        &self,
        image: &Image,
        blob: &dyn Fn(&Digest) -> PathBuf,
    ) -> Result<UnpackedImage, UnpackError> {
        let mut unpacked = UnpackedImage {
            image: image.clone(),
            lowerdirs: Vec::new(),
            store: self.clone(),
        };
        let mut budget = None;
        let chain_ids = image.chain_ids();
        for (n, descriptor) in image.layers.iter().enumerate() {
            let layer = Layer {
                blob: blob(&crate::store::digest_of(descriptor)?),
                size_bytes: descriptor.size(),
                diff_id: &image.diff_ids[n],
                chain_id: &chain_ids[n],
            };
            let dir = match self.unpacked(&layer) {
                Some(dir) => dir,
                None => self.unpack_layer(&unpacked, &layer, &mut budget)?,
            };
            unpacked.lowerdirs.insert(0, dir);
        }
        Ok(unpacked)
    }

    /// Where a layer is unpacked, if it is.
    fn unpacked(&self, layer: &Layer<'_>) -> Option<PathBuf> {
        let names = layer_names(layer.diff_id, layer.chain_id);
        let dirs = names.map(|name| self.dir().join("layers").join(name));
        dirs.into_iter().find(|dir| dir.exists())
    }

    /// Unpacks a layer over those in `below`; returns where.
    fn unpack_layer(
        &self,
        below: &UnpackedImage,
        layer: &Layer<'_>,
        budget: &mut Option<Budget>,
    ) -> Result<PathBuf, UnpackError> {
        let (image, diff_id) = (&below.image, layer.diff_id);
        if !rustix::process::geteuid().is_root() {
            return Err(UnpackError::NotRoot {
                image: image.pinned(),
            });
        }
        let fail = |fault| match fault {
            Fault::Io(source) if source.kind() == ErrorKind::StorageFull => UnpackError::NoSpace {
                image: image.pinned(),
                layer: diff_id.clone(),
                source,
            },
            // Not the machine's error, so the archive's.
            Fault::Io(e) if e.raw_os_error().is_none() => UnpackError::Content {
                image: image.pinned(),
                layer: diff_id.clone(),
                path: "(archive)".to_owned(),
                why: shown(e.to_string().as_bytes()),
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
        let file = File::open(&layer.blob).map_err(|e| fail(e.into()))?;
        // Until the end: whoever else wants the layer waits here, and finds it done.
        file.lock().map_err(|e| fail(e.into()))?;
        if let Some(dir) = self.unpacked(layer) {
            return Ok(dir);
        }
        let scratch = self.scratch()?;
        let root = scratch.path().join("layer");
        fs::create_dir(&root).map_err(|e| fail(e.into()))?;
        let budget = match budget {
            Some(budget) => budget,
            None => budget.insert(Budget::new(&root, self.limits()).map_err(|e| fail(e.into()))?),
        };
        // Unpacked it is hardly smaller.
        budget.ask(layer.size_bytes).map_err(|e| fail(e.into()))?;
        let stream = file.try_clone().map_err(|e| fail(e.into()))?;
        let (found, depends) =
            apply::apply_stream(stream, &root, &below.lowerdirs, self.limits(), budget).map_err(fail)?;
        if found != *diff_id {
            let why = format!("the content has digest {found}");
            return Err(fail(Fault::Content("(whole layer)".to_owned(), why)));
        }
        let dir = File::open(&root).map_err(|e| fail(e.into()))?;
        rustix::fs::syncfs(&dir).map_err(|e| fail(io::Error::from(e).into()))?;
        let [own, over_those] = layer_names(diff_id, layer.chain_id);
        let to = self
            .dir()
            .join("layers")
            .join(if depends { over_those } else { own });
        let _lock = self.lock()?;
        match fs::rename(&root, &to) {
            // The same content in another blob was faster. XFS says that it exists, others that it is not empty.
            Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {}
            Err(e) => return Err(fail(e.into())),
            Ok(()) => crate::store::sync_dir(&self.dir().join("layers"))?,
        }
        Ok(to)
    }
}

/// A layer of an image.
struct Layer<'a> {
    blob: PathBuf,
    size_bytes: u64,
    diff_id: &'a Digest,
    chain_id: &'a Digest,
}

/// Folders that a layer may be unpacked in: what depends on nothing else has its diff id's name, what depends on the layers
/// below it that of all together.
pub(crate) fn layer_names(diff_id: &Digest, chain_id: &Digest) -> [String; 2] {
    [
        format!("sha256-{}", diff_id.hex()),
        format!("chain-{}", chain_id.hex()),
    ]
}

/// Recognises gzip and zstd by their first bytes; anything else is taken as plain.
pub(crate) fn decompress(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut magic = Vec::new();
    (&mut file).take(4).read_to_end(&mut magic)?;
    file.rewind()?;
    let buffered = BufReader::with_capacity(1 << 17, file);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        // A frame, or one to skip before it (RFC 8878; pzstd begins with such).
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            let mut decoder = zstd::Decoder::with_buffer(buffered)?;
            // 128 MiB of window at most, whatever the frame asks for.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', _] | [0xfd, b'7', b'z', b'X'] => {
            return Err(io::Error::other(
                "is compressed by bzip2 or xz; gzip and zstd are supported",
            ));
        }
        _ => Box::new(buffered),
    })
}

/// A reader over a layer blob's uncompressed stream, bounded.
fn layer_reader(file: File, limit_bytes: u64) -> io::Result<HashingReader<Box<dyn Read>>> {
    Ok(HashingReader::new(decompress(file)?, limit_bytes))
}
