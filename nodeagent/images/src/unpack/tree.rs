//! Writes a tree below one folder and nowhere else. Every path is resolved by the kernel with the folder as its root
//! (openat2, RESOLVE_IN_ROOT), the last component is never followed. What lies below the layer: `lower.rs`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, mkdirat, mknodat,
    openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::archive::Meta;
use crate::beneath::open_in_root;
use crate::limits::Limits;
use crate::space::Budget;
use crate::walk::{OPAQUE_XATTR, Stack, is_whiteout, open_dir};

/// A folder, open, and a name in it.
pub(super) struct Place {
    /// The folder, opened inside the root.
    pub parent: Rc<OwnedFd>,
    pub(super) name: Vec<u8>,
}

impl Place {
    /// Another name in the same folder.
    pub(super) fn sibling(&self, name: &[u8]) -> Self {
        Self {
            parent: Rc::clone(&self.parent),
            name: name.to_vec(),
        }
    }

    pub(super) fn name(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.name))
    }
}

/// What is at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A folder.
    Dir,
    /// An overlayfs whiteout.
    Whiteout,
    /// Anything else.
    Other,
}

/// The tree being written.
pub(super) struct Tree<'a> {
    pub(super) root: Rc<OwnedFd>,
    /// The tree itself, and the layers below it.
    pub(super) stack: Stack,
    /// Whether what was written depends on the layers below.
    pub(super) depends: bool,
    /// What the image may still write.
    pub(super) budget: &'a mut Budget,
    /// The parent of the last place: entries come folder by folder.
    last: Option<(Vec<Vec<u8>>, Rc<OwnedFd>)>,
    /// Folder times are set at the end: writing into a folder changes them.
    dir_times: Vec<(PathBuf, u64)>,
    /// How much longer the paths in `dir_times` may become together, in bytes.
    path_bytes_left: usize,
}

impl<'a> Tree<'a> {
    /// The tree at `root`, over the layers at `lower`, top first.
    pub(super) fn open(
        root: &Path,
        lower: &[PathBuf],
        limits: &Limits,
        budget: &'a mut Budget,
    ) -> io::Result<Self> {
        let root: Rc<OwnedFd> = Rc::new(File::open(root)?.into());
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        let mut roots = vec![Rc::clone(&root)];
        for layer in lower {
            roots.push(Rc::new(File::open(layer)?.into()));
        }
        Ok(Self {
            root,
            stack: Stack::new(roots),
            depends: false,
            budget,
            last: None,
            dir_times: Vec::new(),
            path_bytes_left: limits.folder_path_bytes,
        })
    }

    /// Opens (and makes, where missing) the parent folders.
    pub(super) fn place(&mut self, parents: &[Vec<u8>], name: &[u8]) -> io::Result<Place> {
        if let Some((at, fd)) = &self.last
            && at == parents
        {
            return Ok(Place {
                parent: Rc::clone(fd),
                name: name.to_vec(),
            });
        }
        let fd = match self.dir(&join(parents)) {
            Ok(fd) => Rc::new(fd),
            // Not in this layer, or hidden by a whiteout of it.
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(parents)?,
            Err(e) => return Err(e.into()),
        };
        self.last = Some((parents.to_vec(), Rc::clone(&fd)));
        Ok(Place {
            parent: fd,
            name: name.to_vec(),
        })
    }

    pub(super) fn dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        open_in_root(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    pub(super) fn find(&self, place: &Place) -> io::Result<Found> {
        let stat = match statat(&*place.parent, place.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(e) => return Err(e.into()),
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Dir,
            _ if is_whiteout(&stat) => Found::Whiteout,
            _ => Found::Other,
        })
    }

    /// Removes what is there.
    pub(super) fn clear(&mut self, place: &Place) -> io::Result<()> {
        match self.find(place)? {
            Found::Nothing => return Ok(()),
            Found::Dir => remove_tree(place.parent.as_fd(), place.name())?,
            Found::Whiteout | Found::Other => unlinkat(&*place.parent, place.name(), AtFlags::empty())?,
        }
        // The cached parent may have been inside, or reached by a link that is gone.
        self.last = None;
        Ok(())
    }

    pub(super) fn set_root(&mut self, meta: &Meta) -> io::Result<()> {
        own(self.root.as_fd(), meta)?;
        self.remember_time(PathBuf::from("."), meta.mtime_s)
    }

