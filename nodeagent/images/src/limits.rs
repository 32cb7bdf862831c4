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
    /// Share of the file system that images leave free for all else, in percent. With less a node is short of space (Kubernetes'
    /// `nodefs.available<10%`), and takes no pods: an image that is taken must not be why.
    pub kept_free_percent: u64,
    /// Of its inodes, in percent (Kubernetes' `nodefs.inodesFree<5%`).
    pub kept_files_percent: u64,
    /// More than this need not be left free, in bytes: the disk of a lab is shared, and a tenth of it may be more than there ever is.
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
            kept_free_percent: 10,
            kept_files_percent: 5,
            kept_free_bytes: 2 << 30,
            folder_path_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// What is left free of a file system of so many bytes.
    pub fn kept_bytes(&self, total_bytes: u64) -> u64 {
        (total_bytes / 100 * self.kept_free_percent).min(self.kept_free_bytes)
    }

    /// And of one of so many inodes.
    pub fn kept_files(&self, total: u64) -> u64 {
        total / 100 * self.kept_files_percent
    }
}
