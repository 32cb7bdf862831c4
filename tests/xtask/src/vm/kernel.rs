//! A stock kernel: Debian's package, unpacked beside the build, never installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{prepare, shell};

/// Programs that bring a kernel and run it, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("mkfs.ext4", "e2fsprogs"),
];
/// The plain flavour, of the first series with all that we use; `apt-cache search` takes a POSIX regular expression.
const PACKAGE: &str = "^linux-image-6\\.12\\.[0-9]+\\+deb[0-9]+-amd64(-unsigned)?$";

/// A kernel and its modules.
pub struct Kernel {
    /// The image that boots.
    pub image: PathBuf,
    /// What belongs at /lib/modules.
    pub modules: PathBuf,
    release: String,
}

impl Kernel {
    /// The one below `dir`, downloaded if there is none yet.
    pub fn ensure(dir: &Path) -> Result<Self> {
        prepare::ensure(&PROGRAMS)?;
        if let Some(kernel) = Self::find(dir) {
            return Ok(kernel);
        }
        let package = newest_package()?;
        download(&package, dir)?;
        let kernel = Self::find(dir).with_context(|| format!("{package} holds no kernel"))?;
        shell::run("depmod", &["-b", &dir.to_string_lossy(), &kernel.release])?;
        Ok(kernel)
    }

    fn find(dir: &Path) -> Option<Self> {
        let modules = dir.join("lib/modules");
        let release = fs::read_dir(&modules).ok()?.flatten().next()?;
        let release = release.file_name().into_string().ok()?;
        let image = dir.join(format!("boot/vmlinuz-{release}"));
        image.exists().then_some(Self {
            image,
            modules,
            release,
        })
    }

    /// Writes a module (`fs/9p/9p`) as a plain file into a directory.
    pub fn extract_module(&self, module: &str, into: &Path) -> Result<()> {
        let packed = self
            .modules
            .join(&self.release)
            .join(format!("kernel/{module}.ko.xz"));
        let name = Path::new(module).file_name().context("a module has a name")?;
        let plain = into.join(name).with_extension("ko");
        let out = fs::File::create(&plain).with_context(|| format!("cannot write {}", plain.display()))?;
        let status = Command::new("xz")
            .arg("-dc")
            .arg(&packed)
            .stdout(out)
            .status()
            .context("cannot run xz")?;
        ensure!(status.success(), "cannot unpack {}", packed.display());
        Ok(())
    }
}

fn newest_package() -> Result<String> {
    let search = || -> Result<Vec<String>> {
        let output = Command::new("apt-cache")
            .args(["search", "--names-only", PACKAGE])
            .output()
            .context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text
            .lines()
            .filter_map(|l| Some(l.split_once(' ')?.0.to_owned()))
            .collect())
    };
    let mut found = search()?;
    if found.is_empty() {
        prepare::update_package_lists()?;
        found = search()?;
    }
    let newest = found.into_iter().max_by_key(|name| numbers(name));
    newest.context("Debian's packages here have no kernel 6.12")
}

/// `linux-image-6.12.107+deb12-...` sorts by 6, 12, 107, 12.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok())
        .collect()
}

/// A package of which nothing is installed; what is in it is below `dir`.
pub fn unpacked(package: &str, dir: &Path) -> Result<PathBuf> {
    if !dir.exists() {
        let fresh = dir.with_extension("new");
        download(package, &fresh)?;
        fs::rename(&fresh, dir).with_context(|| format!("cannot put {package} at {}", dir.display()))?;
    }
    Ok(dir.to_owned())
}

fn download(package: &str, dir: &Path) -> Result<()> {
    let download = dir.join("download");
    fs::create_dir_all(&download)?;
    let status = Command::new("apt-get")
        .args(["download", "-q", package])
        .current_dir(&download)
        .stdin(Stdio::null())
        .status()
        .context("cannot run apt-get")?;
    ensure!(status.success(), "`apt-get download {package}` failed: {status}");
    let Some(file) = fs::read_dir(&download)?.flatten().next() else {
        bail!("`apt-get download {package}` left no file");
    };
    shell::run(
        "dpkg-deb",
        &["-x", &file.path().to_string_lossy(), &dir.to_string_lossy()],
    )?;
    fs::remove_dir_all(&download).with_context(|| format!("cannot remove {}", download.display()))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("linux-image-6.12.107+deb12-amd64") > numbers("linux-image-6.12.94+deb12-amd64"));
    }
}
