//! `gantry up`: the processes of this machine.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use gantry_orchestrator::pki::{Issuer, NodeCredentials};
use gantry_orchestrator::quantity;
use gantry_orchestrator::state::STORE;
use k8s_openapi::api::core::v1::Node;
use nix::sys::utsname::uname;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Global, UpArgs};
use crate::backup;
use crate::client::Client;
use crate::daemon::Daemon;
use crate::data_dir::{DataDir, Settings};
use crate::output::{self, Progress};
use crate::preflight;

const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a process may take to end by itself.
pub const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The processes of one Gantry, in start order.
pub fn daemons(data_dir: &DataDir) -> [Daemon; 2] {
    [
        Daemon::new("orchestrator", data_dir.path()),
        Daemon::new("nodeagent", data_dir.path()),
    ]
}

/// `gantry up`.
pub async fn up(args: &UpArgs, global: &Global) -> Result<()> {
    let data_dir = global.data_dir();
    let tools = Tools::find()?;
    preflight::check()?;
    let [orchestrator, agent] = daemons(&data_dir);
    let saved = saved_settings(args, &data_dir)?;
    let runs = orchestrator.running().or(agent.running()).is_some();
    let mut settings = settings(args, &data_dir, saved.as_ref(), runs)?;
    if orchestrator.running().is_none() {
        preflight::port(settings.listen).await?;
    }
    data_dir.create()?;
    let lock = data_dir.lock()?;
    backup::remove_stage(&data_dir);
    data_dir.save_settings(&settings)?;
    let node = node_name();

    let mut started = Started::default();
    let mut progress = Progress::new("starting the control plane");
    started.start(&orchestrator, &mut server_command(&data_dir, &settings)?)?;
    wait_until(&orchestrator, async || answers(&data_dir, global).await).await?;
    let client = Client::of_data_dir(&data_dir, &global.namespace).await?;
    // From now on an empty store beside these settings is a loss, and no first start.
    let issuer = Issuer::open(data_dir.path())?;
    settings.cluster = issuer.cluster();
    data_dir.save_settings(&settings)?;
    data_dir.copy_settings(&settings)?;
    let credentials = issuer.issue_node(&node)?;
    progress.set("starting the node agent");
    started.start(
        &agent,
        &mut agent_command(&data_dir, &settings, &tools, &node, &credentials)?,
    )?;
    wait_until(&agent, async || is_ready(&client, &node).await).await?;
    started.keep();
    drop(lock);
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

/// In the foreground: until Ctrl-C, SIGTERM, or the end of a process, which takes the other one along.
async fn stay(daemons: &[Daemon]) -> Result<()> {
    output::write_out("Ctrl-C stops the control plane and the agent; pods go on until `gantry down`\n")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = loop {
        // Cancel-safe: a signal that is missed in one round is still pending in the next; sleep holds nothing.
        tokio::select! {
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        if let Some(ended) = daemons.iter().find(|d| d.running().is_none()) {
            break Some(ended);
        }
    };
    // Whoever stopped it with `gantry down` removes its pid file right after.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let failure = ended.filter(|d| d.is_expected()).map(|d| {
        let log = d.log_file().display();
        format!("{} ended; the last lines of {log}:\n{}", d.name(), d.log_tail())
    });
    for daemon in daemons.iter().rev() {
        daemon.stop(STOP_PATIENCE)?;
    }
    failure.map_or(Ok(()), |text| Err(anyhow!(text)))
}

/// The settings of the directory. Where there is state and no settings, nobody can guess them: they must be given.
fn saved_settings(args: &UpArgs, data_dir: &DataDir) -> Result<Option<Settings>> {
    let given = args.listen.is_some() && args.pod_cidr.is_some() && args.service_cidr.is_some();
    let problem = match data_dir.load_settings() {
        Ok(None) if data_dir.path().join(STORE).exists() => anyhow!("settings.json is missing"),
        Ok(saved) => return Ok(saved),
        Err(error) => error,
    };
    if given {
        return Ok(None);
    }
    Err(problem.context(format!(
        "{}: put its settings back (`gantry restore FILE`), or say them again as they were: `gantry up --listen ADDR:PORT \
         --pod-cidr CIDR --service-cidr CIDR`",
        data_dir.path().display()
    )))
}

