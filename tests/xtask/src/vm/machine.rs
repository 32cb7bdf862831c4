//! The machine: a stock Debian kernel in QEMU without KVM, two sockets x two cores x two threads, a NUMA node each, cgroup v2.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::kernel::Kernel;
use crate::shell;

/// Modules that the first process needs before it can load any: the host's file system comes over 9p.
const EARLY_MODULES: [&str; 5] = [
    "fs/netfs/netfs",
    "net/9p/9pnet",
    "net/9p/9pnet_virtio",
    "fs/9p/9p",
    "fs/overlayfs/overlay",
];
const INIT: &str = include_str!("../../../vm/init");
/// The script's first line, and the last one with the exit code behind it.
const IS_UP: &str = "gantry-vm: up";
const HAS_ENDED: &str = "gantry-vm: exit ";
/// From power-on to the script. A boot takes 15 s; one in some dozens hangs before its first process.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);
/// The emulator loses a machine now and then, on the way up or later; what is the fault of a test happens each time.
const BOOTS: usize = 3;

/// Of what a kernel says as it crashes.
const CRASH_LINES: usize = 80;

/// What a script did.
pub struct Output {
    pub code: i32,
    pub lines: Vec<String>,
}

enum Boot {
    Done(Output),
    /// It never came to the script.
    Hung,
    /// It went off in the middle of it, with this on its console.
    Crashed(Vec<String>),
}

/// A machine that is off.
pub struct Machine<'a> {
    kernel: &'a Kernel,
    dir: PathBuf,
}

impl<'a> Machine<'a> {
    /// Its files go below `dir`.
    pub fn new(kernel: &'a Kernel, dir: &Path) -> Self {
        Self {
            kernel,
            dir: dir.to_owned(),
        }
    }

    /// Boots, runs a shell script as root, shows each line as it comes, powers off.
    pub fn run(&self, script: &str, patience: Duration, mut show: impl FnMut(&str)) -> Result<Output> {
        let initrd = self.initrd(script)?;
        for boot in 1..=BOOTS {
            match self.boot(&initrd, patience, &mut show)? {
                Boot::Done(output) => return Ok(output),
                Boot::Hung => eprintln!("the machine did not come up ({boot} of {BOOTS} boots)"),
                Boot::Crashed(lines) => {
                    let last = lines[lines.len().saturating_sub(CRASH_LINES)..].join("\n");
                    eprintln!("the machine's kernel crashed ({boot} of {BOOTS} boots):\n{last}");
                }
            }
        }
        bail!(
            "the machine does not stay up; its kernel is {}",
            self.kernel.image.display()
        )
    }

    fn boot(&self, initrd: &Path, patience: Duration, show: &mut impl FnMut(&str)) -> Result<Boot> {
        let mut qemu = Running(
            self.qemu(initrd)
                .spawn()
                .context("cannot run qemu-system-x86_64")?,
        );
        let lines = console(&mut qemu.0)?;
        let started = Instant::now();
        let mut is_up = false;
        let mut printed = Vec::new();
        loop {
            let allowed = if is_up { patience } else { BOOT_PATIENCE };
            match lines.recv_timeout(allowed.saturating_sub(started.elapsed())) {
                Ok(text) => {
                    if let Some(code) = text.strip_prefix(HAS_ENDED) {
                        let code = code.trim().parse().context("exit code")?;
                        return Ok(Boot::Done(Output { code, lines: printed }));
                    }
                    is_up |= text.contains(IS_UP);
                    show(&text);
                    printed.push(text);
                }
                Err(RecvTimeoutError::Timeout) if is_up => bail!("not done after {patience:?}"),
                Err(RecvTimeoutError::Disconnected) if is_up => return Ok(Boot::Crashed(printed)),
                Err(_) => return Ok(Boot::Hung),
            }
        }
    }

    fn qemu(&self, initrd: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        // One thread for all CPUs: see the README of tests/vm.
        command.args(["-machine", "q35", "-accel", "tcg,thread=single,tb-size=512"]);
        command.args(["-cpu", "max,la57=off,vendor=GenuineIntel"]);
        command.args(["-smp", "8,sockets=2,cores=2,threads=2", "-m", "3072M"]);
        for (node, cpus) in [(0, "0-3"), (1, "4-7")] {
            command.args(["-object", &format!("memory-backend-ram,id=m{node},size=1536M")]);
            command.args(["-numa", &format!("node,nodeid={node},cpus={cpus},memdev=m{node}")]);
        }
        command.args(["-numa", "dist,src=0,dst=1,val=21"]);
        command.args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"]);
        command
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initrd);
        command.args([
            "-append",
            "console=ttyS0 cgroup_no_v1=all tsc=reliable nokaslr mitigations=off quiet oops=panic panic=-1",
        ]);
        for (tag, path) in [("host", Path::new("/")), ("modules", &self.kernel.modules)] {
            let path = path.display();
            command.args([
                "-fsdev",
                &format!("local,id={tag},path={path},security_model=none,readonly=on,multidevs=remap"),
                "-device",
                &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
            ]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// An initramfs with a busybox, the first process and the script.
    fn initrd(&self, script: &str) -> Result<PathBuf> {
        let root = self.dir.join("initrd");
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("cannot clear {}", root.display()))?;
        }
        for dir in ["bin", "proc", "sys", "dev", "host", "modules", "memory", "root"] {
            fs::create_dir_all(root.join(dir))?;
        }
        let busybox = shell::find("busybox").context("no busybox")?;
        fs::copy(busybox, root.join("bin/busybox"))?;
        for module in EARLY_MODULES {
            self.kernel.extract_module(module, &root)?;
        }
        fs::write(root.join("init"), INIT)?;
        // Through a pipe: what is a terminal gets colours and progress bars.
        let script = format!(
            "echo '{IS_UP}'\n{{\n{script}\necho $? > /run/code\n}} 2>&1 | cat\n\
             echo \"{HAS_ENDED}$(cat /run/code)\"\nbusybox poweroff -f\n"
        );
        fs::write(root.join("script"), script)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        pack(&root, &self.dir.join("initrd.cpio"))
    }
}

/// `cpio` in the one format that the kernel takes (Documentation/driver-api/early-userspace/buffer-format.rst).
fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let out = fs::File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let status = Command::new("sh")
        .args(["-c", "find . | busybox cpio -o -H newc 2> /dev/null"])
        .current_dir(root)
        .stdout(out)
        .status()
        .context("cannot run cpio")?;
    ensure!(status.success(), "cpio failed: {status}");
    Ok(archive.to_owned())
}

/// Ends the emulator, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has powered off by itself, or is stuck.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of the serial console as they come.
fn console(qemu: &mut Child) -> Result<Receiver<String>> {
    let output = qemu.stdout.take().context("QEMU has no output")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
