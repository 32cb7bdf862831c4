//! Bounds on what an image may make this machine read, write and remember.

/// Upper bounds; everything beyond is refused. The defaults fit network-function images with room to spare.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest index, manifest or config document, in bytes.
    pub document_bytes: u64,
    /// Most layers of an image.
    pub layers: usize,
    /// Most manifests that a layout's index may list.
    pub manifests: usize,
    /// Largest compressed layer, in bytes.
    pub blob_bytes: u64,
    /// Largest uncompressed layer tar stream, in bytes.
    pub layer_bytes: u64,
    /// Most entries of a layer.
    pub layer_entries: u64,
    /// Largest extended header (long name, PAX records with xattrs) of one entry, in bytes.
    pub extension_bytes: u64,
    /// Most that the layers of an image may unpack to together, in bytes; a file counts as at least a block.
    pub image_bytes: u64,
    /// Most files, folders and links of an image's layers together.
    pub image_entries: u64,
    /// Share of the file system that images leave free for all else, in percent; of its inodes too.
    pub kept_free_percent: u64,
    /// More than this need not be left free, in bytes.
    pub kept_free_bytes: u64,
    /// Paths of a layer's folders together, in bytes: they are remembered until all else is written.
    pub folder_path_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 4 << 20,
            layers: 127,
            manifests: 1024,
            blob_bytes: 8 << 30,
            layer_bytes: 16 << 30,
            layer_entries: 1_000_000,
            extension_bytes: 1 << 20,
            image_bytes: 32 << 30,
            image_entries: 2_000_000,
            kept_free_percent: 5,
            kept_free_bytes: 2 << 30,
            folder_path_bytes: 64 << 20,
        }
    }
}