/// What `up` was told now and before. What `runs` keeps its settings: clients and the agent know the address.
fn settings(args: &UpArgs, data_dir: &DataDir, saved: Option<&Settings>, runs: bool) -> Result<Settings> {
    let base = saved.cloned().unwrap_or_else(|| Settings {
        instance: data_dir.new_instance(),
        listen: SocketAddr::from(([127, 0, 0, 1], 6443)),
        pod_cidr: "10.85.0.0/16".parse().expect("a constant network"),
        service_cidr: "10.86.0.0/16".parse().expect("a constant network"),
        reserved_cpus: "0".to_owned(),
        reserved_memory: None,
        cluster: None,
    });
    let wanted = Settings {
        instance: base.instance,
        cluster: base.cluster,
        listen: args.listen.unwrap_or(base.listen),
        pod_cidr: args.pod_cidr.unwrap_or(base.pod_cidr),
        service_cidr: args.service_cidr.unwrap_or(base.service_cidr),
        reserved_cpus: args.reserved_cpus.clone().unwrap_or(base.reserved_cpus),
        reserved_memory: args.reserved_memory.clone().or(base.reserved_memory),
    };
    if wanted.reserved_cpus != "none" {
        wanted
            .reserved_cpus
            .parse::<gantry_topology::CpuSet>()
            .context("--reserved-cpus")?;
    }
    reserved_bytes(&wanted)?;
    if wanted.pod_cidr.contains(&wanted.service_cidr) || wanted.service_cidr.contains(&wanted.pod_cidr) {
        bail!(
            "--pod-cidr {} and --service-cidr {} overlap; choose two networks",
            wanted.pod_cidr,
            wanted.service_cidr
        );
    }
    let Some(saved) = saved.filter(|saved| **saved != wanted) else {
        return Ok(wanted);
    };
    let path = data_dir.path().display();
    if saved.pod_cidr != wanted.pod_cidr || saved.service_cidr != wanted.service_cidr {
        bail!(
            "{path} was set up with pods in {} and services in {}; these cannot change: use another --data-dir, or `gantry down --purge` first",
            saved.pod_cidr,
            saved.service_cidr
        );
    }
    if runs {
        bail!(
            "{path} runs with --listen {} --reserved-cpus {} --reserved-memory {}; `gantry down` first, then `gantry up` with the \
             new options",
            saved.listen,
            saved.reserved_cpus,
            saved.reserved_memory.as_deref().unwrap_or("512Mi")
        );
    }
    Ok(wanted)
}

/// What is kept for the host in bytes, if that was said.
fn reserved_bytes(settings: &Settings) -> Result<Option<u64>> {
    let wrong = |text: &str| format!("--reserved-memory {text}: write it as a quantity, for example 1Gi");
    let text = settings.reserved_memory.as_deref();
    text.map(|text| quantity::units(text).with_context(|| wrong(text)))
        .transpose()
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

/// The orchestrator writes the kubeconfig before it serves; an older one may still be there until then.
async fn answers(data_dir: &DataDir, global: &Global) -> bool {
    match Client::of_data_dir(data_dir, &global.namespace).await {
        Ok(client) => client.get::<serde_json::Value>("/version").await.is_ok(),
        Err(_) => false,
    }
}

/// Ready, and an agent says so now: what one of before has said stays for a while.
async fn is_ready(client: &Client, node: &str) -> bool {
    let Ok(Some(node)) = client.find::<Node>(&format!("/api/v1/nodes/{node}")).await else {
        return false;
    };
    let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True" && c.reason.as_deref() == Some("AgentReady"))
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
    if let Some(cluster) = &settings.cluster {
        command.args(["--cluster", cluster]);
    }
    Ok(command)
}

fn agent_command(
    data_dir: &DataDir,
    settings: &Settings,
    tools: &Tools,
    node: &str,
    credentials: &NodeCredentials,
) -> Result<Command> {
    let mut command = Command::new(&tools.agent);
    command
        .args(["agent", "--node", node, "--instance", &settings.instance])
        .args(["--orchestrator", &format!("https://{}", settings.listen)])
        .args(["--reserved-cpus", &settings.reserved_cpus])
        .arg("--data-dir")
        .arg(data_dir.path())
        .arg("--images")
        .arg(data_dir.images())
        .arg("--cni-bin")
        .arg(&tools.cni);
    if let Some(cluster) = &settings.cluster {
        command.args(["--cluster", cluster]);
    }
    if let Some(bytes) = reserved_bytes(settings)? {
        command.args(["--reserved-memory", &bytes.to_string()]);
    }
    for (option, file) in [
        ("--ca", &credentials.ca),
        ("--cert", &credentials.certificate),
        ("--key", &credentials.key),
    ] {
        command.arg(option).arg(file);
    }
    Ok(command)
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
pub struct Tools {
    pub agent: PathBuf,
    pub cni: PathBuf,
}

impl Tools {
    pub fn find() -> Result<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_keeps_its_settings() {
        let data_dir = DataDir::new("/nonexistent/gantry".as_ref());
        let none = UpArgs {
            listen: None,
            detach: true,
            reserved_cpus: None,
            reserved_memory: None,
            pod_cidr: None,
            service_cidr: None,
        };
        let saved = settings(&none, &data_dir, None, false).unwrap();
        let other_port = UpArgs {
            listen: Some("127.0.0.1:1".parse().unwrap()),
            ..none
        };
        let refused = |args: &UpArgs| {
            settings(args, &data_dir, Some(&saved), true)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&other_port).contains("gantry down"));
        let other_cpus = UpArgs {
            listen: None,
            reserved_cpus: Some("0-1".to_owned()),
            ..other_port
        };
        assert!(refused(&other_cpus).contains("--reserved-cpus 0 "));
        let changed = settings(&other_cpus, &data_dir, Some(&saved), false).unwrap();
        assert_eq!(
            (changed.reserved_cpus.as_str(), changed.instance),
            ("0-1", saved.instance.clone())
        );
        let same = UpArgs {
            reserved_cpus: Some("0".to_owned()),
            ..other_cpus
        };
        assert_eq!(settings(&same, &data_dir, Some(&saved), true).unwrap(), saved);
        let memory = |text: &str| UpArgs {
            listen: None,
            reserved_cpus: None,
            reserved_memory: Some(text.to_owned()),
            ..same
        };
        assert!(refused(&memory("1Gi")).contains("--reserved-memory 512Mi;"));
        assert!(refused(&memory("much")).contains("for example 1Gi"));
        let more = settings(&memory("1Gi"), &data_dir, Some(&saved), false).unwrap();
        assert_eq!(reserved_bytes(&more).unwrap(), Some(1 << 30));
    }
}
