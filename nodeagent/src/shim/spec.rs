//! The OCI runtime specification (1.x, config.md, config-linux.md) of one container.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBuilder, LinuxDeviceCgroupBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    get_default_maskedpaths, get_default_readonly_paths,
};

use super::devices;
use super::wall::no_new_privileges;
use crate::guard;
use crate::runtime::ContainerStart;

/// Terminals of a container (`devpts`, filesystems/devpts.rst): all of the node together are few, and a part of each is memory that
/// nobody counts.
const TERMINALS: &str = "max=256";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn build(start: &ContainerStart) -> Result<Spec, OciSpecError> {
    let privileged = start.security.privileged;
    let user = UserBuilder::default()
        .uid(start.user.uid)
        .gid(start.user.gid)
        .additional_gids(start.user.additional_gids.clone())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(start.argv.clone())
        .env(environment(start))
        .cwd(if start.cwd.is_empty() {
            Path::new("/")
        } else {
            Path::new(&start.cwd)
        })
        .no_new_privileges(no_new_privileges(start))
        .rlimits(Vec::new());
    if let Some(profile) = &start.security.apparmor_profile {
        process = process.apparmor_profile(profile.clone());
    }
    let mut process = process.build()?;
    // They are given up in the last step, by `wall.rs`.
    process.set_capabilities(None);
    let root = RootBuilder::default()
        .path(start.rootfs.clone())
        .readonly(start.security.read_only_root)
        .build()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(start)?)
        .cgroups_path(PathBuf::from(&start.cgroup))
        .devices(devices::of(start)?)
        .sysctl(start.sysctls.clone().into_iter().collect::<HashMap<_, _>>());
    if privileged {
        // Without a rule all devices are allowed that its group's parent allows; the usual ones, which libcontainer adds, take
        // nothing away.
        linux = linux.masked_paths(Vec::new()).readonly_paths(Vec::new());
    } else if guard::off("paths") {
        linux = linux
            .masked_paths(Vec::new())
            .readonly_paths(Vec::new())
            .resources(nothing()?);
    } else {
        linux = linux
            .masked_paths(get_default_maskedpaths())
            .readonly_paths(get_default_readonly_paths())
            .resources(nothing()?);
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

/// No device of the host, but for the usual ones that libcontainer adds (cgroup v1; in v2 it is `host/cgroup/devices.rs`).
fn nothing() -> Result<LinuxResources, OciSpecError> {
    let none = LinuxDeviceCgroupBuilder::default()
        .allow(guard::off("devices"))
        .access("rwm")
        .build()?;
    LinuxResourcesBuilder::default().devices(vec![none]).build()
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

fn namespaces(start: &ContainerStart) -> Result<Vec<oci_spec::runtime::LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let mut list = Vec::new();
    for kind in [Pid, Ipc, Uts, Mount, Cgroup] {
        if kind == Pid && guard::off("pid-namespace") {
            continue;
        }
        list.push(LinuxNamespaceBuilder::default().typ(kind).build()?);
    }
    let users = start.own_ids().map(|ids| &ids.path);
    for (kind, path) in [(User, users), (Network, start.netns.as_ref())] {
        if let Some(path) = path {
            list.push(LinuxNamespaceBuilder::default().typ(kind).path(path).build()?);
        }
    }
    Ok(list)
}

fn mounts(start: &ContainerStart) -> Result<Vec<Mount>, OciSpecError> {
    let sys = if start.security.privileged || guard::off("paths") {
        "rw"
    } else {
        "ro"
    };
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
                TERMINALS,
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
        // Not even a device that the rules allow comes in by a volume.
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
