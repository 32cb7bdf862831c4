//! A folder of a catalog that somebody else has made: nothing of it leads out of it. A link is refused, whatever it points at,
//! for what a package brings is deployed; so is what is no plain file, and what is too large to be a part of a package.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;

/// Most bytes of one file: that of a descriptor, and more than all templates of a package together may have.
const MOST_BYTES: u64 = gantry_catalog::MAX_DESCRIPTOR_BYTES as u64;

/// An open folder, and its path for people.
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// The catalog itself; whoever names it may name a link.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("cannot read the catalog directory {}", path.display()))?;
        let path = path.to_owned();
        Ok(Self { fd, path })
    }

    /// Where it is, for people.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it, if there is one.
    pub(super) fn folder(&self, name: &str) -> Result<Option<Self>> {
        let path = self.path.join(name);
        match self.kind(name)? {
            None => return Ok(None),
            Some(FileType::Directory) => {}
            Some(_) => bail!("{} is no directory", path.display()),
        }
        let fd = self
            .open_in(name, OFlags::DIRECTORY)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(Self { fd, path }))
    }

    /// The names in it for which there is a use, sorted: of folders, or of files but for those for people (`*.md`).
    pub(super) fn names(&self, folders: bool) -> Result<Vec<String>> {
        let unreadable = || format!("cannot read {}", self.path.display());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if [".", ".."].contains(&name.as_str()) || name.ends_with(".md") {
                continue;
            }
            let is_folder = self.kind(&name)? == Some(FileType::Directory);
            if is_folder == folders {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The text of a plain file in it.
    pub(super) fn read(&self, name: &str) -> Result<String> {
        let path = self.path.join(name);
        let read = || -> io::Result<String> {
            // NONBLOCK: what has come into the file's place meanwhile must not be waited for.
            let file = File::from(self.open_in(name, OFlags::NONBLOCK)?);
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no plain file"));
            }
            let mut bytes = Vec::new();
            file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > MOST_BYTES {
                let why =
                    format!("it is larger than {MOST_BYTES} bytes, the most that a file of a catalog has");
                return Err(io::Error::other(why));
            }
            String::from_utf8(bytes).map_err(io::Error::other)
        };
        read().with_context(|| format!("cannot read {} as text", path.display()))
    }

    /// What there is by this name: a folder, or a plain file. All else is refused.
    fn kind(&self, name: &str) -> Result<Option<FileType>> {
        let path = self.path.join(name);
        let found = match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            found => found.with_context(|| format!("cannot read {}", path.display()))?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            kind @ (FileType::Directory | FileType::RegularFile) => Ok(Some(kind)),
            FileType::Symlink => bail!(
                "{} is a symbolic link: a catalog has plain files only, put a copy in its place",
                path.display()
            ),
            _ => bail!("{} is no plain file", path.display()),
        }
    }

    fn open_in(&self, name: &str, more: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | more;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.fd, name, flags, Mode::empty(), resolve)
    }
}
