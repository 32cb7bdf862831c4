//! Files that only their owner reads, replaced as a whole.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::PkiError;
use crate::plainfile;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { action, path, source }
}

/// Path of a certificate.
pub(super) fn certificate(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.crt"))
}

/// Path of a private key.
pub(super) fn key(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.key"))
}

/// Makes a directory with mode 0700.
pub(super) fn private_dir(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("make the directory", dir))?;
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed("make the directory", dir))
}

/// Names of the certificates that start with a prefix, without it.
pub(super) fn names(dir: &Path, prefix: &str) -> Result<Vec<String>, PkiError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let file = entry.map_err(failed("list", dir))?.file_name();
        let name = file
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.strip_suffix(".crt"));
        names.extend(name.map(str::to_owned));
    }
    Ok(names)
}

/// Gives what is in a directory of private files back to its owner alone, whoever has changed that.
pub(super) fn make_private(dir: &Path) -> Result<(), PkiError> {
    let own = fs::metadata("/proc/self").map_err(failed("look at", dir))?.uid();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = entry.map_err(failed("list", dir))?.path();
        keep_private(&path, own).map_err(failed("make private", &path))?;
    }
    Ok(())
}

fn keep_private(path: &Path, own: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || (found.uid() == own && found.mode() & 0o177 == 0) {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), uid = found.uid(), mode = format!("{:o}", found.mode() & 0o7777), "others could use this file; it is its owner's alone again");
    std::os::unix::fs::chown(path, Some(own), None)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// The text, `None` if there is no such file. What is no text comes as text all the same, what is no file comes empty: neither
/// will do.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match plainfile::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), PkiError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file that does not have this text yet.
pub(super) fn keep(path: &Path, text: &str) -> Result<(), PkiError> {
    match read(path)? {
        Some(found) if found == text => Ok(()),
        _ => write(path, text),
    }
}

/// Writes a file with mode 0600, whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    plainfile::replace(path, text.as_bytes()).map_err(failed("write", path))
}
