//! Clients' certificates in whose place there is a newer one, or that were issued after the backup that was restored. They last on,
//! so that they are listed and can be revoked: `<name>@<serial>.crt`, without a key, until its end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::issue::Authority;
use super::issuer::is_clients;
use super::{PkiError, Revoked, files};

/// Between name and serial number; no name has it.
const MARK: char = '@';

/// What was done between a backup and its restore, and holds on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Certificates that were revoked.
    pub revoked: usize,
    /// Certificates that were issued.
    pub issued: usize,
}

/// The client's name that a certificate's file has.
pub(super) fn name_of(file: &str) -> &str {
    file.split_once(MARK).map_or(file, |(name, _)| name)
}

/// True of a certificate that is not the newest of its name.
pub(super) fn is_superseded(file: &str) -> bool {
    file.contains(MARK)
}

fn file_of(name: &str, serial: &[u8]) -> String {
    format!("{name}{MARK}{}", hex::encode(serial))
}

/// Keeps the certificate of a name in whose place another one comes.
pub(super) fn keep(dir: &Path, name: &str, authority: &Authority) -> Result<(), PkiError> {
    let revoked = Revoked::read(dir, &authority.certificate)?;
    let found = files::read(&files::certificate(dir, name))?;
    let lasting = found.and_then(|pem| Some((authority.lasting(&pem)?, pem)));
    match lasting {
        Some((serial, pem)) if !revoked.has(&serial) => {
            files::write(&files::certificate(dir, &file_of(name, &serial)), &pem)
        }
        _ => Ok(()),
    }
}

/// Removes those that have come to their end.
pub(super) fn forget_ended(dir: &Path, authority: &Authority) -> Result<(), PkiError> {
    for file in files::names(dir, "")?.iter().filter(|f| is_superseded(f)) {
        let path = files::certificate(dir, file);
        if files::read(&path)?.is_none_or(|pem| authority.lasting(&pem).is_none()) {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// Takes over into the directory of a backup what was revoked and issued since, by what is in another directory of the same
/// authority: a key that was taken back does not open the door again, and what opens it is known.
pub(super) fn carry_over(from: &Path, into: &Path, authority: &Authority) -> Result<Since, PkiError> {
    let revoked_later = Revoked::read(from, &authority.certificate)?;
    let revoked = Revoked::read(into, &authority.certificate)?;
    let mut since = Since {
        revoked: revoked_later.without(&revoked),
        issued: 0,
    };
    if since.revoked > 0 {
        authority.revoke(into, &revoked_later)?;
    }
    let revoked = revoked.and(&revoked_later);
    let known: BTreeSet<Vec<u8>> = lasting(into, authority)?.into_iter().map(|c| c.serial).collect();
    for Lasting { file, serial, pem } in lasting(from, authority)? {
        if !known.contains(&serial) && !revoked.has(&serial) {
            let to = file_of(name_of(&file), &serial);
            files::write(&files::certificate(into, &to), &pem)?;
            since.issued += 1;
        }
    }
    Ok(since)
}

/// Directories of certificates in a data directory: the one in use, and what restores have moved aside.
pub(super) fn directories(data_dir: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let is_one = |file: &str| file == name || file.starts_with(&format!("{name}."));
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_one))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// A client's certificate that has not ended.
pub(super) struct Lasting {
    /// Without its ending.
    pub file: String,
    pub serial: Vec<u8>,
    pub pem: String,
}

/// The clients' certificates in a directory that this authority has signed and that have not ended.
pub(super) fn lasting(dir: &Path, authority: &Authority) -> Result<Vec<Lasting>, PkiError> {
    let mut found = Vec::new();
    for file in files::names(dir, "")? {
        if !is_clients(name_of(&file)) {
            continue;
        }
        let pem = files::read(&files::certificate(dir, &file))?.unwrap_or_default();
        if let Some(serial) = authority.lasting(&pem) {
            found.push(Lasting { file, serial, pem });
        }
    }
    Ok(found)
}
