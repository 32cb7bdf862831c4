//! The file into which a container may write its last words, on the host: on a small tmpfs of the pod, so that one who writes
//! without end fills nothing else.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gantry_nodeagent_api::ContainerConfig;

use super::volumes::mount_tmpfs;
use super::{BindMount, LastWords, PodDir, RuntimeError};

/// For all containers of a pod together, in bytes: much more than is read.
const SIZE_BYTES: u64 = 64 << 10;

/// An empty file for a container that is about to start, and where the container sees it.
pub fn fresh(
    dir: &PodDir,
    container: &ContainerConfig,
) -> Result<(LastWords, Option<BindMount>), RuntimeError> {
    let wanted = &container.termination_message;
    let file = (!wanted.path.is_empty())
        .then(|| empty_file(&dir.path().join("termination"), &container.name))
        .transpose()?;
    let mount = file.clone().map(|source| BindMount {
        source,
        target: PathBuf::from(&wanted.path),
        read_only: false,
    });
    let from_log = wanted.from_log;
    Ok((LastWords { file, from_log }, mount))
}

/// Any user of the container may write it. What an earlier run has written is gone.
fn empty_file(directory: &Path, name: &str) -> Result<PathBuf, RuntimeError> {
    mount_tmpfs(directory, "mode=700", SIZE_BYTES)?;
    let path = directory.join(name);
    let made = File::create(&path).and_then(|_| fs::set_permissions(&path, Permissions::from_mode(0o666)));
    made.map_err(|e| RuntimeError::io("create", &path, e))?;
    Ok(path)
}
