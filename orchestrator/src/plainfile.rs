//! Small plain files of the data directory: damage may have put something else in their place, and a pipe has no end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, open};

/// More than any file has that is read whole.
const MOST_BYTES: u64 = 16 << 20;

/// All of it; an error for what is no plain file, or much too large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe is opened at once, whoever has its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.is_file() || found.len() > MOST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no small plain file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts a file with mode 0600 in its place, durably: a new one beside it, renamed over it. Where that fails nothing is left of it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        make_way(path)?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    let written = write();
    if written.is_err() {
        // Without it nothing is left either.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Sets aside what is where a plain file is to be put or opened, and is none: a directory, a pipe.
pub fn make_way(path: &Path) -> io::Result<()> {
    if !fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(());
    }
    let aside = set_aside(path)?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), "what was in the place of a plain file is set aside");
    Ok(())
}

/// Gives it another name, which says when that was: no two that are set aside have the same.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{}", since_epoch.as_micros()));
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;
    use crate::small_disk::SmallDisk;

    #[test]
    fn only_a_plain_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        File::create(at("large"))
            .unwrap()
            .set_len(MOST_BYTES + 1)
            .unwrap();
        assert_eq!(read(&at("file")).unwrap(), b"text");
        for other in ["pipe", "large", "."] {
            assert_eq!(
                read(&at(other)).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{other}"
            );
        }
        assert_eq!(read(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_replaced_or_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!((read(&path).unwrap(), names()), (b"two".to_vec(), 1));
        let Some(disk) = SmallDisk::mount("64k") else {
            return;
        };
        disk.fill();
        let count = || std::fs::read_dir(disk.path()).unwrap().count();
        let before = count();
        let error = replace(&disk.path().join("file"), b"three").unwrap_err();
        assert_eq!((error.kind(), count()), (io::ErrorKind::StorageFull, before));
    }

    #[test]
    fn only_what_is_no_plain_file_is_set_aside_and_what_is_in_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("folder/x"), "text").unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        for name in ["file", "folder", "pipe", "none"] {
            make_way(&at(name)).unwrap();
        }
        assert!(at("file").is_file() && !at("folder").exists() && !at("pipe").exists());
        let left = std::fs::read_dir(dir.path()).unwrap().flatten();
        let aside = left.map(|e| e.path()).find(|path| path.is_dir()).unwrap();
        assert!(aside.to_string_lossy().contains("/folder.corrupt-"));
        assert!(aside.join("x").is_file());
    }
}
