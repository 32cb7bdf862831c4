//! Reading what should be a small plain file: damage may have put something else there, and a pipe has no end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

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
}
