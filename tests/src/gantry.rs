//! A Gantry of one's own, driven as a person would: by its command line.

use std::fs::DirBuilder;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Images, poll, target_dir};

/// A Gantry in a directory of its own, on a free port.
pub struct Gantry {
    data_dir: PathBuf,
    keep: bool,
    host_name: Option<String>,
    without: Option<&'static str>,
}

impl Gantry {
    /// One in a directory of its own; unless `keep`, dropping it takes everything down.
    pub fn new(name: &str, keep: bool) -> Result<Self> {
        // Short, since Unix socket paths below it are limited to 107 bytes.
        let data_dir = std::env::temp_dir().join(format!("gantry-{name}-{}", std::process::id()));
        // Nobody else's: a directory of this name that is there already is an error.
        DirBuilder::new()
            .mode(0o700)
            .create(&data_dir)
            .with_context(|| format!("cannot create {}", data_dir.display()))?;
        Ok(Self {
            data_dir,
            keep,
            host_name: None,
            without: None,
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = target_dir().join("gantry");
        let mut command = match &self.host_name {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("unshare");
                command
                    .args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", name])
                    .arg(program);
                command
            }
        };
        command
            .args(args)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        if let Some(protection) = self.without {
            command.env("GANTRY_TEST_UNGUARDED", protection);
        }
        command
    }

    /// One in a given directory that is never taken down.
    pub fn at(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            keep: true,
            host_name: None,
            without: None,
        }
    }

    /// Another one in a given directory that is never taken down, without the same protection.
    pub fn beside(&self, data_dir: PathBuf) -> Self {
        let mut other = Self::at(data_dir);
        other.without = self.without;
        other
    }

    /// With processes that see another host name: the node is called so.
    pub fn with_host_name(mut self, name: &str) -> Self {
        self.host_name = Some(name.to_owned());
        self
    }

    /// Without a protection, so that a test can show what happens then.
    pub fn without(mut self, protection: &'static str) -> Self {
        self.without = Some(protection);
        self
    }

    /// Starts what does not run.
    pub fn up(&self) -> Result<()> {
        self.run(&["up", "--detach"])
    }

