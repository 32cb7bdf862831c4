//! Removes a tree that others have filled, however deep it is. The standard library's way keeps a descriptor and a buffer for
//! each level, and containers nest as deep as they like.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

/// Levels that are open at once. What is deeper is moved up to the top first.
const OPEN_AT_ONCE: usize = 64;

/// Removes a folder and all that is in it, or a file; no link is followed. Nothing may be mounted below, and nothing write there.
/// Fails with `NotFound` if there is nothing.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let Some(top) = open(CWD, path)? else {
        return Ok(unlinkat(CWD, path, AtFlags::empty())?);
    };
    let mut tree = Tree {
        levels: vec![(top, CString::default())],
        moved: 0,
    };
    loop {
        tree.empty()?;
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            // What was moved up came after its reading.
            Err(Errno::NOTEMPTY | Errno::EXIST) => tree.levels[0].0.rewind(),
            done => return Ok(done?),
        }
    }
}

struct Tree {
    /// Open folders from the top, each with its name in the one above.
    levels: Vec<(Dir, CString)>,
    /// Folders moved to the top so far.
    moved: u64,
}

impl Tree {
    /// Reads the top to its end, and all below it.
    fn empty(&mut self) -> io::Result<()> {
        loop {
            let depth = self.levels.len();
            let (dir, _) = &mut self.levels[depth - 1];
            let Some(entry) = dir.read() else {
                if depth == 1 {
                    return Ok(());
                }
                self.leave()?;
                continue;
            };
            let name = entry?.file_name().to_owned();
            if [c".", c".."].contains(&name.as_c_str()) {
                continue;
            }
            match unlinkat(dir.fd()?, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // EPERM: POSIX' answer to a folder.
                Err(Errno::ISDIR | Errno::PERM) => self.enter(name)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn enter(&mut self, name: CString) -> io::Result<()> {
        let above = self.levels[self.levels.len() - 1].0.fd()?;
        match unlinkat(above, &name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return Ok(done?),
        }
        if self.levels.len() < OPEN_AT_ONCE {
            let path = Path::new(OsStr::from_bytes(name.as_bytes()));
            let inner = open(above, path)?.ok_or(Errno::PERM)?;
            self.levels.push((inner, name));
            return Ok(());
        }
        let top = self.levels[0].0.fd()?;
        loop {
            self.moved += 1;
            let place = format!("removed-{}", self.moved);
            match renameat_with(above, &name, top, place, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                done => return Ok(done?),
            }
        }
    }

    /// The last one was read to its end.
    fn leave(&mut self) -> io::Result<()> {
        let last = self.levels.len() - 1;
        let above = self.levels[last - 1].0.fd()?;
        match unlinkat(above, &self.levels[last].1, AtFlags::REMOVEDIR) {
            // A file system whose listing skips names when others are removed.
            Err(Errno::NOTEMPTY | Errno::EXIST) => self.levels[last].0.rewind(),
            done => {
                done?;
                self.levels.pop();
            }
        }
        Ok(())
    }
}

/// A folder; `None` if it is none.
fn open(above: impl std::os::fd::AsFd, path: &Path) -> io::Result<Option<Dir>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(above, path, flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => Ok(Some(Dir::new(opened?)?)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_of_any_depth_goes_and_nothing_else_does() {
        let tmp = tempfile::tempdir().unwrap();
        let outside = tmp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        let tree = tmp.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut folder = openat(CWD, &tree, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for level in 0..20_000 {
            if level % 1000 == 0 {
                let name = format!("removed-{level}");
                mkdirat(&folder, name, Mode::RWXU).unwrap();
                rustix::fs::symlinkat(&outside, &folder, "link").unwrap();
            }
            mkdirat(&folder, "d", Mode::RWXU).unwrap();
            folder = openat(&folder, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("file").exists());
        let link = tmp.path().join("link");
        symlink(&outside, &link).unwrap();
        remove_tree(&link).unwrap();
        assert!(outside.join("file").exists() && !link.is_symlink());
        let nothing = remove_tree(&tree).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::NotFound);
    }
}
