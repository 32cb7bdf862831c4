//! A folder of this machine as a layer would hold it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, lgetxattr, llistxattr};
use rustix::io::Errno;
use tar::EntryType;

use crate::archive::Meta;
use crate::digest::{Digest, HashingWriter};
use crate::limits::Limits;

/// Entries by path without leading slash; the root's is empty.
pub(super) type Entries = BTreeMap<Vec<u8>, Meta>;

/// Extended attributes that an image may have of a package; others are of this machine or of a mount.
const XATTRS: [&str; 3] = [
    "security.capability",
    "system.posix_acl_access",
    "system.posix_acl_default",
];
/// xattr(7): no name list and no value is longer.
const XATTR_BYTES: usize = 64 << 10;

/// What was found below a folder.
pub(super) struct Tree {
    root: PathBuf,
    /// Everything but sockets. Times are left out: a layer has one for all.
    pub entries: Entries,
}

impl Tree {
    /// Reads what is below `root`; folders that `enter` refuses are listed without their content. Within the bounds of a layer.
    pub(super) fn read(root: &Path, limits: &Limits, enter: impl Fn(&[u8]) -> bool) -> io::Result<Self> {
        let mut tree = Self {
            root: root.to_owned(),
            entries: Entries::new(),
        };
        let mut first_names = HashMap::new();
        let mut size_bytes = 0_u64;
        let mut todo = vec![Vec::new()];
        while let Some(path) = todo.pop() {
            let Some(meta) = tree.meta(&path, &mut first_names)? else {
                continue;
            };
            size_bytes = size_bytes.saturating_add(meta.size_bytes);
            if meta.kind == EntryType::Directory && enter(&path) {
                todo.extend(tree.children(&path)?);
            }
            tree.entries.insert(path, meta);
            if tree.entries.len() as u64 > limits.layer_entries || size_bytes > limits.layer_bytes {
                return Err(io::Error::other(
                    "more files, or larger ones, than a layer may have",
                ));
            }
        }
        Ok(tree)
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    /// Sorted from the last, as a stack gives them back.
    fn children(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut children = Vec::new();
        for entry in fs::read_dir(self.at(path))? {
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend(entry?.file_name().as_bytes());
            children.push(child);
        }
        children.sort_by(|a, b| b.cmp(a));
        Ok(children)
    }

    fn meta(&self, path: &[u8], first_names: &mut HashMap<(u64, u64), Vec<u8>>) -> io::Result<Option<Meta>> {
        let at = self.at(path);
        let found = fs::symlink_metadata(&at)?;
        let kind = found.file_type();
        let (kind, mut link, size_bytes) = match kind {
            k if k.is_dir() => (EntryType::Directory, None, 0),
            k if k.is_file() => (EntryType::Regular, None, found.len()),
            k if k.is_symlink() => (
                EntryType::Symlink,
                Some(fs::read_link(&at)?.into_os_string().into_vec()),
                0,
            ),
            k if k.is_fifo() => (EntryType::Fifo, None, 0),
            k if k.is_char_device() => (EntryType::Char, None, 0),
            k if k.is_block_device() => (EntryType::Block, None, 0),
            _ => return Ok(None),
        };
        let mut meta = Meta {
            path: path.to_vec(),
            link: link.take(),
            kind,
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            mtime_s: 0,
            size_bytes,
            xattrs: xattrs(&at)?,
        };
        if kind == EntryType::Regular && found.nlink() > 1 {
            let first = first_names
                .entry((found.dev(), found.ino()))
                .or_insert_with(|| path.to_vec());
            if first != path {
                (meta.kind, meta.link, meta.size_bytes) = (EntryType::Link, Some(first.clone()), 0);
                meta.xattrs.clear();
            }
        }
        Ok(Some(meta))
    }

    /// The content of a regular file.
    pub(super) fn open(&self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(self.at(path), flags, Mode::empty())?))
    }

    /// Over all that the entries say, and all content.
    pub(super) fn digest(&self) -> io::Result<Digest> {
        let mut out = io::BufWriter::new(HashingWriter::new(io::sink()));
        for (path, meta) in &self.entries {
            writeln!(out, "{meta:?}")?;
            if meta.kind == EntryType::Regular {
                io::copy(&mut self.open(path)?, &mut out)?;
            }
        }
        let hashed = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(hashed.finish().1)
    }
}

fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0_u8; XATTR_BYTES];
    let len = match llistxattr(path, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    let mut found = Vec::new();
    for name in names[..len].split(|b| *b == 0) {
        let Some(name) = XATTRS.into_iter().find(|known| known.as_bytes() == name) else {
            continue;
        };
        let mut value = vec![0_u8; XATTR_BYTES];
        let len = lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_as_a_layer_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir(at("lists")).unwrap();
        fs::write(at("a/one"), "one").unwrap();
        fs::hard_link(at("a/one"), at("a/two")).unwrap();
        fs::write(at("lists/x"), "").unwrap();
        std::os::unix::fs::symlink("../nowhere", at("a/b/link")).unwrap();
        let limits = Limits::default();
        let tree = Tree::read(dir.path(), &limits, |path| path != b"lists").unwrap();
        let kinds: Vec<_> = tree
            .entries
            .iter()
            .map(|(path, meta)| {
                (
                    std::str::from_utf8(path).unwrap(),
                    meta.kind,
                    meta.link.as_deref(),
                )
            })
            .collect();
        let (folder, file) = (EntryType::Directory, EntryType::Regular);
        assert_eq!(
            kinds,
            [
                ("", folder, None),
                ("a", folder, None),
                ("a/b", folder, None),
                ("a/b/link", EntryType::Symlink, Some(&b"../nowhere"[..])),
                ("a/one", file, None),
                ("a/two", EntryType::Link, Some(&b"a/one"[..])),
                ("lists", folder, None),
            ]
        );
        let before = tree.digest().unwrap();
        assert_eq!(
            Tree::read(dir.path(), &limits, |path| path != b"lists")
                .unwrap()
                .digest()
                .unwrap(),
            before
        );
        fs::write(at("a/one"), "two").unwrap();
        assert_ne!(tree.digest().unwrap(), before);
        let few = Limits {
            layer_entries: 3,
            ..limits
        };
        assert!(Tree::read(dir.path(), &few, |_| true).is_err());
    }
}
