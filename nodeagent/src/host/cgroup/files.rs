//! Reads and writes of one value.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::CgroupError;

/// Writes a value; never creates the file.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    try_write(path, value).map_err(|source| CgroupError::Io {
        operation: format!("write `{value}` to"),
        path: path.to_owned(),
        source,
    })
}

/// Writes a value unless it is there already.
pub(super) fn write_if_other(path: &Path, value: &str) -> Result<(), CgroupError> {
    if read(path)? == value {
        Ok(())
    } else {
        write(path, value)
    }
}

/// Puts back what was in files. That fails where more is in use by now than was allowed before: then the newer limit is the better one.
pub(super) fn restore(before: &[(PathBuf, String)]) {
    for (file, value) in before {
        let _ = write_if_other(file, value);
    }
}

/// One write, with a newline: without one an empty value would be no write at all.
pub(super) fn try_write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)?
        .write_all(format!("{value}\n").as_bytes())
}

/// Reads a value without its final newline.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path)
        .map(|text| text.trim_end().to_owned())
        .map_err(|source| CgroupError::Io {
            operation: "read".to_owned(),
            path: path.to_owned(),
            source,
        })
}

/// A number, or `None` for `max` and for what v1 writes instead (a value near 2^63).
pub(super) fn number(text: &str) -> Option<u64> {
    const UNLIMITED: u64 = 1 << 62;
    text.trim().parse().ok().filter(|n| *n < UNLIMITED)
}

/// Removes an (unpopulated) group; it may be gone.
pub(super) fn rmdir(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Names of the child groups; none if the group is gone.
pub(super) fn children(path: &Path) -> Result<Vec<String>, CgroupError> {
    let fail = |source| CgroupError::Io {
        operation: "list".to_owned(),
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
