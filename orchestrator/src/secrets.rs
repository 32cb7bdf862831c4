//! The key that Secrets are encrypted with on the disk: `secrets.key` in the data directory (mode 0600, 64 hexadecimal digits).
//!
//! It keeps Secrets out of copies of the store alone. Whoever has all of the data directory, or a backup, has them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::kinds;
use crate::plainfile;
use crate::shell::CONFIGS;
use crate::store::{KEY_BYTES, Seal};

/// The key's file in the data directory.
pub const KEY_FILE: &str = "secrets.key";

/// The key cannot be had.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// The file is there, and is no key.
    #[error(
        "{} is damaged: without it no Secret can be read. Put it back from a backup: `gantry restore FILE`",
        .0.display()
    )]
    Damaged(PathBuf),
    /// Reading or writing failed.
    #[error("read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(crate) type Key = [u8; KEY_BYTES];

/// Secrets themselves, and the configurations of the nodes, in which pods' Secrets are.
pub(crate) fn seal(key: &Key) -> Arc<Seal> {
    let secrets = kinds::named("Secret").expect("the table has Secret").prefix(None);
    Arc::new(Seal::new(key, vec![secrets, CONFIGS.to_owned()]))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SecretsError {
    let path = path.to_owned();
    move |source| SecretsError::File { path, source }
}

/// The key of a data directory; `None` if it has none yet.
pub(crate) fn read(dir: &Path) -> Result<Option<Key>, SecretsError> {
    let path = dir.join(KEY_FILE);
    let text = match plainfile::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(SecretsError::Damaged(path)),
        Err(error) => return Err(failed(&path)(error)),
    };
    let key = hex::decode(text.trim_ascii())
        .ok()
        .and_then(|key| Key::try_from(key).ok());
    key.map(Some).ok_or(SecretsError::Damaged(path))
}

/// Makes a key, durably: what it will encrypt is worth nothing without it.
pub(crate) fn create(dir: &Path) -> Result<Key, SecretsError> {
    let key: Key = rand::random();
    let path = dir.join(KEY_FILE);
    let text = format!("{}\n", hex::encode(key));
    plainfile::replace(&path, text.as_bytes()).map_err(failed(&path))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let key = create(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(key));
        for damage in [&b""[..], b"0123", b"\xff\xfe", &[b'0'; 66]] {
            fs::write(dir.path().join(KEY_FILE), damage).unwrap();
            assert!(
                read(dir.path())
                    .unwrap_err()
                    .to_string()
                    .contains("gantry restore")
            );
        }
        fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
        fs::create_dir(dir.path().join(KEY_FILE)).unwrap();
        assert!(matches!(read(dir.path()), Err(SecretsError::Damaged(_))));
    }
}
