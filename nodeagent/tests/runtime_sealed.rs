//! What a container can do to the binary that enters it: nothing to the host's file.

mod runtime_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gantry_nodeagent::runtime::{PodDir, ShimHandle};
use runtime_support::{AGENT, Node, libraries_of, memory_kb, node};

/// A binary like the agent's, as it is installed on a host.
struct Installed {
    path: PathBuf,
    unguarded: &'static str,
}

impl Installed {
    fn new(node: &Node, name: &str, unguarded: &'static str) -> Self {
        let path = node.dir.path().join(name);
        fs::copy(AGENT, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path, unguarded }
    }

    fn command(&self, first: &str, pod: &PodDir) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(first).env("GANTRY_TEST_UNGUARDED", self.unguarded);
        let option = if first == "shim" { "--dir" } else { "--pod-dir" };
        command.arg(option).arg(pod.path());
        command
    }

    fn exec(&self, pod: &PodDir, argv: &[&str]) -> Output {
        let mut command = self.command("exec", pod);
        command.args(["--container", "web", "--"]).args(argv);
        command.output().unwrap()
    }

    /// Mode, owner, size and last change of the content: what a container could change.
    fn state(&self) -> (u32, u32, u64, i64) {
        let found = fs::metadata(&self.path).unwrap();
        (found.mode(), found.uid(), found.size(), found.mtime_nsec())
    }
}

/// The program that the container asks for is the one that enters it: `/proc/self/exe`. As a shim it stays, so the container has
/// a process of its own, of its own user and without more capabilities, whose file is the host's.
fn attack(node: &Node, name: &str, unguarded: &'static str) -> (Installed, PodDir, String) {
    let installed = Installed::new(node, name, unguarded);
    let pod = node.pod(name);
    let started = installed
        .command("shim", &pod)
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(started.status.success(), "{started:?}");
    let shim = ShimHandle::connect(&pod).unwrap();
    libraries_of(shim.status().unwrap().pid, &pod.path().join("rootfs"));
    let mut start = node.sh(&pod, name, "web", "mkdir /tmp/in; sleep 1000");
    start.env = vec![("GANTRY_TEST_UNGUARDED".to_owned(), unguarded.to_owned())];
    shim.start_container(&start).unwrap();
    let mut inner = installed.command("exec", &pod);
    inner.args([
        "--container",
        "web",
        "--",
        "/proc/self/exe",
        "shim",
        "--dir",
        "/tmp/in",
    ]);
    // It keeps its output for as long as it lives.
    let words = pod.path().join("inner.log");
    let log = || {
        fs::File::options()
            .create(true)
            .append(true)
            .open(&words)
            .unwrap()
    };
    let ended = inner.stdout(log()).stderr(log()).status().unwrap();
    assert!(ended.success(), "{}", fs::read_to_string(&words).unwrap());
    let harm = "read pid rest < /tmp/in/shim.pid; exe=/proc/$pid/exe; ls -l $exe; \
                chmod 0711 $exe; chmod 0 $exe; echo x >> $exe; chmod 0711 $exe";
    let said = installed.exec(&pod, &["/bin/sh", "-c", harm]);
    let text = [said.stdout, said.stderr].concat();
    (installed, pod, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_container_cannot_change_the_binary_that_enters_it() {
    let Some(node) = node() else { return };
    let original = Installed::new(&node, "original", "").state();
    let (installed, pod, said) = attack(&node, "guarded", "");
    let found = installed.state();
    assert_eq!(
        (found.0, found.1, found.2),
        (original.0, original.1, original.2),
        "{said}"
    );
    assert!(said.contains("/memfd:gantry-nodeagent"), "{said}");
    // What it did to the copy hinders nobody either.
    let next = installed.exec(&pod, &["/bin/echo", "here"]);
    assert_eq!(String::from_utf8_lossy(&next.stdout), "here\n", "{next:?}");
    assert!(node.shim(&node.pod("next")).status().is_ok());
}

#[test]
fn control_the_binary_itself_can_be_changed_from_inside() {
    let Some(node) = node() else { return };
    let before = Installed::new(&node, "original", "").state().0;
    let (installed, _, said) = attack(&node, "unguarded", "sealed-binary");
    assert_ne!(installed.state().0, before, "{said}");
}

#[test]
fn all_processes_of_one_content_share_one_copy_and_have_names() {
    let Some(node) = node() else { return };
    let first = Installed::new(&node, "first", "");
    let second = Installed::new(&node, "second", "");
    let mut files = Vec::new();
    for (number, installed) in [first, second].iter().enumerate() {
        let pod = node.pod(&format!("n{number}"));
        assert!(
            installed
                .command("shim", &pod)
                .stdout(Stdio::null())
                .output()
                .unwrap()
                .status
                .success()
        );
        let pid = ShimHandle::connect(&pod).unwrap().status().unwrap().pid;
        let proc = Path::new("/proc").join(pid.to_string());
        files.push(fs::metadata(proc.join("exe")).unwrap().ino());
        assert_eq!(fs::read_to_string(proc.join("comm")).unwrap(), "gantry-shim\n");
        let line = fs::read_to_string(proc.join("cmdline")).unwrap();
        assert!(line.starts_with(&installed.path.display().to_string()), "{line}");
        eprintln!("shim: {} kB PSS", memory_kb(pid, "Pss:"));
    }
    // The same file in memory: a later start has found the copy of the first.
    assert_eq!(files[0], files[1]);
}
