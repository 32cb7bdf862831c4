//! The pod's volumes on the host, and which of them a container sees where.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use gantry_nodeagent_api::{ContainerConfig, PodConfig, Volume, is_sub_path};
use nix::mount::{MsFlags, mount};

use super::fsgroup;
use super::names::network_dir;
use super::quota::Projects;
use super::{BindMount, ClaimsDir, PodDir, RuntimeError, files, hostpath, mounts, subpath};
use crate::guard;

/// Writes or mounts the volumes of a pod. May be repeated.
pub fn prepare(
    dir: &PodDir,
    claims: &ClaimsDir,
    pod: &PodConfig,
    projects: Option<Projects>,
) -> Result<(), RuntimeError> {
    for (nth, (name, volume)) in pod.volumes.iter().enumerate() {
        check_name(name)?;
        let path = volume_path(dir, claims, name, volume)?;
        match volume {
            Volume::Files(files) => files::write(&path, files, pod.security.fs_group)?,
            Volume::SecretFiles(secrets) => {
                // Those of a pod of an earlier version are mounted in its containers as they are.
                if !files::is_in_use(&path) {
                    mount_tmpfs(&path, "mode=755", 0)?;
                }
                files::write(&path, secrets, pod.security.fs_group)?;
            }
            Volume::Scratch { size_bytes } => {
                // With a group of its own, what is made in it belongs to that group (setgid), as Kubernetes does.
                let owner = match pod.security.fs_group {
                    Some(gid) => format!("mode=2777,gid={gid}"),
                    None => "mode=1777".to_owned(),
                };
                mount_tmpfs(&path, &owner, memory_size(pod, *size_bytes))?;
            }
            Volume::EmptyDir { .. } => {
                let take = |fresh: &Path| projects.map_or(Ok(()), |p| p.take_volume(fresh, nth));
                let fresh = path.with_extension("new");
                empty_dir(&path, &fresh, pod.security.fs_group, take)?;
            }
            Volume::Claim { id, read_only } => {
                claims.make(id, pod.security.fs_group)?;
                if let Some(group) = pod.security.fs_group.filter(|_| !read_only) {
                    fsgroup::give(&path, group)?;
                }
            }
            Volume::HostPath { path, kind } => hostpath::prepare(name, path, *kind)?,
        }
    }
    Ok(())
}

/// Of a volume in memory: no more than the pod may have at all.
/// Source: k8s.io/kubernetes/pkg/volume/emptydir, `calculateEmptyDirMemorySize`.
fn memory_size(pod: &PodConfig, asked_bytes: u64) -> u64 {
    match (asked_bytes, pod.memory_limit_bytes()) {
        _ if guard::off("pod-memory") => asked_bytes,
        (0, limit) => limit,
        (asked, 0) => asked,
        (asked, limit) => asked.min(limit),
    }
}

/// What one container of the pod sees: the network files, then its mounts in order. Binds parts of volumes: call it anew for
/// each start.
pub fn container_mounts(
    dir: &PodDir,
    claims: &ClaimsDir,
    pod: &PodConfig,
    container: &ContainerConfig,
) -> Result<Vec<BindMount>, RuntimeError> {
    let etc = |name: &str| BindMount {
        source: network_dir(dir).join(name),
        target: Path::new("/etc").join(name),
        read_only: !guard::off("network-files"),
    };
    let mut list = vec![etc("hostname"), etc("hosts"), etc("resolv.conf")];
    for (number, wanted) in container.mounts.iter().enumerate() {
        let volume = pod.volumes.get(&wanted.volume).ok_or_else(|| {
            RuntimeError::Refused(format!(
                "container `{}` mounts volume `{}`, which the pod does not have",
                container.name, wanted.volume
            ))
        })?;
        let mut source = volume_path(dir, claims, &wanted.volume, volume)?;
        let to_read = volume.claim().is_some_and(|(_, read_only)| read_only);
        if let Some(sub_path) = &wanted.sub_path {
            let place = &wanted.path;
            if !is_sub_path(sub_path) {
                return Err(RuntimeError::Refused(format!(
                    "the sub path for {place} must be relative, without `..`"
                )));
            }
            let may_make = volume.files().is_none() && !to_read;
            let part = subpath::pin(dir, &container.name, number, &source, sub_path, may_make);
            source = part.map_err(|e| {
                let volume = &wanted.volume;
                RuntimeError::Refused(format!(
                    "cannot take the sub path for {place} out of volume {volume}: {e}"
                ))
            })?;
        }
        // A ConfigMap or Secret is never written by a container.
        let read_only = wanted.read_only || to_read || volume.files().is_some();
        list.push(BindMount {
            source,
            target: PathBuf::from(&wanted.path),
            read_only,
        });
    }
    Ok(list)
}

/// Unmounts everything below the pod's directory (volumes, root file systems), innermost first. May be repeated.
pub fn unmount(dir: &PodDir) -> Result<(), RuntimeError> {
    mounts::unmount_below(dir.path())
        .map(|_| ())
        .map_err(|(path, source)| RuntimeError::Io {
            operation: "unmount",
            path,
            source,
        })
}

fn volume_path(
    dir: &PodDir,
    claims: &ClaimsDir,
    name: &str,
    volume: &Volume,
) -> Result<PathBuf, RuntimeError> {
    Ok(match volume {
        Volume::HostPath { path, .. } => PathBuf::from(path),
        Volume::Claim { id, .. } => claims.path(id)?,
        Volume::Files(_) | Volume::SecretFiles(_) | Volume::Scratch { .. } | Volume::EmptyDir { .. } => {
            dir.path().join("volumes").join(name)
        }
    })
}

/// A directory that everybody may write to, once `take` has taken it; with a group of the pod's own, what is made in it belongs to that group (setgid).
/// It comes whole or not at all, by way of `fresh`: what a container makes of it later stays.
/// Source: k8s.io/kubernetes/pkg/volume/emptydir, `setupDir`.
pub(super) fn empty_dir(
    path: &Path,
    fresh: &Path,
    fs_group: Option<u32>,
    take: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), RuntimeError> {
    if path.exists() {
        return Ok(());
    }
    let failed = |e| RuntimeError::io("make directory", path, e);
    fs::create_dir_all(fresh).map_err(failed)?;
    let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
    take(fresh).map_err(failed)?;
    chown(fresh, None, fs_group).map_err(failed)?;
    fs::set_permissions(fresh, fs::Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(fresh, path).map_err(failed)
}

pub(super) fn mount_tmpfs(path: &Path, owner: &str, size_bytes: u64) -> Result<(), RuntimeError> {
    fs::create_dir_all(path).map_err(|e| RuntimeError::io("create directory", path, e))?;
    if mounts::is_point(path).map_err(|e| RuntimeError::io("look for a mount at", path, e))? {
        return Ok(());
    }
    // To tmpfs(5) a size of 0 is no limit at all; without one it is half of the node's memory.
    let size = if size_bytes == 0 {
        String::new()
    } else {
        format!(",size={size_bytes}")
    };
    let options = format!("{owner}{size}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|e| RuntimeError::io("mount tmpfs at", path, e.into()))
}

fn check_name(name: &str) -> Result<(), RuntimeError> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(only)), None) if only == name => Ok(()),
        _ => Err(RuntimeError::Refused(format!(
            "`{name}` is no name of a volume or file: it must be one path part"
        ))),
    }
}
