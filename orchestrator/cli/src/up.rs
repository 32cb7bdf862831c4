//! `gantry up` and `gantry down`: the processes of this machine.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use gantry_orchestrator::pki::{self, NodeCredentials};
use k8s_openapi::api::core::v1::Node;
use nix::sys::utsname::uname;

use crate::args::{DownArgs, Global, UpArgs};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::data_dir::{DataDir, Settings};
use crate::output::{self, Progress};
use crate::preflight;

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The processes of one Gantry, in start order.
pub fn daemons(data_dir: &DataDir) -> [Daemon; 2] {
    [
        Daemon::new("orchestrator", data_dir.path()),
        Daemon::new("nodeagent", data_dir.path()),
    ]
}

/// `gantry up`.
pub async fn up(args: &UpArgs, global: &Global) -> Result<()> {
    let data_dir = DataDir::new(&global.data_dir);
    let tools = Tools::find()?;
    preflight::check()?;
    let settings = settings(args, &data_dir)?;
    let [orchestrator, agent] = daemons(&data_dir);
    if orchestrator.running().is_none() {
        ensure_port_free(settings.listen)?;
    }
    data_dir.create()?;
    data_dir.save_settings(&settings)?;
    let node = node_name();
    let credentials = pki::ensure(data_dir.path(), settings.listen, &[])?.issue_node(&node)?;

    let mut started = Started::default();
    let mut progress = Progress::new("starting the control plane");
    started.start(&orchestrator, &mut server_command(&data_dir, &settings)?)?;
    let client = Client::from_kubeconfig(&data_dir.kubeconfig(), &global.namespace).await?;
    wait_until(&orchestrator, async || {
        client.get::<serde_json::Value>("/version").await.is_ok()
    })
    .await?;
    progress.set("starting the node agent");
    started.start(
        &agent,
        &mut agent_command(&data_dir, &settings, &tools, &node, &credentials),
    )?;
    wait_until(&agent, async || is_ready(&client, &node).await).await?;
    started.keep();
    drop(progress);

    output::write_out(&format!(
        "Gantry runs: https://{}, node {node} is Ready\nkubectl: export KUBECONFIG={}\n",
        settings.listen,
        data_dir.kubeconfig().display()
    ))?;
    if args.detach {
        Ok(())
    } else {
        stay(&[orchestrator, agent]).await
    }
}

/// What this `up` has started; stopped again unless all of it came up.
#[derive(Default)]
struct Started<'a>(Vec<&'a Daemon>);

impl<'a> Started<'a> {
    fn start(&mut self, daemon: &'a Daemon, command: &mut Command) -> Result<()> {
        if daemon.running().is_none() {
            daemon.start(command)?;
            self.0.push(daemon);
        }
        Ok(())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        for daemon in self.0.iter().rev() {
            // The error that brought us here says more than one about stopping.
            let _ = daemon.stop(STOP_PATIENCE);
        }
    }
}

/// In the foreground: until Ctrl-C, SIGTERM, or the end of a process.
async fn stay(daemons: &[Daemon]) -> Result<()> {
    output::write_out("Ctrl-C stops the control plane and the agent; pods go on until `gantry down`\n")?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        // Cancel-safe: a signal that is missed in one round is still pending in the next; sleep holds nothing.
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        if let Some(ended) = daemons.iter().find(|d| d.running().is_none()) {
            bail!(
                "{} ended; the last lines of {}:\n{}",
                ended.name(),
                ended.log_file().display(),
                ended.log_tail()
            );
        }
    }
    for daemon in daemons.iter().rev() {
        daemon.stop(STOP_PATIENCE)?;
    }
    Ok(())
}

