//! The programs of running pods without Gantry: the same files, arguments, users and limits, started by hand in one network namespace
//! that has all their addresses. A floor to measure against.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{poll, processes};

/// Files of a control group that bound a container, by controller of v1; v2 has all in one place.
const LIMITS: [(&str, &str); 5] = [
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.cfs_quota_us"),
    ("memory", "memory.limit_in_bytes"),
    ("", "cpu.max"),
    ("", "memory.max"),
];
const PATIENCE: Duration = Duration::from_secs(30);

/// A program, as a pod's container ran it.
pub struct Program {
    name: String,
    /// A copy of all files that it saw.
    root: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    user: u32,
    group: u32,
    address: Ipv4Addr,
    /// What tells that it is ready: a command within its files, or a port.
    ready: Ready,
    limits: BTreeMap<(&'static str, &'static str), String>,
}

enum Ready {
    Command(Vec<String>),
    Port(u64),
    Started,
}

impl Program {
    /// What the container of this name runs in a pod that is up, its files copied below `place`.
    pub fn of_pod(pod: &Value, container: &str, place: &Path) -> Result<Self> {
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
        let mut specs = pod["spec"]["containers"].as_array().into_iter().flatten();
        let spec = specs
            .find(|spec| spec["name"] == container)
            .with_context(|| format!("{name} has no container {container}"))?;
        let pid = first_process(pod, container)?;
        let root = place.join(name);
        copy_files(pid, &root)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let id = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let strings = |file: &str| -> Result<Vec<String>> {
            let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
            let parts = bytes.split(|b| *b == 0).filter(|part| !part.is_empty());
            Ok(parts
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect())
        };
        let variables = strings("environ")?;
        let pairs = variables.iter().filter_map(|text| text.split_once('='));
        Ok(Self {
            name: name.to_owned(),
            root,
            arguments: strings("cmdline")?,
            environment: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            user: id("Uid:").context("a process has a user")?,
            group: id("Gid:").context("a process has a group")?,
            address: pod["status"]["podIP"]
                .as_str()
                .and_then(|ip| ip.parse().ok())
                .with_context(|| format!("{name} has no address"))?,
            ready: Ready::of(&spec["readinessProbe"]),
            limits: limits(pid)?,
        })
    }

    /// Says something else wherever its configuration has this (a basic regular expression).
    pub fn replace(&self, old: &str, new: &str) -> Result<()> {
        let script = "grep -rlI -- \"$0\" . | xargs -r sed -i \"s/$0/$1/g\"";
        let mut sed = Command::new("sh");
        run(sed
            .args(["-c", script, old, new])
            .current_dir(self.root.join("etc")))
    }

    /// Adds a line to a file of its configuration.
    pub fn append(&self, file: &str, line: &str) -> Result<()> {
        let path = self.root.join("etc").join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("{} has no {file}", self.name))?;
        Ok(fs::write(path, format!("{text}{line}\n"))?)
    }

    /// Of the pod.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Ready {
    fn of(probe: &Value) -> Self {
        let command = probe["exec"]["command"].as_array().into_iter().flatten();
        let command: Vec<String> = command.filter_map(Value::as_str).map(str::to_owned).collect();
        let port = probe["httpGet"]["port"]
            .as_u64()
            .or(probe["tcpSocket"]["port"].as_u64());
        match port {
            _ if !command.is_empty() => Self::Command(command),
            Some(port) => Self::Port(port),
            None => Self::Started,
        }
    }
}

/// Programs that run; dropping it ends them and takes their network and groups away.
pub struct Running {
    netns: String,
    children: Vec<(String, Child)>,
    groups: Vec<PathBuf>,
}

