//! The pod's volumes and network files on the host, and which of them a container sees where.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use gantry_nodeagent_api::{ContainerConfig, PodConfig, Volume, is_sub_path};
use nix::mount::{MsFlags, mount};

use super::{BindMount, PodDir, RuntimeError, mounts, subpath};

/// What the files under `/etc` tell a pod about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFiles {
    /// Content of `/etc/hostname`.
    pub hostname: String,
    /// The pod's address, named `hostname` in `/etc/hosts`.
    pub address: Option<IpAddr>,
    /// `nameserver` lines of `/etc/resolv.conf`.
    pub nameservers: Vec<IpAddr>,
    /// The `search` line of `/etc/resolv.conf`; none if empty.
    pub search: Vec<String>,
}

/// Writes or mounts the volumes of a pod. May be repeated.
pub fn prepare(dir: &PodDir, pod: &PodConfig) -> Result<(), RuntimeError> {
    for (name, volume) in &pod.volumes {
        check_name(name)?;
        let path = volume_path(dir, name, volume);
        match volume {
            Volume::Files(files) => {
                write_files(&path, files)?;
                give_to_group(&path, files, pod.security.fs_group)?;
            }
            Volume::Scratch { size_bytes } => mount_tmpfs(&path, *size_bytes, pod.security.fs_group)?,
            Volume::HostPath { path } => {
                fs::metadata(path).map_err(|e| RuntimeError::io("find host path", path, e))?;
            }
        }
    }
    Ok(())
}

/// Writes `hostname`, `hosts` and `resolv.conf` of a pod. May be repeated.
pub fn write_network_files(dir: &PodDir, files: &NetworkFiles) -> Result<(), RuntimeError> {
    let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if let Some(address) = files.address {
        hosts.push_str(&format!("{address}\t{}\n", files.hostname));
    }
    let mut resolv: String = files
        .nameservers
        .iter()
        .map(|a| format!("nameserver {a}\n"))
        .collect();
    if !files.search.is_empty() {
        resolv.push_str(&format!("search {}\noptions ndots:5\n", files.search.join(" ")));
    }
    let hostname = format!("{}\n", files.hostname);
    let wanted = [("hostname", hostname), ("hosts", hosts), ("resolv.conf", resolv)];
    write_files(
        &network_dir(dir),
        &wanted.map(|(name, text)| (name.to_owned(), text)).into(),
    )
}

/// What one container of the pod sees: the network files, then its mounts in order. Binds parts of volumes: call it anew for
/// each start.
pub fn container_mounts(
    dir: &PodDir,
    pod: &PodConfig,
    container: &ContainerConfig,
) -> Result<Vec<BindMount>, RuntimeError> {
    let etc = |name: &str| BindMount {
        source: network_dir(dir).join(name),
        target: Path::new("/etc").join(name),
        read_only: false,
    };
    let mut list = vec![etc("hostname"), etc("hosts"), etc("resolv.conf")];
    for (number, wanted) in container.mounts.iter().enumerate() {
        let volume = pod.volumes.get(&wanted.volume).ok_or_else(|| {
            RuntimeError::Refused(format!(
                "container `{}` mounts volume `{}`, which the pod does not have",
                container.name, wanted.volume
            ))
        })?;
        let mut source = volume_path(dir, &wanted.volume, volume);
        if let Some(sub_path) = &wanted.sub_path {
            if !is_sub_path(sub_path) {
                return Err(RuntimeError::Refused(format!(
                    "sub path `{sub_path}` must be relative, without `..`"
                )));
            }
            source = match volume {
                // Nobody but the agent writes there.
                Volume::Files(_) => source.join(sub_path),
                Volume::Scratch { .. } | Volume::HostPath { .. } => {
                    subpath::pin(dir, &container.name, number, &source, sub_path)?
                }
            };
        }
        // A ConfigMap or Secret is never written by a container.
        let read_only = wanted.read_only || matches!(volume, Volume::Files(_));
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

fn network_dir(dir: &PodDir) -> PathBuf {
    dir.path().join("files")
}

fn volume_path(dir: &PodDir, name: &str, volume: &Volume) -> PathBuf {
    match volume {
        Volume::HostPath { path } => PathBuf::from(path),
        Volume::Files(_) | Volume::Scratch { .. } => dir.path().join("volumes").join(name),
    }
}

fn write_files(dir: &Path, files: &BTreeMap<String, String>) -> Result<(), RuntimeError> {
    fs::create_dir_all(dir).map_err(|e| RuntimeError::io("create directory", dir, e))?;
    for (name, content) in files {
        check_name(name)?;
        let path = dir.join(name);
        // Written in place: a running container holds the inode by its bind mount. World-readable, because the
        // container's user is any; the pod's directory lets nobody of the host through.
        // What is as it should be is not touched: somebody may be reading it.
        if fs::read(&path).is_ok_and(|now| now == content.as_bytes()) {
            continue;
        }
        fs::write(&path, content).map_err(|e| RuntimeError::io("write", &path, e))?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))
            .map_err(|e| RuntimeError::io("set mode of", &path, e))?;
    }
    remove_others(dir, files).map_err(|e| RuntimeError::io("remove old files of", dir, e))
}

/// Files of a volume belong to the pod's group, if it has one. No container writes there.
fn give_to_group(
    dir: &Path,
    files: &BTreeMap<String, String>,
    group: Option<u32>,
) -> Result<(), RuntimeError> {
    let Some(group) = group else {
        return Ok(());
    };
    let own = |path: &Path| {
        std::os::unix::fs::lchown(path, None, Some(group))
            .map_err(|e| RuntimeError::io("give to the pod's group", path, e))
    };
    own(dir)?;
    files.keys().try_for_each(|name| own(&dir.join(name)))
}

/// What an earlier version of the content had, and this one has not.
fn remove_others(dir: &Path, files: &BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry
            .file_name()
            .to_str()
            .is_some_and(|name| files.contains_key(name))
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// With a group of its own, what is made in it belongs to that group (setgid), as Kubernetes does.
fn mount_tmpfs(path: &Path, size_bytes: u64, fs_group: Option<u32>) -> Result<(), RuntimeError> {
    fs::create_dir_all(path).map_err(|e| RuntimeError::io("create directory", path, e))?;
    let mounted = mounts::below(path).map_err(|e| RuntimeError::io("look for mounts below", path, e))?;
    if mounted.iter().any(|point| point == path) {
        return Ok(());
    }
    // To tmpfs(5) a size of 0 is no limit at all; without one it is half of the node's memory.
    let size = if size_bytes == 0 {
        String::new()
    } else {
        format!(",size={size_bytes}")
    };
    let owner = match fs_group {
        Some(gid) => format!("mode=2777,gid={gid}"),
        None => "mode=1777".to_owned(),
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
