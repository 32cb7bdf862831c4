//! Follows a path inside a stack of trees, one over the other as overlayfs shows them; or inside one tree alone. Links are
//! followed by hand, name by name from open folders, so that nothing leads out of the stack.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::beneath;

/// Kernel Documentation/filesystems/overlayfs.rst.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Links on one way, as in the kernel (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;
/// Names still to follow: links in links could make many.
const MAX_NAMES: usize = 4096;

/// Trees, the top one first.
pub(crate) struct Stack {
    roots: Vec<Rc<OwnedFd>>,
}

/// Where a path leads.
pub(crate) struct Way {
    /// Names of the folders from the root, without links, as far as there are any.
    pub dirs: Vec<Vec<u8>>,
    /// The last of those, in each tree that has it.
    pub fds: Vec<Rc<OwnedFd>>,
    /// Names below it that do not exist.
    pub missing: Vec<Vec<u8>>,
    /// What stands at the end and is no folder.
    pub node: Option<Node>,
}

/// Something that is no folder.
pub(crate) struct Node {
    /// Its folder in its tree.
    pub parent: Rc<OwnedFd>,
    /// Its name there.
    pub name: Vec<u8>,
    /// Type, owner, mode, times.
    pub stat: Stat,
}

impl Node {
    /// The content of a regular file.
    pub(crate) fn read(&self, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let flags = beneath::READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&*self.parent, OsStr::from_bytes(&self.name), flags, Mode::empty())?;
        beneath::read(file, limit_bytes)
    }
}

enum Seen {
    Nothing,
    Dirs(Vec<Rc<OwnedFd>>),
    Node(Node),
}

impl Stack {
    /// Of folders that exist, top first.
    pub(crate) fn open(roots: &[PathBuf]) -> io::Result<Self> {
        let open = |root: &PathBuf| Ok(Rc::new(File::open(root)?.into()));
        Ok(Self::new(roots.iter().map(open).collect::<io::Result<_>>()?))
    }

    pub(crate) fn new(roots: Vec<Rc<OwnedFd>>) -> Self {
        Self { roots }
    }

    /// Follows `path`; a link at its end too, if `follow_last`. A file in a folder's place is an error (ENOTDIR).
    pub(crate) fn walk(&self, path: &[Vec<u8>], follow_last: bool) -> io::Result<Way> {
        let mut todo: Vec<Vec<u8>> = path.iter().rev().cloned().collect();
        let mut at = self.root();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if at.missing.pop().is_none() {
                        at.dirs.pop();
                        at.fds = self.folder(&at.dirs)?;
                    }
                    continue;
                }
                _ if !at.missing.is_empty() => {
                    at.missing.push(name);
                    continue;
                }
                _ => {}
            }
            match look(&at.fds, &name)? {
                Seen::Nothing => at.missing.push(name),
                Seen::Dirs(fds) => {
                    at.dirs.push(name);
                    at.fds = fds;
                }
                Seen::Node(node) if is_link(&node.stat) && (follow_last || !todo.is_empty()) => {
                    links += 1;
                    let target =
                        readlinkat(&*node.parent, OsStr::from_bytes(&name), Vec::new())?.into_bytes();
                    if target.first() == Some(&b'/') {
                        at = self.root();
                    }
                    todo.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                    if links > MAX_LINKS || todo.len() > MAX_NAMES {
                        return Err(Errno::LOOP.into());
                    }
                }
                Seen::Node(node) if todo.is_empty() => at.node = Some(node),
                Seen::Node(_) => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(at)
    }

    fn root(&self) -> Way {
        Way {
            dirs: Vec::new(),
            fds: self.roots.clone(),
            missing: Vec::new(),
            node: None,
        }
    }

    /// A folder by its names, none of which is a link, in each tree that has it.
    pub(crate) fn folder(&self, dirs: &[Vec<u8>]) -> io::Result<Vec<Rc<OwnedFd>>> {
        let mut fds = self.roots.clone();
        for name in dirs {
            match look(&fds, name)? {
                Seen::Dirs(next) => fds = next,
                Seen::Nothing => return Err(Errno::NOENT.into()),
                Seen::Node(_) => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(fds)
    }
}

/// What `name` is in a folder that several trees have.
fn look(fds: &[Rc<OwnedFd>], name: &[u8]) -> io::Result<Seen> {
    let path = Path::new(OsStr::from_bytes(name));
    let mut dirs = Vec::new();
    for fd in fds {
        match open_dir(fd, path) {
            Ok(dir) => {
                let hides = is_opaque(&dir);
                dirs.push(Rc::new(dir));
                if hides {
                    break;
                }
            }
            Err(Errno::NOENT) => {}
            // Something else, which hides what is below it. In a tree over it, a folder hides it in turn.
            Err(Errno::NOTDIR | Errno::LOOP) if dirs.is_empty() => {
                let stat = statat(&**fd, path, AtFlags::SYMLINK_NOFOLLOW)?;
                if is_whiteout(&stat) {
                    return Ok(Seen::Nothing);
                }
                let (parent, name) = (Rc::clone(fd), name.to_vec());
                return Ok(Seen::Node(Node { parent, name, stat }));
            }
            Err(Errno::NOTDIR | Errno::LOOP) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(if dirs.is_empty() {
        Seen::Nothing
    } else {
        Seen::Dirs(dirs)
    })
}

/// Opens a folder by its name in another; a link is none (ELOOP or ENOTDIR).
pub(crate) fn open_dir(parent: impl AsFd, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0_u8; 2];
    rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value[..]).is_ok_and(|len| value[..len] == *b"y")
}

/// A whiteout of overlayfs: device 0/0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}
