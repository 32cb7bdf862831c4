//! What a layer takes from those below it: folders that its archive leaves out are as they are there, links there lead
//! where they lead, and a file there may get one more name. Such a layer unpacks to something else over other layers.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, chownat, fchmod, fchown, fgetxattr,
    flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::tree::{Found, Place, Tree, join, opaque, times};
use crate::walk::{Node, open_dir};

/// Most that the names of a file's extended attributes, or the value of one, may have in bytes (xattr(7): 64 KiB).
const XATTR_BYTES: usize = 64 << 10;
/// Mode of a folder that no layer describes.
const DIR_MODE: u32 = 0o755;

impl Tree<'_> {
    /// Makes the folders `parents`, which this layer lacks at least in part.
    pub(super) fn make_parents(&mut self, parents: &[Vec<u8>]) -> io::Result<Rc<OwnedFd>> {
        self.depends = true;
        let way = self.stack.walk(parents, true)?;
        if way.node.is_some() {
            return Err(Errno::NOTDIR.into());
        }
        let mut dir = self.copy_dirs(&way.dirs)?;
        for name in &way.missing {
            self.budget.entry()?;
            let place = Place {
                parent: Rc::clone(&dir),
                name: name.clone(),
            };
            let hides = self.find(&place)? == Found::Whiteout;
            if hides {
                unlinkat(&*dir, place.name(), AtFlags::empty())?;
            }
            let made = make_dir(&place, Mode::from_raw_mode(DIR_MODE))?;
            if hides {
                opaque(made.as_fd())?;
            }
            dir = made;
        }
        Ok(dir)
    }

    /// Makes folders that some layer has, none by a link, in this one as they are there.
    fn copy_dirs(&mut self, names: &[Vec<u8>]) -> io::Result<Rc<OwnedFd>> {
        let mut dir = Rc::clone(&self.root);
        for depth in 0..names.len() {
            let place = Place {
                parent: Rc::clone(&dir),
                name: names[depth].clone(),
            };
            dir = match open_dir(&*dir, place.name()) {
                Ok(own) => Rc::new(own),
                Err(Errno::NOENT) => {
                    let below = self.stack.folder(&names[..=depth])?;
                    let below = below.first().ok_or(Errno::NOENT)?;
                    let stat = fstat(&**below)?;
                    self.budget.entry()?;
                    let made = make_dir(&place, Mode::from_raw_mode(0o700))?;
                    describe(below.as_fd(), made.as_fd(), &stat)?;
                    self.remember_time(join(&names[..=depth]), seconds(&stat))?;
                    made
                }
                Err(e) => return Err(e.into()),
            };
        }
        Ok(dir)
    }

    /// Gives what is at `parents/name` one more name; its last component is not followed.
    pub(super) fn make_hardlink(
        &mut self,
        place: &Place,
        parents: &[Vec<u8>],
        name: &[u8],
    ) -> io::Result<()> {
        let own = match self.dir(&join(parents)) {
            Ok(parent) => Some(Place {
                parent: Rc::new(parent),
                name: name.to_vec(),
            }),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(e) => return Err(e.into()),
        };
        let found = own.as_ref().map_or(Ok(Found::Nothing), |own| self.find(own))?;
        let target = match (own, found) {
            (Some(own), Found::Other) => own,
            (_, Found::Dir) => return Err(Errno::PERM.into()),
            (_, Found::Whiteout) => return Err(Errno::NOENT.into()),
            _ => self.copy_up(parents, name)?,
        };
        let stat =
            |p: &Place| statat(&*p.parent, p.name(), AtFlags::SYMLINK_NOFOLLOW).map(|s| (s.st_dev, s.st_ino));
        if stat(place).ok() == Some(stat(&target)?) {
            return Ok(());
        }
        self.clear(place)?;
        let none = AtFlags::empty();
        Ok(linkat(
            &*target.parent,
            target.name(),
            &*place.parent,
            place.name(),
            none,
        )?)
    }

    /// Copies what a layer below has at `parents/name` to the same place in this one.
    fn copy_up(&mut self, parents: &[Vec<u8>], name: &[u8]) -> io::Result<Place> {
        self.depends = true;
        let mut path = parents.to_vec();
        path.push(name.to_vec());
        let way = self.stack.walk(&path, false)?;
        let Some(node) = way.node else {
            let missing = !way.missing.is_empty();
            return Err(if missing { Errno::NOENT } else { Errno::PERM }.into());
        };
        let parent = self.copy_dirs(&way.dirs)?;
        let place = Place {
            parent,
            name: node.name.clone(),
        };
        if self.find(&place)? == Found::Nothing {
            self.budget.entry()?;
            self.copy_node(&node, &place)?;
        }
        Ok(place)
    }

    fn copy_node(&mut self, node: &Node, to: &Place) -> io::Result<()> {
        let name = Path::new(OsStr::from_bytes(&node.name));
        let (uid, gid) = owner(&node.stat);
        let at = times(seconds(&node.stat));
        match FileType::from_raw_mode(node.stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut from = File::from(openat(&*node.parent, name, flags, Mode::empty())?);
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(&*to.parent, to.name(), flags, Mode::from_raw_mode(0o600))?;
                let mut made = File::from(made);
                self.budget.copy(&mut from, &mut made)?;
                describe(from.as_fd(), made.as_fd(), &node.stat)?;
                return Ok(futimens(&made, &at)?);
            }
            FileType::Symlink => {
                let target = readlinkat(&*node.parent, name, Vec::new())?;
                symlinkat(target, &*to.parent, to.name())?;
            }
            FileType::Fifo => {
                let mode = Mode::from_raw_mode(node.stat.st_mode & 0o777);
                mknodat(&*to.parent, to.name(), FileType::Fifo, mode, 0)?;
                rustix::fs::chmodat(&*to.parent, to.name(), mode, AtFlags::empty())?;
            }
            _ => return Err(Errno::PERM.into()),
        }
        chownat(&*to.parent, to.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(utimensat(&*to.parent, to.name(), &at, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn make_dir(place: &Place, mode: Mode) -> io::Result<Rc<OwnedFd>> {
    mkdirat(&*place.parent, place.name(), mode)?;
    let made = open_dir(&*place.parent, place.name())?;
    // Whatever the umask is.
    fchmod(&made, mode)?;
    Ok(Rc::new(made))
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn seconds(stat: &Stat) -> u64 {
    u64::try_from(stat.st_mtime).unwrap_or(0)
}

/// Owner, mode and extended attributes of another; what overlayfs keeps there stays there.
fn describe(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(to, uid, gid)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0_u8; XATTR_BYTES];
    let len = match flistxattr(from, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    let mut value = vec![0_u8; XATTR_BYTES];
    for name in names[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if name.starts_with(b"trusted.") || name == b"security.selinux" {
            continue;
        }
        let name = OsStr::from_bytes(name);
        let len = fgetxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, &value[..len], XattrFlags::empty())?;
    }
    Ok(())
}