impl Running {
    /// A network namespace with these addresses and this network, all of them its own.
    pub fn network<'a>(addresses: impl IntoIterator<Item = &'a Ipv4Addr>, devices: &str) -> Result<Self> {
        let netns = format!("gantry-bare-{}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &netns]))?;
        let running = Self {
            netns,
            children: Vec::new(),
            groups: Vec::new(),
        };
        running.ip(&["link", "set", "lo", "up"])?;
        // Some programs do not take an address of the loopback for their own. What is local goes by the loopback all the same.
        running.ip(&["link", "add", "own", "type", "veth", "peer", "name", "other"])?;
        running.ip(&["link", "set", "own", "up"])?;
        for address in addresses {
            running.ip(&["addr", "add", &format!("{address}/32"), "dev", "own"])?;
        }
        running.ip(&["route", "add", "local", devices, "dev", "lo"])?;
        let any_port = "net.ipv4.ip_unprivileged_port_start=0";
        run(running.inside("sysctl").args(["-qw", any_port]))?;
        Ok(running)
    }

    /// Starts a program and waits until it is ready. What it writes is for `finish`, unless it is never to be finished.
    pub fn start(&mut self, program: &Program, finished: bool) -> Result<()> {
        let group = self.group(program)?;
        let joined: Vec<String> = group
            .iter()
            .map(|group| format!("echo $$ > {}/cgroup.procs;", group.display()))
            .collect();
        let mounts =
            "mount --rbind /dev \"$0/dev\"; mount -t proc proc \"$0/proc\"; mount --rbind /sys \"$0/sys\"";
        let script = format!("set -e; {} {mounts}; exec chroot \"$@\"", joined.join(" "));
        let root = program.root.to_string_lossy();
        let words = program.root.with_extension("log");
        let log = File::create(&words)?;
        let output = match finished {
            true => Stdio::piped(),
            false => log.try_clone()?.into(),
        };
        let mut command = self.inside("unshare");
        command
            .args(["--mount", "sh", "-c", &script, &root])
            .arg(format!("--userspec={}:{}", program.user, program.group))
            .arg(&*root)
            .args(&program.arguments)
            .env_clear()
            .envs(program.environment.iter().cloned())
            // Own tools are found by it until the program's files are all there is.
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stderr(log)
            .stdout(output);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.name))?;
        let process = child.id();
        self.groups.extend(group);
        self.children.push((program.name.clone(), child));
        if poll(PATIENCE, || self.is_ready(program, process).then_some(())).is_none() {
            let said = fs::read_to_string(&words)?;
            bail!("{} does not become ready by itself: {said}", program.name);
        }
        Ok(())
    }

    /// Waits for the end of the program that was started last; what it wrote.
    pub fn finish(&mut self, patience: Duration) -> Result<String> {
        let (name, mut child) = self.children.pop().context("nothing runs")?;
        let mut output = child.stdout.take().context("its output goes elsewhere")?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text)?;
        let ended = poll(patience, || child.try_wait().ok().flatten());
        let status = ended.with_context(|| format!("{name} goes on"))?;
        ensure!(status.success(), "{name}: {status}");
        Ok(text)
    }

    /// CPU time that each program and its children have used so far.
    pub fn cpu(&self) -> Result<BTreeMap<String, Duration>> {
        let of = |(name, _): &(String, Child)| {
            let pids = processes::in_group(&self.group_name(name))?;
            Ok((name.clone(), processes::cpu(&pids)))
        };
        self.children.iter().map(of).collect()
    }

    /// Asks what its pod was asked, of the process that was started.
    fn is_ready(&self, program: &Program, process: u32) -> bool {
        let asked = match &program.ready {
            Ready::Started => return true,
            Ready::Command(command) => Command::new("nsenter")
                .args(["--net", "--mount", "--target", &process.to_string(), "chroot"])
                .arg(&program.root)
                .args(command)
                .output(),
            Ready::Port(port) => {
                let connect = format!("exec 3<>/dev/tcp/{}/{port}", program.address);
                self.inside("bash").args(["-c", &connect]).output()
            }
        };
        asked.is_ok_and(|output| output.status.success())
    }

    /// Control groups with the limits that the program had.
    fn group(&self, program: &Program) -> Result<Vec<PathBuf>> {
        let mut groups = Vec::new();
        for ((controller, file), value) in &program.limits {
            let top = Path::new("/sys/fs/cgroup").join(controller);
            let group = top.join(self.group_name(&program.name));
            if !groups.contains(&group) {
                fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
                groups.push(group.clone());
            }
            fs::write(group.join(file), value)
                .with_context(|| format!("cannot write {file} of {}", program.name))?;
        }
        ensure!(
            !groups.is_empty(),
            "{} has no limits to be bound by",
            program.name
        );
        Ok(groups)
    }

    fn group_name(&self, program: &str) -> String {
        format!("{}-{program}", self.netns)
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg(program);
        command
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.netns]).args(arguments))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (name, mut child) in std::mem::take(&mut self.children) {
            let pids = processes::in_group(&self.group_name(&name)).unwrap_or_default();
            for pid in pids {
                // One that ended with its parent is as dead.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = child.wait();
        }
        for group in &self.groups {
            // The kernel lets go of a group when the last of its processes is reaped.
            poll(PATIENCE, || fs::remove_dir(group).is_ok().then_some(()));
        }
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}

/// The process that a container began with: the first in its own numbers, in the group that is called as it is.
fn first_process(pod: &Value, container: &str) -> Result<i32> {
    let is_first = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.is_some_and(|numbers| numbers.split_whitespace().skip(1).last() == Some("1"))
    };
    let own = format!("/{container}");
    let ours = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.lines().any(|group| group.ends_with(&own))
    };
    let found = processes::of_pod(pod)?
        .into_iter()
        .find(|pid| is_first(pid) && ours(pid));
    found.with_context(|| format!("container {container} does not run"))
}

/// All files that a process sees but the kernel's.
fn copy_files(pid: i32, root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    let script =
        "cd \"$0\" && tar --exclude=./proc --exclude=./sys --exclude=./dev -cf - . | tar -xpf - -C \"$1\"";
    let from = format!("/proc/{pid}/root");
    run(Command::new("sh").args(["-c", script, &from]).arg(root))?;
    for dir in ["proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir))?;
    }
    Ok(())
}

/// What bounds a process, where its groups say something.
fn limits(pid: i32) -> Result<BTreeMap<(&'static str, &'static str), String>> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mut limits = BTreeMap::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            bail!("a group of {pid} is none: {line}")
        };
        for (controller, file) in LIMITS {
            if controllers.split(',').any(|name| name == controller) {
                let group = Path::new("/sys/fs/cgroup").join(controller);
                let file_of_group = group.join(path.trim_start_matches('/')).join(file);
                if let Ok(value) = fs::read_to_string(file_of_group) {
                    limits.insert((controller, file), value.trim().to_owned());
                }
            }
        }
    }
    Ok(limits)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", why.trim());
    Ok(())
}
