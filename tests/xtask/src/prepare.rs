//! What the machine needs, installed when that is possible.

use anyhow::{Result, bail};

use crate::shell;

/// Programs and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 5] = [
    ("cc", "build-essential"),
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("zstd", "zstd"),
];

/// Installs missing programs from Debian packages (as root, or through sudo), or says what to run.
pub fn ensure_programs() -> Result<()> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !shell::has(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    if !shell::has("apt-get") {
        bail!(
            "missing programs; install what your system has for Debian's {}",
            packages.join(" ")
        );
    }
    let install: Vec<&str> = ["install", "-y", "--no-install-recommends"]
        .into_iter()
        .chain(packages.iter().copied())
        .collect();
    if is_root() {
        shell::run("apt-get", &["update", "-qq"])?;
        return shell::run("apt-get", &install);
    }
    if !shell::has("sudo") {
        bail!(
            "missing programs; as root, run: apt-get update && apt-get install -y {}",
            packages.join(" ")
        );
    }
    shell::run("sudo", &["apt-get", "update", "-qq"])?;
    shell::run("sudo", &[&["apt-get"], install.as_slice()].concat())
}

/// What rebuilds the committed kernel object, beside the toolchain; pinned as `ebpf/README.md` says.
const BPF_LINKER: &str = "0.10.4";

/// Installs the tools that rebuild the kernel object; an error says why they cannot be had.
pub fn ensure_bpf_tools() -> Result<()> {
    shell::run("rustup", &["component", "add", "rust-src"])?;
    if shell::has("bpf-linker") {
        return Ok(());
    }
    shell::cargo(&[
        "install",
        "--quiet",
        "bpf-linker",
        "--version",
        BPF_LINKER,
        "--locked",
    ])
}

/// Pods need root for cgroups, network and eBPF.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