/// `gantry down`.
pub fn down(args: &DownArgs, global: &Global) -> Result<()> {
    let data_dir = DataDir::new(&global.data_dir);
    if !data_dir.path().is_dir() {
        return output::write_out(&format!("nothing runs from {}\n", data_dir.path().display()));
    }
    preflight::require_root("gantry down")?;
    let tools = Tools::find()?;
    let mut progress = Progress::new("stopping the control plane and the agent");
    let [orchestrator, agent] = daemons(&data_dir);
    orchestrator.stop(STOP_PATIENCE)?;
    agent.stop(STOP_PATIENCE)?;
    progress.set("stopping pods, removing networks");
    purge_node(&data_dir, &tools)?;
    drop(progress);
    if !args.purge {
        return output::write_out("stopped; `gantry up` starts again what was deployed\n");
    }
    // Only what Gantry made: a directory named by mistake keeps its other content, and is said so.
    for name in ["pki", "images", "agent"] {
        remove(&data_dir.path().join(name))?;
    }
    let files = [
        "kubeconfig",
        "settings.json",
        "store.redb",
        "orchestrator.log",
        "nodeagent.log",
        "orchestrator.pid",
        "nodeagent.pid",
    ];
    for name in files {
        remove(&data_dir.path().join(name))?;
    }
    match fs::remove_dir(data_dir.path()) {
        Ok(()) => output::write_out(&format!("stopped; {} removed\n", data_dir.path().display())),
        Err(error) => output::write_out(&format!(
            "stopped; {} stays: {error}\n",
            data_dir.path().display()
        )),
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn purge_node(data_dir: &DataDir, tools: &Tools) -> Result<()> {
    let output = Command::new(&tools.agent)
        .args(["purge", "--instance", &data_dir.instance(), "--data-dir"])
        .arg(data_dir.path())
        .arg("--cni-bin")
        .arg(&tools.cni)
        .output()
        .context("cannot run gantry-nodeagent purge")?;
    if !output.status.success() {
        bail!(
            "gantry-nodeagent purge failed:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}

fn settings(args: &UpArgs, data_dir: &DataDir) -> Result<Settings> {
    let saved = data_dir.load_settings()?;
    let base = saved.clone().unwrap_or_else(|| Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 6443)),
        pod_cidr: "10.85.0.0/16".parse().expect("a constant network"),
        service_cidr: "10.86.0.0/16".parse().expect("a constant network"),
        reserved_cpus: "0".to_owned(),
    });
    let wanted = Settings {
        listen: args.listen.unwrap_or(base.listen),
        pod_cidr: args.pod_cidr.unwrap_or(base.pod_cidr),
        service_cidr: args.service_cidr.unwrap_or(base.service_cidr),
        reserved_cpus: args.reserved_cpus.clone().unwrap_or(base.reserved_cpus),
    };
    if wanted.reserved_cpus != "none" {
        wanted
            .reserved_cpus
            .parse::<gantry_topology::CpuSet>()
            .context("--reserved-cpus")?;
    }
    if wanted.pod_cidr.contains(&wanted.service_cidr) || wanted.service_cidr.contains(&wanted.pod_cidr) {
        bail!(
            "--pod-cidr {} and --service-cidr {} overlap; choose two networks",
            wanted.pod_cidr,
            wanted.service_cidr
        );
    }
    if let Some(saved) =
        saved.filter(|saved| saved.pod_cidr != wanted.pod_cidr || saved.service_cidr != wanted.service_cidr)
    {
        bail!(
            "{} was set up with pods in {} and services in {}; these cannot change: use another --data-dir, or `gantry down --purge` first",
            data_dir.path().display(),
            saved.pod_cidr,
            saved.service_cidr
        );
    }
    Ok(wanted)
}

fn ensure_port_free(listen: SocketAddr) -> Result<()> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if TcpStream::connect_timeout(&listen, Duration::from_secs(1)).is_ok() => Err(error)
            .with_context(|| {
                format!("{listen} is in use by another program; choose a free one with --listen ADDR:PORT")
            }),
        Err(error) => Err(error)
            .with_context(|| format!("cannot listen on {listen}; choose another address with --listen")),
    }
}

async fn wait_until(daemon: &Daemon, ready: impl AsyncFn() -> bool) -> Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    while !ready().await {
        let ended = daemon.running().is_none();
        if ended || Instant::now() > deadline {
            let what = if ended { "ended" } else { "is not ready in time" };
            bail!(
                "{} {what}; the last lines of {}:\n{}",
                daemon.name(),
                daemon.log_file().display(),
                daemon.log_tail()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn is_ready(client: &Client, node: &str) -> bool {
    let Ok(Some(node)) = client.find::<Node>(&format!("/api/v1/nodes/{node}")).await else {
        return false;
    };
    let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn server_command(data_dir: &DataDir, settings: &Settings) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("cannot find the gantry binary")?);
    command
        .args(["server", "--listen", &settings.listen.to_string()])
        .args([
            "--pod-cidr",
            &settings.pod_cidr.to_string(),
            "--service-cidr",
            &settings.service_cidr.to_string(),
        ])
        .arg("--data-dir")
        .arg(data_dir.path());
    Ok(command)
}

fn agent_command(
    data_dir: &DataDir,
    settings: &Settings,
    tools: &Tools,
    node: &str,
    credentials: &NodeCredentials,
) -> Command {
    let mut command = Command::new(&tools.agent);
    command
        .args(["agent", "--node", node, "--instance", &data_dir.instance()])
        .args(["--orchestrator", &format!("https://{}", settings.listen)])
        .args(["--reserved-cpus", &settings.reserved_cpus])
        .arg("--data-dir")
        .arg(data_dir.path())
        .arg("--images")
        .arg(data_dir.images())
        .arg("--cni-bin")
        .arg(&tools.cni);
    for (option, file) in [
        ("--ca", &credentials.ca),
        ("--cert", &credentials.certificate),
        ("--key", &credentials.key),
    ] {
        command.arg(option).arg(file);
    }
    command
}

fn node_name() -> String {
    let name = uname()
        .map(|u| u.nodename().to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// The binaries beside this one.
struct Tools {
    agent: PathBuf,
    cni: PathBuf,
}

impl Tools {
    fn find() -> Result<Self> {
        let own = env::current_exe().context("cannot find the gantry binary")?;
        let beside = |name: &str| {
            let path = own.with_file_name(name);
            path.is_file().then_some(path).with_context(|| {
                format!(
                    "{name} should be beside {}; build it with `cargo build -p {name}`",
                    own.display()
                )
            })
        };
        Ok(Self {
            agent: beside("gantry-nodeagent")?,
            cni: beside("gantry-cni")?,
        })
    }
}
