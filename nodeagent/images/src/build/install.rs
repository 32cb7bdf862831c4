//! Installs packages on a base, into a folder of their own: the upper one of an overlay mount, which only the installing
//! processes see.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, mount, mount_bind};

use super::apart::{Log, run};
use super::{BuildError, EPOCH_S, Job};
use crate::rootfs::overlay;

/// Devices that maintainer scripts use; what they make else in /dev is gone with the mount.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// Of the caller's environment: how to reach the mirrors.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];
/// Starts of services ask this first (Debian Policy 9.3.3); 101 says no.
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// A base with what was installed on it.
pub(super) struct Installed {
    /// All of it.
    pub merged: PathBuf,
    /// What differs from the base.
    pub upper: PathBuf,
}

impl Job<'_> {
    /// Mounts, and runs apt in it. The thread has a mount namespace of its own.
    pub(super) fn install(
        &self,
        root: &Path,
        packages: &[String],
        log: &Log,
    ) -> Result<Installed, BuildError> {
        let installed = self.mount(root).map_err(self.io("mount the base"))?;
        let command = apt_get(packages);
        let ended =
            run(command, Some(&installed.merged), log).map_err(self.io("run apt-get in the image"))?;
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

    fn mount(&self, root: &Path) -> io::Result<Installed> {
        let dir = tempfile::Builder::new()
            .prefix("role-")
            .tempdir_in(self.scratch.path())?
            .keep();
        let [merged, upper, work] = ["merged", "upper", "work"].map(|name| dir.join(name));
        for folder in [&merged, &upper, &work] {
            fs::create_dir(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        overlay(&[root.to_owned()], &upper, &work, &merged)?;
        let dev = merged.join("dev");
        mount("none", &dev, "tmpfs", MountFlags::NOSUID, None)?;
        for name in DEVICES {
            File::create(dev.join(name))?;
            mount_bind(Path::new("/dev").join(name), dev.join(name))?;
        }
        symlink("/proc/self/fd", dev.join("fd"))?;
        fs::create_dir(dev.join("shm"))?;
        // How names are resolved here today. A link would lead to a file of this machine.
        let names = merged.join("etc/resolv.conf");
        if fs::symlink_metadata(&names).is_ok_and(|found| found.is_file()) {
            mount_bind("/etc/resolv.conf", &names)?;
        }
        let policy = merged.join("usr/sbin/policy-rc.d");
        fs::write(&policy, POLICY)?;
        fs::set_permissions(&policy, Permissions::from_mode(0o755))?;
        Ok(Installed { merged, upper })
    }
}

fn apt_get(packages: &[String]) -> Command {
    let mut command = Command::new("/usr/bin/apt-get");
    command
        .args(["--yes", "--quiet", "--no-install-recommends"])
        // A crash loses the work folder anyhow; there is no other user to become; a terminal would be wasted on us.
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
