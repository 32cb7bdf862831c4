//! Writes one layer deterministically: tar, diff id, zstd, digest in one pass.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{EntryType, Header};

use super::EPOCH_S;
use super::tree::{Entries, Tree};
use crate::archive::Meta;
use crate::digest::{Digest, HashingWriter};

/// Speed over size: images stay on the machine.
const ZSTD_LEVEL: i32 = 3;

/// An entry of root's, without content yet.
pub(super) fn entry(path: &[u8], kind: EntryType, mode: u32, size_bytes: u64) -> Meta {
    Meta {
        path: path.to_vec(),
        link: None,
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime_s: 0,
        size_bytes,
        xattrs: Vec::new(),
    }
}

/// Writes entries whose content is in `tree`; those that it lacks have none.
pub(super) fn write_layer(dir: &Path, entries: &Entries, tree: &Tree, what: String) -> io::Result<Layer> {
    let mut writer = LayerWriter::create(dir)?;
    for (path, meta) in entries {
        if meta.kind == EntryType::Regular && meta.size_bytes > 0 {
            writer.append(meta, tree.open(path)?.take(meta.size_bytes))?;
        } else {
            writer.append(meta, io::empty())?;
        }
    }
    writer.finish(what)
}

/// A finished layer; its file in the scratch folder is named by the digest's hex digits.
#[derive(Clone)]
pub(super) struct Layer {
    /// What is in it, for the history.
    pub what: String,
    /// Digest of the compressed file.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
    /// Digest of the tar.
    pub diff_id: Digest,
}

type Compressed = zstd::Encoder<'static, HashingWriter<File>>;

/// A layer being written. Entries must come sorted.
pub(super) struct LayerWriter<'a> {
    dir: &'a Path,
    tar: tar::Builder<HashingWriter<Compressed>>,
}

impl<'a> LayerWriter<'a> {
    pub(super) fn create(dir: &'a Path) -> io::Result<Self> {
        let file = File::create(dir.join("layer.new"))?;
        let compressed = zstd::Encoder::new(HashingWriter::new(file), ZSTD_LEVEL)?;
        Ok(Self {
            dir,
            tar: tar::Builder::new(HashingWriter::new(compressed)),
        })
    }

    /// Appends an entry at `meta.path`, with the fixed time.
    pub(super) fn append(&mut self, meta: &Meta, data: impl Read) -> io::Result<()> {
        if !meta.xattrs.is_empty() {
            let mut xattrs: Vec<_> = meta
                .xattrs
                .iter()
                .map(|(k, v)| (format!("SCHILY.xattr.{k}"), v.as_slice()))
                .collect();
            xattrs.sort();
            self.tar
                .append_pax_extensions(xattrs.iter().map(|(k, v)| (k.as_str(), *v)))?;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(meta.kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(EPOCH_S);
        header.set_size(if meta.kind == EntryType::Regular {
            meta.size_bytes
        } else {
            0
        });
        let path = match meta.path.as_slice() {
            b"" => Path::new("./"),
            other => Path::new(OsStr::from_bytes(other)),
        };
        match &meta.link {
            Some(link) if matches!(meta.kind, EntryType::Symlink | EntryType::Link) => {
                // Short targets as they are: append_link normalises them as paths.
                if header.set_link_name_literal(link).is_ok() {
                    return self.tar.append_data(&mut header, path, io::empty());
                }
                self.tar.append_link(&mut header, path, OsStr::from_bytes(link))
            }
            _ => self.tar.append_data(&mut header, path, data),
        }
    }

    pub(super) fn finish(self, what: String) -> io::Result<Layer> {
        let (compressed, diff_id, _) = self.tar.into_inner()?.finish();
        let (file, digest, size_bytes) = compressed.finish()?.finish();
        file.sync_all()?;
        std::fs::rename(self.dir.join("layer.new"), self.dir.join(digest.hex()))?;
        Ok(Layer {
            what,
            digest,
            size_bytes,
            diff_id,
        })
    }
}