    pub(super) fn make_dir(
        &mut self,
        place: &Place,
        meta: &Meta,
        xattrs: &[(String, Vec<u8>)],
    ) -> io::Result<()> {
        let found = self.find(place)?;
        if found != Found::Dir {
            self.clear(place)?;
            mkdirat(&*place.parent, place.name(), Mode::from_raw_mode(0o700))?;
        }
        let fd = open_dir(&*place.parent, place.name())?;
        if found == Found::Whiteout {
            opaque(fd.as_fd())?;
        }
        own(fd.as_fd(), meta)?;
        set_xattrs(fd.as_fd(), xattrs)?;
        self.remember_time(join(&split(&meta.path)), meta.mtime_s)
    }

    pub(super) fn remember_time(&mut self, path: PathBuf, mtime_s: u64) -> io::Result<()> {
        let left = self.path_bytes_left.checked_sub(path.as_os_str().len());
        self.path_bytes_left =
            left.ok_or_else(|| io::Error::other("has too many folders with long paths"))?;
        self.dir_times.push((path, mtime_s));
        Ok(())
    }

    pub(super) fn make_file(
        &mut self,
        place: &Place,
        meta: &Meta,
        xattrs: &[(String, Vec<u8>)],
        data: &mut dyn Read,
    ) -> io::Result<()> {
        self.clear(place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let mut file = File::from(openat(&*place.parent, place.name(), flags, mode)?);
        let written_bytes = self.budget.copy(data, &mut file)?;
        if written_bytes != meta.size_bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        own(file.as_fd(), meta)?;
        set_xattrs(file.as_fd(), xattrs)?;
        Ok(rustix::fs::futimens(&file, &times(meta.mtime_s))?)
    }

    pub(super) fn make_symlink(&mut self, place: &Place, meta: &Meta, target: &[u8]) -> io::Result<()> {
        self.clear(place)?;
        symlinkat(OsStr::from_bytes(target), &*place.parent, place.name())?;
        own_node(place, meta)
    }

    pub(super) fn make_fifo(&mut self, place: &Place, meta: &Meta) -> io::Result<()> {
        self.clear(place)?;
        let mode = Mode::from_raw_mode(meta.mode & 0o777);
        mknodat(&*place.parent, place.name(), FileType::Fifo, mode, 0)?;
        rustix::fs::chmodat(&*place.parent, place.name(), mode, AtFlags::empty())?;
        own_node(place, meta)
    }

    pub(super) fn make_whiteout(&mut self, place: &Place) -> io::Result<()> {
        Ok(mknodat(
            &*place.parent,
            place.name(),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )?)
    }

    pub(super) fn make_opaque(&mut self, dir: &OwnedFd) -> io::Result<()> {
        opaque(dir.as_fd())
    }

    pub(super) fn make_opaque_child(&mut self, place: &Place) -> io::Result<()> {
        opaque(open_dir(&*place.parent, place.name())?.as_fd())
    }

    /// Sets the folders' times.
    pub(super) fn finish(&self) -> io::Result<()> {
        for (path, mtime_s) in self.dir_times.iter().rev() {
            match self.dir(path) {
                Ok(fd) => rustix::fs::futimens(&fd, &times(*mtime_s))?,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/')
        .filter(|p| !matches!(*p, b"" | b"."))
        .map(<[u8]>::to_vec)
        .collect()
}

pub(super) fn join(parts: &[Vec<u8>]) -> PathBuf {
    parts.iter().map(|p| OsStr::from_bytes(p)).collect()
}

pub(super) fn opaque(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        dir,
        OPAQUE_XATTR,
        b"y",
        XattrFlags::empty(),
    )?)
}

/// Owner first: changing it clears set-id bits and capabilities.
fn own(fd: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode))?)
}

/// Owner and time of what cannot be opened.
fn own_node(place: &Place, meta: &Meta) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
    chownat(&*place.parent, place.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(
        &*place.parent,
        place.name(),
        &times(meta.mtime_s),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn set_xattrs(fd: BorrowedFd<'_>, xattrs: &[(String, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in xattrs {
        rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty())?;
    }
    Ok(())
}

pub(super) fn times(mtime_s: u64) -> Timestamps {
    let at = Timespec {
        tv_sec: i64::try_from(mtime_s).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

/// Removes a folder and what is in it, following no link.
fn remove_tree(parent: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    let dir = open_dir(parent, name)?;
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let child = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if matches!(child.as_os_str().as_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(&dir, child, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(dir.as_fd(), child)?,
            other => other?,
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}
