//! Mounts on the host below a directory.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

/// Mount points at or below `dir`, innermost first (`proc_pid_mountinfo(5)` lists parents before children). The kernel names
/// them without links and `..`, so `dir` is looked up in the same way; below one that does not exist there is none.
pub(crate) fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = match fs::canonicalize(dir) {
        Ok(dir) => dir,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let table = fs::read("/proc/self/mountinfo")?;
    let points = table
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(unescape);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(&dir)).collect();
    found.reverse();
    Ok(found)
}

/// Whether something is mounted exactly here: the table of all mounts is not read for it. False for what does not exist.
pub(crate) fn is_point(path: &Path) -> io::Result<bool> {
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Takes away what is mounted exactly here, however often.
pub(crate) fn unmount_at(path: &Path) -> io::Result<()> {
    while is_point(path)? {
        umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

/// Unmounts everything at or below `dir`, innermost first; what is busy is detached. Returns how many.
pub(crate) fn unmount_below(dir: &Path) -> Result<usize, (PathBuf, io::Error)> {
    let points = below(dir).map_err(|e| (dir.to_owned(), e))?;
    for point in &points {
        let unmounted = umount2(point, MntFlags::UMOUNT_NOFOLLOW)
            .or_else(|_| umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW));
        match unmounted {
            // EINVAL: no mount point any more, somebody else was quicker.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(e) => return Err((point.clone(), e.into())),
        }
    }
    Ok(points.len())
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\' && tail.len() >= 3)
            .then(|| {
                std::str::from_utf8(&tail[..3])
                    .ok()
                    .and_then(|s| u8::from_str_radix(s, 8).ok())
            })
            .flatten();
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_escaped_names() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(br"/plain\"), Path::new(r"/plain\"));
    }
}
