//! What the machine needs, installed when that is possible.

use anyhow::{Result, bail};

use crate::shell;

/// Programs and the Debian packages that have them. The compiler's own is README's business: without it this would not run.
const PROGRAMS: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("zstd", "zstd"),
    ("busybox", "busybox-static"),
    ("curl", "curl"),
];

/// Installs what the demo and the tests need.
pub fn ensure_programs() -> Result<()> {
    ensure(&PROGRAMS)
}

/// Builds what runs pods, and installs what that needs; pods need root, which `chore` is told to be run as.
pub fn for_pods(chore: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "pods need root for cgroups, network and eBPF; run: sudo -E env \"PATH=$PATH\" cargo xtask {chore}"
        );
    }
    ensure_programs()?;
    shell::build()
}

/// Installs missing programs from Debian packages (as root, or through sudo), or says what to run.
pub fn ensure(programs: &[(&str, &str)]) -> Result<()> {
    let packages: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !shell::has(program))
        .map(|(_, package)| *package)
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    if !shell::has("apt-get") {
        bail!(
            "missing programs; install what your system has for Debian's {}",
            packages.join(" ")
        );
    }
    update_package_lists()?;
    as_root(
        "apt-get",
        &[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat(),
    )
}

/// `apt-get update`.
pub fn update_package_lists() -> Result<()> {
    as_root("apt-get", &["update", "-qq"])
}

fn as_root(program: &str, args: &[&str]) -> Result<()> {
    if is_root() {
        shell::run(program, args)
    } else if shell::has("sudo") {
        shell::run("sudo", &[&[program], args].concat())
    } else {
        bail!("as root, run: {program} {}", args.join(" "))
    }
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
