//! Installs packages on a base, into a folder of their own: the upper one of an overlay mount, which only the installing
//! processes see.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::mount::{MountFlags, mount, mount_bind};

use super::apart::{Log, run};
use super::volatile::Volatile;
use super::{BuildError, EPOCH_S, Job};

/// Devices that maintainer scripts use; what they make else in /dev is gone with the mount.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// Of the caller's environment: how to reach the mirrors.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];
/// Starts of services ask this first (Debian Policy 9.3.3); 101 says no.
const POLICY: &str = "#!/bin/sh\nexit 101\n";

impl Job<'_> {
    /// Mounts `root` with a folder over it at `dir`, and runs apt in that. The thread has a mount namespace of its own.
    pub(super) fn install(
        &self,
        root: &Path,
        dir: &Path,
        packages: &[String],
        log: &Log,
    ) -> Result<Volatile, BuildError> {
        let mount = || {
            let mounted = Volatile::mount(Some(root), dir)?;
            prepare(&mounted.merged())?;
            Ok(mounted)
        };
        let installed = mount().map_err(self.io("mount the base"))?;
        let ended = run(apt_get(packages), Some(&installed.merged()), log);
        let ended = ended.map_err(self.io("run apt-get in the image"))?;
        if ended.status.success() {
            return Ok(installed);
        }
        Err(BuildError::Install {
            image: self.recipe.name.to_string(),
            packages: packages.join(" "),
            status: ended.status.to_string(),
            tail: ended.tail,
        })
    }
}

/// What maintainer scripts find in a root that is mounted.
fn prepare(root: &Path) -> io::Result<()> {
    let dev = root.join("dev");
    mount("none", &dev, "tmpfs", MountFlags::NOSUID, None)?;
    for name in DEVICES {
        File::create(dev.join(name))?;
        mount_bind(Path::new("/dev").join(name), dev.join(name))?;
    }
    symlink("/proc/self/fd", dev.join("fd"))?;
    fs::create_dir(dev.join("shm"))?;
    // How names are resolved here today. A link would lead to a file of this machine.
    let names = root.join("etc/resolv.conf");
    if fs::symlink_metadata(&names).is_ok_and(|found| found.is_file()) {
        mount_bind("/etc/resolv.conf", &names)?;
    }
    let policy = root.join("usr/sbin/policy-rc.d");
    fs::write(&policy, POLICY)?;
    fs::set_permissions(&policy, Permissions::from_mode(0o755))
}

fn apt_get(packages: &[String]) -> Command {
    let mut command = Command::new("/usr/bin/apt-get");
    command
        .args(["--yes", "--quiet", "--no-install-recommends"])
        // There is no other user to become; a terminal would be wasted on us.
        .args(["-o", "DPkg::Options::=--force-unsafe-io"])
        .args(["-o", "APT::Sandbox::User=root"])
        .args(["-o", "DPkg::Use-Pty=0"])
        .args(["-o", "Acquire::Retries=3"])
        .args(["install", "--"])
        .args(packages)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("SOURCE_DATE_EPOCH", EPOCH_S.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC");
    for name in PROXIES {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
