//! The device nodes of a container, besides the usual ones, which libcontainer makes.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use rustix::fs::{major, minor};

use crate::runtime::ContainerStart;

const HOST: &str = "/dev";
/// What a container has of its own, as containerd leaves it out (`HostDevices`).
const OWN: [&str; 4] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console"];
/// Files of the host's `/dev` that are looked at: far more than any host has.
const MOST_FILES: usize = 65_536;

/// All of the host's for a privileged one, as in Kubernetes. In a user namespace no node of a device can be made: there it has
/// what others have.
pub(super) fn of(start: &ContainerStart) -> Result<Vec<LinuxDevice>, OciSpecError> {
    if !start.security.privileged || start.own_ids().is_some() {
        return tunnel(start);
    }
    let mounted = |path: &Path| start.mounts.iter().any(|m| path.starts_with(&m.target));
    let nodes = nodes_of_host()?.into_iter();
    nodes
        // A volume there brings its own, and may be the host's.
        .filter(|(path, _)| !mounted(path))
        .map(|(path, found)| node(path, &found))
        .collect()
}

/// `/dev/net/tun` for those that may configure networks: user planes make their tunnels with it.
fn tunnel(start: &ContainerStart) -> Result<Vec<LinuxDevice>, OciSpecError> {
    let tun = Path::new("/dev/net/tun");
    let allowed = start.security.privileged
        || start
            .security
            .capabilities
            .iter()
            .any(|c| c.ends_with("NET_ADMIN") || c == "ALL");
    if !allowed || !tun.exists() {
        return Ok(Vec::new());
    }
    let device = LinuxDeviceBuilder::default()
        .path(tun)
        .typ(LinuxDeviceType::C)
        .major(10)
        .minor(200)
        .file_mode(0o666u32)
        .uid(0u32)
        .gid(0u32)
        .build()?;
    Ok(vec![device])
}

/// Device nodes below the host's `/dev`. No link is followed, and no other file system entered: hugepages may be many files.
fn nodes_of_host() -> io::Result<Vec<(PathBuf, Metadata)>> {
    let file_system = fs::metadata(HOST)?.dev();
    let (mut nodes, mut files) = (Vec::new(), 0);
    let mut rest = vec![PathBuf::from(HOST)];
    while let Some(dir) = rest.pop() {
        // What is not there any more was unplugged just now.
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            files += 1;
            if files > MOST_FILES {
                let why = format!("{HOST} of this node has more than {MOST_FILES} files");
                return Err(io::Error::other(why));
            }
            let path = entry.path();
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if OWN.iter().any(|own| path == Path::new(own)) {
                continue;
            }
            let kind = found.file_type();
            if kind.is_dir() && found.dev() == file_system {
                rest.push(path);
            } else if kind.is_block_device() || kind.is_char_device() {
                nodes.push((path, found));
            }
        }
    }
    Ok(nodes)
}

/// The same node in a container.
fn node(path: PathBuf, found: &Metadata) -> Result<LinuxDevice, OciSpecError> {
    let kind = if found.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        LinuxDeviceType::C
    };
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind)
        .major(major(found.rdev()))
        .minor(minor(found.rdev()))
        .file_mode(found.permissions().mode() & 0o7777)
        .uid(found.uid())
        .gid(found.gid())
        .build()
}
