//! Arguments of the commands that change what runs.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct Wait {
    /// Do not wait for the operation to finish
    #[arg(long)]
    pub no_wait: bool,
    /// Stop waiting after so many seconds (the operation goes on); 0 waits for ever
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Debug, Args)]
pub struct Room {
    /// Write it even if it does not fit now, and wait for room; without it nothing is written and the exit code is 2
    #[arg(long)]
    pub queue: bool,
}

#[derive(Debug, Args)]
pub struct DeployArgs {
    /// Package or service of the catalog, or a file of manifests (`-` reads standard input)
    pub what: String,
    /// Version of the package [default: the newest]
    #[arg(long)]
    pub version: Option<String>,
    /// Name of the network function [default: the package's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Instances of a package
    #[arg(long)]
    pub replicas: Option<u32>,
    /// Override a value of the package
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Wire a need of the package to a network function
    #[arg(long = "peer", value_name = "NEED=FUNCTION")]
    pub peers: Vec<String>,
    /// Catalog directory [default: the built-in catalog]
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
    #[command(flatten)]
    pub room: Room,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct UndeployArgs {
    /// Network services or functions
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Let sessions end before instances stop; without it they are cut off
    #[arg(long)]
    pub drain: bool,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// Network function
    pub function: String,
    /// Instances
    #[arg(long)]
    pub replicas: u32,
    #[command(flatten)]
    pub room: Room,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("size").required(true).multiple(true))]
pub struct ResizeArgs {
    /// Network function, or a single pod
    pub name: String,
    /// CPU: `400m` for shared CPU, a number of CPUs for exclusive ones
    #[arg(long, group = "size")]
    pub cpu: Option<String>,
    /// Ceiling of shared CPU [default: as before, at least the request]
    #[arg(long, requires = "cpu")]
    pub cpu_limit: Option<gantry_catalog::MilliCpu>,
    /// Memory, for example 256Mi
    #[arg(long, group = "size")]
    pub memory: Option<gantry_catalog::Quantity>,
    /// Container [default: the only one]
    #[arg(long, short)]
    pub container: Option<String>,
    #[command(flatten)]
    pub room: Room,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// Network function
    pub function: String,
    /// Version of the package
    #[arg(long)]
    pub version: Option<String>,
    /// Override a value of the package
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Catalog directory [default: the built-in catalog]
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
    #[command(flatten)]
    pub room: Room,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Network function
    pub function: String,
    /// Revision to go back to [default: the one before the current]
    #[arg(long)]
    pub to: Option<String>,
    #[command(flatten)]
    pub room: Room,
    #[command(flatten)]
    pub wait: Wait,
}
