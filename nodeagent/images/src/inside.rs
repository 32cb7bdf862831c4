//! Makes what a container's start needs inside its root file system: mount points and its working directory. Links on the
//! way are followed inside the root only, also such as lead to nothing yet (`/etc/resolv.conf` of many distributions).

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat};
use rustix::io::Errno;

use crate::walk::{Stack, Way, open_dir};

/// Mode of folders on the way to what is made.
const DIR_MODE: u32 = 0o755;
/// Mode of a file that is mounted over.
const FILE_MODE: u32 = 0o644;

/// Makes the folder `path` inside `root`, with those on the way, where they are missing. They belong to user and group `owner`, if that
/// is not the caller.
pub fn make_dir(root: &Path, path: &Path, owner: Option<u32>) -> io::Result<()> {
    let way = walk(root, path)?;
    if way.node.is_some() {
        return Err(Errno::NOTDIR.into());
    }
    make_missing(&way, &way.missing, owner).map(drop)
}

/// Makes the empty file `path` inside `root`, with the folders on the way, where it is missing.
pub fn make_file(root: &Path, path: &Path, owner: Option<u32>) -> io::Result<()> {
    let way = walk(root, path)?;
    match (&way.node, way.missing.split_last()) {
        // Whatever else it is: it is mounted over.
        (Some(_), _) => Ok(()),
        (None, None) => Err(Errno::ISDIR.into()),
        (None, Some((name, parents))) => {
            let dir = make_missing(&way, parents, owner)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(FILE_MODE);
            let file = openat(&*dir, OsStr::from_bytes(name), flags, mode)?;
            fchmod(&file, mode)?;
            give(&file, owner)
        }
    }
}

fn walk(root: &Path, path: &Path) -> io::Result<Way> {
    let stack = Stack::open(&[root.to_owned()])?;
    let parts = path.as_os_str().as_bytes().split(|b| *b == b'/');
    let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    stack.walk(&parts, true)
}

fn make_missing(way: &Way, names: &[Vec<u8>], owner: Option<u32>) -> io::Result<Rc<OwnedFd>> {
    // One tree, so one folder.
    let mut dir = way.fds.first().cloned().ok_or(Errno::NOENT)?;
    for name in names {
        let name = Path::new(OsStr::from_bytes(name));
        let mode = Mode::from_raw_mode(DIR_MODE);
        mkdirat(&*dir, name, mode)?;
        let made = open_dir(&*dir, name)?;
        // Whatever the umask is.
        fchmod(&made, mode)?;
        give(&made, owner)?;
        dir = Rc::new(made);
    }
    Ok(dir)
}

fn give(made: &OwnedFd, owner: Option<u32>) -> io::Result<()> {
    match owner {
        Some(id) => Ok(fchown(made, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_nowhere_but_inside() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("run")).unwrap();
        fs::create_dir_all(root.join("var")).unwrap();
        symlink("../run", root.join("var/run")).unwrap();
        symlink("../run/systemd/resolve/stub.conf", root.join("etc/resolv.conf")).unwrap();
        symlink("/../../../../data", root.join("out")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        fs::write(root.join("file"), "kept").unwrap();

        make_dir(&root, Path::new("/var/run/app/x"), None).unwrap();
        assert!(root.join("run/app/x").is_dir());
        make_file(&root, Path::new("/etc/resolv.conf"), None).unwrap();
        assert!(root.join("run/systemd/resolve/stub.conf").is_file());
        make_dir(&root, Path::new("/out/../out/deep"), None).unwrap();
        assert!(root.join("data/deep").is_dir() && !tmp.path().join("data").exists());
        make_dir(&root, Path::new("/../../up"), None).unwrap();
        assert!(root.join("up").is_dir());
        make_file(&root, Path::new("/file"), None).unwrap();
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "kept");

        for (refused, errno) in [
            ("/loop/x", Errno::LOOP),
            ("/file/x", Errno::NOTDIR),
            ("/file", Errno::NOTDIR),
        ] {
            let error = make_dir(&root, Path::new(refused), None).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{refused}");
        }
        assert!(make_file(&root, Path::new("/etc"), None).is_err());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
    }
}
