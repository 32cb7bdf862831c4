//! Small plain files of the data directory: damage may have put something else in their place, and a pipe has no end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
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

/// Sets aside what is where a plain file is to be put or opened, and is none: a directory, a pipe.
pub fn make_way(path: &Path) -> io::Result<()> {
    if !fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(());
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{}", since_epoch.as_secs()));
    fs::rename(path, &aside)?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), "what was in the place of a plain file is set aside");
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

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
