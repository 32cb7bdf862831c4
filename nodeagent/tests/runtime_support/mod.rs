//! A pod to try things on: real cgroups, a root file system of busybox, everything gone at the end.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gantry_nodeagent::host::cgroup::Cgroups;
use gantry_nodeagent::runtime::ids::IdRanges;
use gantry_nodeagent::runtime::namespaces::pin_mapped;
use gantry_nodeagent::runtime::{
    ContainerStart, ContainerState, ContainerUser, LOG_MAX_BYTES, PodDir, RuntimeDir, SeccompProfile,
    ShimHandle, UserNamespace, purge,
};
use gantry_nodeagent_api::{ContainerResources, Security};
use gantry_topology::CpuSet;

/// The binary under test.
pub const AGENT: &str = env!("CARGO_BIN_EXE_gantry-nodeagent");
/// Long enough for a loaded machine and for one that is emulated; nothing waits that long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// One instance with its own directory and cgroups.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub cgroups: Cgroups,
    pub instance: String,
}

/// `None`, with a loud word, where containers cannot run.
pub fn node() -> Option<Node> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if let Err(why) = can_run() {
        eprintln!("SKIPPED: {why}");
        let required = std::env::var("REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|area| area == "cgroup"),
            "REQUIRE=cgroup, but {why}"
        );
        return None;
    }
    let instance = format!(
        "t{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    let dir = tempfile::Builder::new()
        .prefix("gantry-runtime-")
        .tempdir()
        .unwrap();
    let cgroups = Cgroups::detect(&instance).unwrap();
    Some(Node {
        dir,
        cgroups,
        instance,
    })
}

fn can_run() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("containers need root".to_owned());
    }
    busybox()
        .map(|_| ())
        .ok_or_else(|| "no static busybox (apt-get install busybox-static)".to_owned())?;
    Cgroups::detect("probe").map(|_| ()).map_err(|e| e.to_string())
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|p| p.exists())
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(e) = purge(self.dir.path(), &self.cgroups, PATIENCE) {
            eprintln!("left behind by {}: {e}", self.instance);
        }
    }
}

impl Node {
    /// A pod's directory with a root file system in it.
    pub fn pod(&self, uid: &str) -> PodDir {
        let pod = RuntimeDir::new(self.dir.path()).create_pod(uid).unwrap();
        let root = pod.path().join("rootfs");
        for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
        for tool in [
            "sh", "cat", "echo", "sleep", "id", "ls", "grep", "head", "hostname", "kill", "dd", "stty",
            "yes", "chmod", "mkdir",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        pod
    }

    pub fn shim(&self, pod: &PodDir) -> ShimHandle {
        ShimHandle::spawn(pod, Path::new(AGENT)).unwrap()
    }

    /// Makes the container's cgroup, and the request to start `sh -c script` in it.
    pub fn sh(&self, pod: &PodDir, uid: &str, name: &str, script: &str) -> ContainerStart {
        let resources = ContainerResources {
            cpu_request_milli: 100,
            ..ContainerResources::default()
        };
        self.cgroups
            .create(uid, name, &resources, &cpus("0-1"), &[])
            .unwrap();
        ContainerStart {
            name: name.to_owned(),
            attempt: 0,
            rootfs: pod.path().join("rootfs"),
            netns: None,
            userns: None,
            hostname: "a-pod".to_owned(),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: Vec::new(),
            cwd: String::new(),
            user: ContainerUser::default(),
            image_volumes: Vec::new(),
            mounts: Vec::new(),
            security: Security::default(),
            seccomp: SeccompProfile::default(),
            sysctls: Default::default(),
            open_files: None,
            oom_score_adj: 0,
            cgroup: self.cgroups.container_path(uid, name),
            log_path: pod.path().join(format!("{name}.log")),
            log_max_bytes: LOG_MAX_BYTES,
            oom_events: None,
            last_words: Default::default(),
        }
    }

    /// Ids of the pod's own: its root file system gets them, and the start the namespaces that go with them. The host's id of root.
    pub fn own_ids(&self, pod: &PodDir, uid: &str, start: &mut ContainerStart) -> u32 {
        let first = IdRanges::new(self.dir.path()).claim(uid).unwrap();
        let [path, net] = ["userns", "netns"].map(|kind| self.dir.path().join(kind).join(uid));
        pin_mapped(first, &path, &net).unwrap();
        let mut rest = vec![pod.path().join("rootfs")];
        while let Some(path) = rest.pop() {
            std::os::unix::fs::lchown(&path, Some(first), Some(first)).unwrap();
            if path.is_dir() && !path.is_symlink() {
                rest.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        (start.userns, start.netns) = (Some(UserNamespace { path, first }), Some(net));
        first
    }

    /// `gantry-nodeagent exec` of a shell command.
    pub fn exec(&self, pod: &PodDir, name: &str, script: &str) -> Output {
        Command::new(AGENT)
            .args(["exec", "--container", name, "--pod-dir"])
            .arg(pod.path())
            .args(["--", "/bin/sh", "-c", script])
            .output()
            .unwrap()
    }
}

pub fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

/// Polls until `look` finds something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the container's last attempt is over; from the record on disk, as an agent that was away would.
pub fn exit_on_record(pod: &PodDir, name: &str) -> ContainerState {
    until("exit", || {
        pod.states()
            .unwrap()
            .into_iter()
            .find(|s| s.name == name && !s.running())
    })
}

/// The text of a log, without times and tags.
pub fn logged(start: &ContainerStart) -> String {
    let text = fs::read_to_string(&start.log_path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.splitn(4, ' ').nth(3))
        .map(|l| format!("{l}\n"))
        .collect()
}

/// False also for a zombie.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

/// Puts what a process has loaded into a root file system, where its program then runs.
pub fn libraries_of(pid: u32, root: &Path) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut files: Vec<&str> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .collect();
    files.sort_unstable();
    files.dedup();
    let loader = "/lib64/ld-linux-x86-64.so.2";
    for file in files.into_iter().chain([loader]) {
        let target = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, &target).unwrap();
    }
    // Where a distribution has merged /usr, programs look in the links.
    let lib = root.join("lib");
    if root.join("usr/lib").is_dir() && !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", lib).unwrap();
    }
}

/// A row of `smaps_rollup` (`proc_pid_smaps(5)`), in kB.
pub fn memory_kb(pid: u32, row: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(row)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
