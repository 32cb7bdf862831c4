//! The OCI runtime specification (1.x, config.md, config-linux.md) of one container.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxDevice, LinuxDeviceBuilder,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResourcesBuilder, Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    get_default_maskedpaths, get_default_readonly_paths,
};

use crate::runtime::ContainerStart;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A start request that cannot be turned into a specification.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpecError {
    #[error(
        "capability `{0}` does not exist; write it as in capabilities(7) without CAP_, for example NET_ADMIN"
    )]
    Capability(String),
    #[error("cannot describe the container")]
    Build(#[from] OciSpecError),
}

pub(super) fn build(start: &ContainerStart) -> Result<Spec, SpecError> {
    let privileged = start.security.privileged;
    let user = UserBuilder::default()
        .uid(start.user.uid)
        .gid(start.user.gid)
        .additional_gids(start.user.additional_gids.clone())
        .build()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(start.argv.clone())
        .env(environment(start))
        .cwd(if start.cwd.is_empty() {
            Path::new("/")
        } else {
            Path::new(&start.cwd)
        })
        .capabilities(capabilities(start)?)
        .no_new_privileges(!privileged)
        .rlimits(Vec::new())
        .build()?;
    let root = RootBuilder::default()
        .path(start.rootfs.clone())
        .readonly(start.security.read_only_root)
        .build()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(start)?)
        .cgroups_path(PathBuf::from(&start.cgroup))
        .devices(devices(start)?);
    if privileged {
        linux = linux.masked_paths(Vec::new()).readonly_paths(Vec::new());
    } else {
        let none = LinuxDeviceCgroupBuilder::default()
            .allow(false)
            .access("rwm")
            .build()?;
        linux = linux
            .masked_paths(get_default_maskedpaths())
            .readonly_paths(get_default_readonly_paths())
            .resources(LinuxResourcesBuilder::default().devices(vec![none]).build()?);
    }
    let spec = SpecBuilder::default()
        .version("1.0.2")
        .hostname(start.hostname.clone())
        .root(root)
        .process(process)
        .mounts(mounts(start)?)
        .linux(linux.build()?)
        .build()?;
    Ok(spec)
}

/// The last of several values of one name counts; names keep their order.
fn environment(start: &ContainerStart) -> Vec<String> {
    let defaults = [
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOSTNAME".to_owned(), start.hostname.clone()),
    ];
    let mut seen = HashSet::new();
    let mut env: Vec<String> = start
        .env
        .iter()
        .rev()
        .chain(&defaults)
        .filter(|(name, _)| seen.insert(name.clone()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    env.reverse();
    env
}

/// Exactly the capabilities asked for, in every set: a process that is not root gets them too (ambient).
fn capabilities(start: &ContainerStart) -> Result<LinuxCapabilities, SpecError> {
    let set: HashSet<Capability> = if start.security.privileged {
        own_capabilities()
    } else {
        let parse = |name: &String| {
            let bare = name.strip_prefix("CAP_").unwrap_or(name);
            bare.parse().map_err(|_| SpecError::Capability(name.clone()))
        };
        start
            .security
            .capabilities
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()?
    };
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .permitted(set.clone())
        .effective(set.clone())
        .inheritable(set.clone())
        .ambient(set)
        .build()?)
}

/// What the shim itself may do: on some hosts root has less than everything, and nobody can give what he has not.
fn own_capabilities() -> HashSet<Capability> {
    let own =
        rustix::thread::capabilities(None).map_or(rustix::thread::CapabilitySet::empty(), |s| s.permitted);
    own.iter_names()
        .filter_map(|(name, _)| name.parse().ok())
        .collect()
}

fn namespaces(start: &ContainerStart) -> Result<Vec<oci_spec::runtime::LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let mut list = Vec::new();
    for kind in [Pid, Ipc, Uts, Mount, Cgroup] {
        list.push(LinuxNamespaceBuilder::default().typ(kind).build()?);
    }
    if let Some(path) = &start.netns {
        list.push(
            LinuxNamespaceBuilder::default()
                .typ(Network)
                .path(path.clone())
                .build()?,
        );
    }
    Ok(list)
}

/// `/dev/net/tun` for those that may configure networks: user planes make their tunnels with it.
fn devices(start: &ContainerStart) -> Result<Vec<LinuxDevice>, OciSpecError> {
    let tun = Path::new("/dev/net/tun");
    let allowed = start.security.privileged
        || start
            .security
            .capabilities
            .iter()
            .any(|c| c.ends_with("NET_ADMIN"));
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

fn mounts(start: &ContainerStart) -> Result<Vec<Mount>, OciSpecError> {
    let sys = if start.security.privileged { "rw" } else { "ro" };
    let system: [(&str, &str, &[&str]); 6] = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        (
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        (
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        (
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys]),
    ];
    let mut list = Vec::new();
    for (target, kind, options) in system {
        list.push(mount(Path::new(target), kind, Path::new(kind), options)?);
    }
    for bind in &start.mounts {
        let access = if bind.read_only { "ro" } else { "rw" };
        let mut options = vec!["rbind", "rprivate", "nosuid", access];
        // In cgroup v2 no device rules are in force, so no device of the host may come in by a volume either.
        if !start.security.privileged {
            options.push("nodev");
        }
        list.push(mount(&bind.target, "bind", &bind.source, &options)?);
    }
    Ok(list)
}

fn mount(target: &Path, kind: &str, source: &Path, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
}
