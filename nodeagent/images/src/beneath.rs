//! Opens files inside a folder that others may have filled: the kernel keeps the path inside (openat2(2)).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Renames elsewhere make openat2 give up on paths with `..` (EAGAIN); this often it is asked again.
const ATTEMPTS: usize = 1000;

/// Opens with `dir` as the root for absolute links and `..`.
pub(crate) fn open_in_root(dir: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open(dir, path, flags, ResolveFlags::IN_ROOT)
}

/// Opens what is in `dir`; paths and links that leave it are refused.
pub fn open_beneath(dir: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open(dir, path, flags, ResolveFlags::BENEATH)
}

/// Reads a regular file; refuses paths and links that leave `dir`.
pub(crate) fn read_beneath(dir: impl AsFd, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    read(open_beneath(dir, path, READ)?, limit_bytes)
}

/// Reads a regular file with `dir` as the root.
pub(crate) fn read_in_root(dir: impl AsFd, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    read(open(dir, path, READ, ResolveFlags::IN_ROOT)?, limit_bytes)
}

/// NONBLOCK: a FIFO in a file's place must not hang us.
pub(crate) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn open(dir: impl AsFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let (flags, resolve) = (flags | OFlags::CLOEXEC, resolve | ResolveFlags::NO_MAGICLINKS);
    for _ in 1..ATTEMPTS {
        match openat2(dir.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    openat2(dir.as_fd(), path, flags, Mode::empty(), resolve)
}

pub(crate) fn read(fd: OwnedFd, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut content = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit_bytes {
        return Err(io::Error::other(format!(
            "larger than the {limit_bytes} bytes allowed"
        )));
    }
    Ok(content)
}
