//! Files of the datapath's directory.

use std::path::Path;

use crate::error::DatapathError;

/// Makes the error of an operation on a file.
pub fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DatapathError {
    let path = path.to_owned();
    move |source| DatapathError::File {
        operation,
        path,
        source,
    }
}

/// Removes a file; fine if there is none.
pub fn remove_file(path: &Path) -> Result<(), DatapathError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Names in a directory; none if it does not exist.
pub fn entries(dir: &Path) -> Result<Vec<String>, DatapathError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("read", dir)(e)),
    };
    Ok(entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect())
}
