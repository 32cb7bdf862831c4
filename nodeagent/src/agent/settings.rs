//! What the agent was told on its command line, checked once.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gantry_topology::CpuSet;

use crate::runtime::sealed;

/// Arguments of `gantry-nodeagent agent`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Gantry's data directory; the agent's own files are in its `agent/`
    #[arg(long)]
    data_dir: PathBuf,
    /// This node's name, as in its certificate
    #[arg(long)]
    node: String,
    /// Where the orchestrator listens for agents: https://HOST:PORT
    #[arg(long)]
    orchestrator: http::Uri,
    /// Certificate authority of the orchestrator (PEM)
    #[arg(long)]
    ca: PathBuf,
    /// This node's certificate (PEM)
    #[arg(long)]
    cert: PathBuf,
    /// Its key (PEM)
    #[arg(long)]
    key: PathBuf,
    /// CPUs kept for the host's own work, or `none` [default: the first physical core]
    #[arg(long)]
    reserved_cpus: Option<String>,
    /// Bytes of memory kept for the host's own work
    #[arg(long, default_value_t = 512 << 20)]
    reserved_memory: u64,
    /// Bytes of the data directory's file system that are kept free: with less left, pods are evicted [default: a tenth, at
    /// most 2 GiB]
    #[arg(long)]
    reserved_storage: Option<u64>,
    /// The CNI plugin [default: gantry-cni beside this program]
    #[arg(long)]
    cni_bin: Option<PathBuf>,
    /// The image store [default: DATA_DIR/images]
    #[arg(long)]
    images: Option<PathBuf>,
    /// Short name of this Gantry on the node: 1 to 6 lower-case letters and digits
    #[arg(long)]
    instance: String,
    /// Id of the cluster that this node belongs to [default: the one in the ledger, or the first that is heard]
    #[arg(long)]
    cluster: Option<String>,
    /// Address by which the node is known [default: the one that leads to the orchestrator]
    #[arg(long)]
    address: Option<IpAddr>,
    /// The file that standard error and output go to: begun anew when it is long
    #[arg(long)]
    pub(super) log_file: Option<PathBuf>,
}

/// Arguments of `gantry-nodeagent purge`.
#[derive(clap::Args, Clone, Debug)]
pub struct PurgeArgs {
    /// Gantry's data directory
    #[arg(long)]
    pub(super) data_dir: PathBuf,
    /// Short name of this Gantry on the node
    #[arg(long)]
    pub(super) instance: String,
    /// The CNI plugin [default: gantry-cni beside this program]
    #[arg(long)]
    pub(super) cni_bin: Option<PathBuf>,
}

/// Everything the agent needs to know about where it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// Address by which the node is known.
    pub address: IpAddr,
    /// `DATA_DIR/agent`, absolute and without links, as the kernel names it in its list of mounts.
    pub agent_dir: PathBuf,
    /// The image store.
    pub images: PathBuf,
    /// Short name of this Gantry on the node.
    pub instance: String,
    /// The cluster that this node belongs to, if known.
    pub cluster: Option<String>,
    /// The CNI plugin.
    pub cni_bin: PathBuf,
    /// The binary that shims and `exec` are made of.
    pub executable: PathBuf,
    /// CPUs kept for the host; `None`: chosen from the topology.
    pub reserved_cpus: Option<CpuSet>,
    /// Memory in bytes kept for the host.
    pub reserved_memory_bytes: u64,
    /// What of the disk is kept free, in bytes; `None`: chosen from its size.
    pub reserved_storage_bytes: Option<u64>,
    /// Where the orchestrator is.
    pub orchestrator: Orchestrator,
}

/// How the orchestrator is reached.
#[derive(Clone, Debug)]
pub struct Orchestrator {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Files: certificate authority, own certificate, own key.
    pub ca: PathBuf,
    /// Own certificate.
    pub cert: PathBuf,
    /// Own key.
    pub key: PathBuf,
}

