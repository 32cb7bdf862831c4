//! What the machine must have before anything is started: one clear error for all that is missing.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};

/// Files and directories without which no pod can run, and what to do about each.
const KERNEL_FEATURES: [(&str, &str); 4] = [
    (
        "sys/fs/cgroup",
        "control groups: mount them (a systemd or cgroupfs-mount machine has them)",
    ),
    (
        "proc/self/ns/net",
        "network namespaces: a kernel with CONFIG_NET_NS",
    ),
    (
        "sys/kernel/btf/vmlinux",
        "BPF type information: a kernel with CONFIG_DEBUG_INFO_BTF",
    ),
    (
        "proc/sys/net/ipv4/ip_forward",
        "IPv4 forwarding: a kernel with CONFIG_INET",
    ),
];

/// The first kernel with tcx links.
const MIN_KERNEL: (u32, u32) = (6, 6);

/// How long one of Gantry's own processes may take to let go of its port.
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// Fails with everything that is missing.
pub fn check() -> Result<()> {
    require_root("gantry up")?;
    let mut missing = missing_features(Path::new("/"), has_filesystem);
    if !in_path("nft") {
        missing.push("the program nft: `apt-get install nftables`".to_owned());
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine cannot run pods yet; missing:\n  - {}",
        missing.join("\n  - ")
    )
}

/// Nobody listens where the control plane is to. One of ours that was killed does until its last thread has ended.
pub async fn port(listen: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        let error = match TcpListener::bind(listen) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error)
                .with_context(|| format!("cannot listen on {listen}; choose another address with --listen"));
        }
        if Instant::now() > deadline {
            return Err(error).with_context(|| {
                format!("{listen} is in use by another program; choose a free one with --listen ADDR:PORT")
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the kernel has a file system; loads its module as mount(2) would.
fn has_filesystem(name: &str) -> bool {
    fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).err() != Some(Errno::NODEV)
}

/// What the kernel below `root` lacks.
fn missing_features(root: &Path, has_filesystem: impl Fn(&str) -> bool) -> Vec<String> {
    let absent = |path: &str| !root.join(path).exists();
    let lacking = KERNEL_FEATURES.iter().filter(|(path, _)| absent(path));
    let mut missing: Vec<String> = lacking.map(|(_, what)| (*what).to_owned()).collect();
    for (name, option) in [("overlay", "CONFIG_OVERLAY_FS"), ("bpf", "CONFIG_BPF_SYSCALL")] {
        if !has_filesystem(name) {
            missing.push(format!("the file system `{name}`: a kernel with {option}"));
        }
    }
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    if kernel_version(&release).is_some_and(|version| version < MIN_KERNEL) {
        missing.push(format!(
            "kernel {}.{} or newer for tcx; this is {}",
            MIN_KERNEL.0,
            MIN_KERNEL.1,
            release.trim()
        ));
    }
    missing
}

/// Fails unless root.
pub fn require_root(command: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("`{command}` needs root for cgroups, network and eBPF: run `sudo {command}`")
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_feature_is_named_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        fs::write(root.path().join("proc/sys/kernel/osrelease"), "5.10.0-9-amd64\n").unwrap();
        let missing = missing_features(root.path(), |name| name == "bpf").join("\n");
        for part in [
            "control groups",
            "network namespaces",
            "BTF",
            "forwarding",
            "CONFIG_OVERLAY_FS",
            "this is 5.10",
        ] {
            assert!(missing.contains(part), "{part} is not in {missing}");
        }
        assert!(!missing.contains("`bpf`"), "bpf is there: {missing}");
    }

    #[test]
    fn kernel_releases_compare() {
        assert_eq!(kernel_version("6.18.44-x\n"), Some((6, 18)));
        assert!(kernel_version("5.10.0-9").unwrap() < MIN_KERNEL);
        assert_eq!(kernel_version("x"), None);
    }
}