    /// Starts everything for the first time, on a free port.
    pub fn first_up(&self, options: &[&str]) -> Result<()> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        self.run(
            &[
                &["up", "--detach", "--listen", &format!("127.0.0.1:{port}")],
                options,
            ]
            .concat(),
        )
    }

    /// Builds images of the catalog once for all, and takes them over.
    pub fn import_images(&self, images: Images) -> Result<()> {
        let cache = images.cache();
        Self::at(cache.clone()).run(&[&["image", "build"], images.names].concat())?;
        self.run(&["image", "import", &cache.join("images").to_string_lossy()])
    }

    /// Ends one of the processes (`orchestrator`, `nodeagent`) by a signal and waits until it is gone.
    pub fn end_process(&self, process: &str, signal: Signal) -> Result<()> {
        end(process, self.pid(process)?, signal)
    }

    /// Ends both processes, as a power cut does; pods go on.
    pub fn end_processes(&self, signal: Signal) -> Result<()> {
        let both = ["orchestrator", "nodeagent"].map(|process| self.pid(process).map(|pid| (process, pid)));
        for found in both {
            let (process, pid) = found?;
            end(process, pid, signal)?;
        }
        Ok(())
    }

    /// Runs a command, its output shown.
    pub fn run(&self, args: &[&str]) -> Result<()> {
        eprintln!("$ gantry {}", args.join(" "));
        let status = self.command(args).status().context("cannot run gantry")?;
        if !status.success() {
            bail!("`gantry {}` failed", args.join(" "));
        }
        Ok(())
    }

    /// Deploys a manifest that is in no file.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, manifest)?;
        self.run(&["deploy", &file.path().to_string_lossy()])
    }

    /// Runs a command and reads its JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.text(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("`gantry {}` printed no JSON: {text}", args.join(" ")))
    }

    /// Runs a command and returns what it prints.
    pub fn text(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args)?;
        if !output.status.success() {
            bail!(
                "`gantry {}` failed: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).context("gantry printed no text")
    }

    /// Runs a command that may fail.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        // Options come before `--`, which ends them.
        let split = args.iter().position(|a| *a == "--").unwrap_or(args.len());
        let mut command = self.command(&args[..split]);
        command.args(&args[split..]);
        command.output().context("cannot run gantry")
    }

    /// Runs a command that reads `input`, and returns what it prints.
    pub fn text_of(&self, args: &[&str], input: &[u8]) -> Result<String> {
        let mut command = self.command(&[]);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot run gantry")?;
        child.stdin.take().context("no input")?.write_all(input)?;
        let output = child.wait_with_output()?;
        String::from_utf8(output.stdout).context("gantry printed no text")
    }

    /// A command that goes on until it is ended.
    pub fn start(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.command(args);
        command.stdout(Stdio::piped());
        command.spawn().context("cannot run gantry")
    }

    /// Where `kubectl` finds it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// A file of a pod's container.
    pub fn read_file(&self, pod: &str, path: &str) -> Result<String> {
        self.text(&["exec", pod, "--", "cat", path])
    }

    /// The pid of one of the processes, from `gantry status`.
    pub fn pid(&self, process: &str) -> Result<i32> {
        let status = self.json(&["status"])?;
        let found = status["processes"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["name"] == process);
        let pid = found
            .and_then(|p| p["pid"].as_i64())
            .with_context(|| format!("{process} does not run"))?;
        Ok(i32::try_from(pid)?)
    }

    /// The pods of a network function.
    pub fn pods(&self, function: &str) -> Result<Vec<Value>> {
        let mut status = self.json(&["status"])?;
        let Value::Array(mut pods) = status["pods"].take() else {
            bail!("`gantry status` lists no pods")
        };
        pods.retain(|pod| pod["metadata"]["labels"]["gantry.dev/network-function"] == function);
        Ok(pods)
    }

    /// Name and metrics address of each pod of a network function that has an address.
    pub fn instances(&self, function: &str) -> Result<Vec<Instance>> {
        Ok(self.pods(function)?.iter().filter_map(Instance::of_pod).collect())
    }

    /// The virtual address of a network function.
    pub fn vip(&self, function: &str) -> Result<String> {
        let status = self.json(&["status"])?;
        let all = status["networkFunctions"].as_array();
        let found = all
            .into_iter()
            .flatten()
            .find(|nf| nf["metadata"]["name"] == function);
        let vip = found.and_then(|nf| nf["status"]["vip"].as_str());
        Ok(vip
            .with_context(|| format!("{function} has no virtual address"))?
            .to_owned())
    }

    /// Its data directory.
    pub fn path(&self) -> &Path {
        &self.data_dir
    }

    /// A handle that only looks: dropping it stops nothing.
    pub fn viewer(&self) -> Self {
        Self::at(self.data_dir.clone())
    }
}

/// The port on which the catalog's SIP functions show their metrics.
const METRICS_PORT: u16 = 9090;

/// An instance of a network function, and where it shows its metrics.
#[derive(Clone)]
pub struct Instance {
    /// Of the pod.
    pub name: String,
    /// Where its metrics are, if it shows some.
    pub metrics: SocketAddr,
    uid: String,
}

impl Instance {
    /// `None` while the pod has no address.
    pub fn of_pod(pod: &Value) -> Option<Self> {
        let ip = pod["status"]["podIP"].as_str()?.parse().ok()?;
        Some(Self {
            name: pod["metadata"]["name"].as_str()?.to_owned(),
            metrics: SocketAddr::new(ip, METRICS_PORT),
            uid: pod["metadata"]["uid"].as_str()?.to_owned(),
        })
    }

    /// This one only: whoever replaces an instance has its name.
    pub fn id(&self) -> String {
        format!("{}/{}", self.name, self.uid)
    }
}

fn end(process: &str, pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal {process}"))?;
    poll(Duration::from_secs(10), || is_gone(pid).then_some(()))
        .with_context(|| format!("{process} does not end"))
}

/// Gone, or only waiting to be reaped.
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

impl Drop for Gantry {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.run(&["down", "--purge"])
        {
            eprintln!("cleaning up failed: {error:#}");
        }
    }
}
