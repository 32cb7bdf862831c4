//! What a start needs inside the root file system: mount points, and the working directory. Links of the image on the way are
//! followed inside the root only.

use std::io;
use std::path::Path;

use gantry_images::inside;

use super::{ContainerStart, RuntimeError};

/// File systems of their own, which the container's start mounts first.
const SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Makes the mount points and the working directory of a container that is about to start. May be repeated.
pub fn prepare(start: &ContainerStart) -> Result<(), RuntimeError> {
    for (n, mount) in start.mounts.iter().enumerate() {
        let target = &mount.target;
        // Inside another mount it is made when that is there.
        let earlier = start.mounts[..n].iter().any(|m| target.starts_with(&m.target));
        if earlier || is_system(target) {
            continue;
        }
        let made = if mount.source.is_dir() {
            inside::make_dir(&start.rootfs, target, owner(start))
        } else {
            inside::make_file(&start.rootfs, target, owner(start))
        };
        made.map_err(|e| refused(start, "make the mount point", target, &e))?;
    }
    for volume in start.image_volumes.iter().map(|path| Path::new("/").join(path)) {
        let covered = start.mounts.iter().any(|m| volume.starts_with(&m.target));
        if !covered && !is_system(&volume) {
            inside::make_dir(&start.rootfs, &volume, owner(start))
                .map_err(|e| refused(start, "make the volume", &volume, &e))?;
        }
    }
    working_dir(start)
}

fn working_dir(start: &ContainerStart) -> Result<(), RuntimeError> {
    let cwd = Path::new(&start.cwd);
    if start.cwd.is_empty() || is_system(cwd) {
        return Ok(());
    }
    let over = (start.mounts.iter().rev()).find_map(|m| Some((m, cwd.strip_prefix(&m.target).ok()?)));
    let made = match over {
        // What is read only stays as it is: the start says what is missing.
        Some((mount, _)) if mount.read_only => return Ok(()),
        Some((mount, rest)) => inside::make_dir(&mount.source, rest, None),
        None => inside::make_dir(&start.rootfs, cwd, owner(start)),
    };
    made.map_err(|e| refused(start, "make the working directory", cwd, &e))
}

/// Root of the container, who is nobody's else where it has ids of its own.
fn owner(start: &ContainerStart) -> Option<u32> {
    start.userns.as_ref().map(|ids| ids.first)
}

fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system))
}

fn refused(start: &ContainerStart, what: &str, path: &Path, error: &io::Error) -> RuntimeError {
    RuntimeError::Refused(format!(
        "cannot {what} {} of container {} inside its image: {error}",
        path.display(),
        start.name
    ))
}