/// A wrong argument: which, and what it should be.
#[derive(Debug, thiserror::Error)]
#[error("--{argument}: {problem}")]
pub struct ArgumentError {
    argument: &'static str,
    problem: String,
}

impl Args {
    /// Checks them.
    pub fn settings(&self) -> Result<Settings, ArgumentError> {
        let wrong = |argument, problem: &str| ArgumentError {
            argument,
            problem: problem.to_owned(),
        };
        let host = self
            .orchestrator
            .host()
            .ok_or_else(|| wrong("orchestrator", "must be https://HOST:PORT"))?;
        let port = self
            .orchestrator
            .port_u16()
            .ok_or_else(|| wrong("orchestrator", "must be https://HOST:PORT"))?;
        check_instance(&self.instance)?;
        let reserved_cpus = match self.reserved_cpus.as_deref() {
            None => None,
            Some("none") => Some(CpuSet::new()),
            Some(list) => Some(list.parse().map_err(|e| ArgumentError {
                argument: "reserved-cpus",
                problem: format!("{e}"),
            })?),
        };
        let agent_dir = agent_dir(&self.data_dir)?;
        let images = match &self.images {
            Some(images) => images.clone(),
            None => absolute("data-dir", &self.data_dir)?.join("images"),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Settings {
            node: self.node.clone(),
            address: self.address.unwrap_or_else(|| address_towards(&host, port)),
            agent_dir,
            images,
            instance: self.instance.clone(),
            cluster: self.cluster.clone(),
            cni_bin: cni_bin(self.cni_bin.as_deref())?,
            executable: crate::runtime::own_executable(),
            reserved_cpus,
            reserved_memory_bytes: self.reserved_memory,
            reserved_storage_bytes: self.reserved_storage,
            orchestrator: Orchestrator {
                host,
                port,
                ca: self.ca.clone(),
                cert: self.cert.clone(),
                key: self.key.clone(),
            },
        })
    }
}

pub(super) fn check_instance(instance: &str) -> Result<(), ArgumentError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if (1..=6).contains(&instance.len()) && instance.chars().all(good) {
        return Ok(());
    }
    let problem = format!("`{instance}` must be 1 to 6 lower-case letters and digits");
    Err(ArgumentError {
        argument: "instance",
        problem,
    })
}

pub(super) fn absolute(argument: &'static str, path: &Path) -> Result<PathBuf, ArgumentError> {
    std::path::absolute(path).map_err(|e| ArgumentError {
        argument,
        problem: format!("{}: {e}", path.display()),
    })
}

/// `DATA_DIR/agent` as in [`Settings::agent_dir`]; made (0700) if it is missing.
fn agent_dir(data_dir: &Path) -> Result<PathBuf, ArgumentError> {
    let path = data_dir.join("agent");
    let mut private = std::fs::DirBuilder::new();
    let made = private.recursive(true).mode(0o700).create(&path);
    made.and_then(|()| path.canonicalize())
        .map_err(|e| ArgumentError {
            argument: "data-dir",
            problem: format!("cannot make the agent's directory {}: {e}", path.display()),
        })
}

/// The given plugin, or the one beside this program.
pub(super) fn cni_bin(given: Option<&Path>) -> Result<PathBuf, ArgumentError> {
    let path = match given {
        Some(path) => absolute("cni-bin", path)?,
        None => sealed::installed().with_file_name("gantry-cni"),
    };
    if path.is_file() {
        return Ok(path);
    }
    let problem = format!(
        "there is no CNI plugin at {}; build or install gantry-cni, or name it",
        path.display()
    );
    Err(ArgumentError {
        argument: "cni-bin",
        problem,
    })
}

/// The local address that the kernel would use; no packet is sent.
fn address_towards(host: &str, port: u16) -> IpAddr {
    let local = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((host, port))?;
        socket.local_addr()
    });
    local.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}
