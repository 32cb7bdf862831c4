//! The command line, as people see it in `--help`.

mod change;

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::data_dir::DataDir;
use crate::examples;

pub use change::{DeployArgs, ResizeArgs, RollbackArgs, Room, ScaleArgs, UndeployArgs, UpgradeArgs, Wait};

/// Where everything of one Gantry lives unless said otherwise.
const DEFAULT_DATA_DIR: &str = "/var/lib/gantry";

/// Runs telecom network functions and resizes them while they carry calls.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, after_help = examples::ALL, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Kubeconfig of the control plane [default: that of --data-dir, or else KUBECONFIG]
    #[arg(long = "kubeconfig", global = true, value_name = "FILE")]
    pub kubeconfig_file: Option<PathBuf>,
    /// Directory of this Gantry's state, images and logs [default: /var/lib/gantry]
    #[arg(long = "data-dir", env = "GANTRY_DATA_DIR", global = true, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Namespace
    #[arg(long, short, default_value = "default", global = true)]
    pub namespace: String,
    /// Output format
    #[arg(long, short, value_enum, default_value_t = Output::Text, global = true)]
    pub output: Output,
}

impl Global {
    pub fn data_dir(&self) -> DataDir {
        DataDir::new(self.directory.as_deref().unwrap_or(DEFAULT_DATA_DIR.as_ref()))
    }

    /// The kubeconfig to connect by: what this command names comes before what the environment says.
    pub fn kubeconfig(&self) -> PathBuf {
        self.choose_kubeconfig(env::var_os("KUBECONFIG"))
    }

    /// `variable` is a list as in PATH, of which the first that exists counts; if none does, the first is the one that is missed.
    fn choose_kubeconfig(&self, variable: Option<OsString>) -> PathBuf {
        if let Some(file) = &self.kubeconfig_file {
            return file.clone();
        }
        let variable = variable.filter(|list| self.directory.is_none() && !list.is_empty());
        let files: Vec<PathBuf> = variable.iter().flat_map(env::split_paths).collect();
        let there = files.iter().find(|file| file.is_file());
        there
            .or(files.first())
            .cloned()
            .unwrap_or_else(|| self.data_dir().kubeconfig())
    }
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the control plane and this machine's node agent (again: starts only what does not run)
    #[command(after_help = examples::UP)]
    Up(UpArgs),
    /// Stop all pods, the agent and the control plane; keeps images and objects
    #[command(after_help = examples::DOWN)]
    Down(DownArgs),
    /// Save objects, settings and certificates in one file, while all runs
    #[command(after_help = examples::BACKUP)]
    Backup(BackupArgs),
    /// Put a backup in place; `gantry up` then takes over the pods that run
    #[command(after_help = examples::RESTORE)]
    Restore(RestoreArgs),
    /// What runs: processes, nodes, network functions, operations
    #[command(after_help = examples::STATUS)]
    Status,
    /// Network functions by service and plane
    #[command(after_help = examples::GET)]
    Get {
        /// Services or functions [default: all of the namespace]
        names: Vec<String>,
    },
    /// What network functions carry and take: sessions, requests, packets, CPU, memory
    #[command(after_help = examples::TOP)]
    Top(TopArgs),
    /// Run a catalog package, a catalog service, or the manifests of a file
    #[command(after_help = examples::DEPLOY)]
    Deploy(DeployArgs),
    /// Remove network services or functions with all they have
    #[command(after_help = examples::UNDEPLOY)]
    Undeploy(UndeployArgs),
    /// Change the number of instances; scale-in drains
    #[command(after_help = examples::SCALE)]
    Scale(ScaleArgs),
    /// Change CPU and memory of running instances
    #[command(after_help = examples::RESIZE)]
    Resize(ResizeArgs),
    /// Change version or values, one instance at a time
    #[command(after_help = examples::UPGRADE)]
    Upgrade(UpgradeArgs),
    /// Go back to an earlier revision
    #[command(after_help = examples::ROLLBACK)]
    Rollback(RollbackArgs),
    /// Dry run: where would the pods of these manifests go
    #[command(after_help = examples::PLAN)]
    Plan(PlanArgs),
    /// Why a pod has (or has not) a place
    #[command(after_help = examples::EXPLAIN)]
    Explain { pod: String },
    /// What operations did and what they lost
    #[command(after_help = examples::RECEIPT)]
    Receipt { operation: Option<String> },
    /// The catalog of network functions
    #[command(subcommand, after_help = examples::CATALOG)]
    Catalog(CatalogCommand),
    /// Network services of the catalog
    #[command(subcommand, after_help = examples::SERVICE)]
    Service(ServiceCommand),
    /// Images: build, list, import, remove
    #[command(subcommand, after_help = examples::IMAGE)]
    Image(ImageCommand),
    /// Logs of a pod, of a function's pods, or of a service's
    #[command(after_help = examples::LOGS)]
    Logs(LogsArgs),
    /// Run a command in a container
    #[command(after_help = examples::EXEC)]
    Exec(ExecArgs),
    /// Lead ports of this machine's loopback to a pod, until interrupted
    #[command(after_help = examples::PORT_FORWARD)]
    PortForward(PortForwardArgs),
    /// Print the kubeconfig for kubectl, k9s, helm
    #[command(after_help = examples::KUBECONFIG)]
    Kubeconfig {
        /// For this person, with a certificate of their own that can be revoked
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Certificates of the administrator, of nodes and of users
    #[command(subcommand, after_help = examples::CERTS)]
    Certs(CertsCommand),
    /// Print the completion script of a shell
    #[command(after_help = examples::COMPLETION)]
    Completion { shell: Shell },
    /// Versions of client and server
    Version,
    /// The control plane itself, in the foreground
    #[command(hide = true)]
    Server(ServerArgs),
    /// Templates of others, from standard input: for the control plane and for `catalog`
    #[command(hide = true)]
    Render,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Address of the API server
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Come back to the shell when all is ready; logs are in the data directory
    #[arg(long)]
    pub detach: bool,
    /// CPUs for the host's own work, never given out exclusively: a list such as 0-1, or `none` [default: 0]
    #[arg(long, value_name = "LIST")]
    pub reserved_cpus: Option<String>,
    /// Memory for the host's own work, this Gantry's processes included: pods together have the rest [default: 512Mi]
    #[arg(long, value_name = "QUANTITY")]
    pub reserved_memory: Option<String>,
    /// Addresses of pods
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<ipnet::Ipv4Net>,
    /// Virtual addresses of services
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<ipnet::Ipv4Net>,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    /// Remove the data directory too: objects, images, certificates, logs
    #[arg(long)]
    pub purge: bool,
    /// Stop the control plane and the agent only: pods and their packets go on
    #[arg(long, conflicts_with = "purge")]
    pub keep_pods: bool,
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// File to write (mode 0600); it holds the authority's key and all Secrets
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A file that `gantry backup` wrote
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// File of manifests (`-` reads standard input)
    #[arg(long, short)]
    pub file: String,
    /// Catalog directory [default: the built-in catalog]
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Packages and services
    Ls {
        /// Catalog directory [default: the built-in catalog]
        #[arg(long, value_name = "DIR")]
        catalog: Option<PathBuf>,
    },
    /// One package or service
    Show {
        name: String,
        /// Catalog directory [default: the built-in catalog]
        #[arg(long, value_name = "DIR")]
        catalog: Option<PathBuf>,
    },
    /// The configuration files of a package, and what of its templates is not in them
    Render {
        /// Package
        name: String,
        /// Value other than the package's default; may be repeated
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
        /// Catalog directory [default: the built-in catalog]
        #[arg(long, value_name = "DIR")]
        catalog: Option<PathBuf>,
    },
    /// Check a catalog directory
    Verify {
        /// Directory with packages/ and services/
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Draw a service: its functions, and the reference points between them
    Graph {
        /// Service
        name: String,
        /// As a drawing (SVG) instead of text
        #[arg(long)]
        svg: bool,
        /// Catalog directory [default: the built-in catalog]
        #[arg(long, value_name = "DIR")]
        catalog: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build images from recipes: files, or names of the catalog's recipes
    Build {
        #[arg(required = true, value_name = "RECIPE")]
        recipes: Vec<String>,
        /// Build again even if the recipe did not change (newer Debian packages)
        #[arg(long)]
        no_cache: bool,
    },
    /// List images
    Ls,
    /// Import an OCI image layout (directory or tar)
    Import {
        path: PathBuf,
        /// Name to give it
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove images
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Show an image's manifest digest and configuration
    Inspect { image: String },
}

#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Those that are in use, and until when (they are renewed by themselves)
    #[command(visible_alias = "ls")]
    List,
    /// Trust whoever has these no more, at once; the administrator and nodes get another one
    Revoke {
        /// As `gantry certs list` shows them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Services or functions [default: all of the namespace]
    pub names: Vec<String>,
    /// Seconds between the two looks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub interval: u16,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Pod, network function or service; of several pods each line says whose it is
    pub name: String,
    /// Container [default: the only one]
    #[arg(long, short)]
    pub container: Option<String>,
    /// Keep printing
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long)]
    pub tail: Option<i64>,
    /// The run before the last restart
    #[arg(long, short)]
    pub previous: bool,
}

#[derive(Debug, Args)]
pub struct PortForwardArgs {
    /// Pod
    pub pod: String,
    /// Ports
    #[arg(required = true, value_name = "[LOCAL:]PORT")]
    pub ports: Vec<PortPair>,
}

/// A port here and a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPair {
    /// 0 for any that is free.
    pub local: u16,
    pub remote: u16,
}

impl FromStr for PortPair {
    type Err = String;

    /// `8080:80`, `:80`, or `80` for the same on both sides.
    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port @ 1..) => Ok(port),
            _ => Err(format!("{text:?} is not 1 to 65535")),
        };
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        Ok(Self {
            local: if local.is_empty() { 0 } else { port(local)? },
            remote: port(remote)?,
        })
    }
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pod
    pub pod: String,
    /// Container [default: the only one]
    #[arg(long, short)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(long = "stdin", short = 'i')]
    pub stdin: bool,
    /// With a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Command and its arguments
    #[arg(required = true, last = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ServerArgs {
    #[arg(long)]
    pub listen: SocketAddr,
    #[arg(long)]
    pub pod_cidr: ipnet::Ipv4Net,
    #[arg(long)]
    pub service_cidr: ipnet::Ipv4Net,
    /// The cluster whose state the directory holds, once that is known
    #[arg(long)]
    pub cluster: Option<String>,
    /// The file that standard error and output go to: begun anew when it is long
    #[arg(long)]
    pub log_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_is_a_command_line_that_works() {
        let mut command = Cli::command();
        command.build();
        let helps = std::iter::once(&command).chain(command.get_subcommands());
        let mut count = 0;
        for command in helps.filter(|c| !c.is_hide_set() && !matches!(c.get_name(), "help" | "version")) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            for line in help.lines().filter_map(|line| line.strip_prefix("  gantry ")) {
                // Two blanks end the command; what follows says what it does.
                let words = line.split("  ").next().unwrap_or_default().split(' ');
                let words = words.take_while(|word| !["|", ">"].contains(word));
                Cli::try_parse_from(std::iter::once("gantry").chain(words))
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
                count += 1;
            }
            assert!(
                help.contains("  gantry "),
                "{} has no example",
                command.get_name()
            );
        }
        assert!(count > 30);
    }

    #[test]
    fn a_port_may_have_another_number_here() {
        let read = |text: &str| text.parse::<PortPair>().map(|p| (p.local, p.remote));
        assert_eq!(read("80"), Ok((80, 80)));
        assert_eq!(read("8080:80"), Ok((8080, 80)));
        assert_eq!(read(":80"), Ok((0, 80)));
        for bad in ["", ":", "80:", "0", "70000", "a:80"] {
            assert!(read(bad).unwrap_err().contains("65535"), "{bad}");
        }
    }

    #[test]
    fn what_the_command_names_comes_before_the_environment() {
        let root = tempfile::tempdir().unwrap();
        let there = root.path().join("there");
        std::fs::write(&there, "").unwrap();
        let list = env::join_paths([&root.path().join("missing"), &there]).unwrap();
        let chosen = |options: &[&str], variable: Option<&OsString>| {
            let cli = Cli::parse_from([&["gantry", "status"], options].concat());
            cli.global.choose_kubeconfig(variable.cloned())
        };
        assert_eq!(chosen(&[], Some(&list)), there);
        assert_eq!(
            chosen(&["--data-dir", "/d"], Some(&list)),
            PathBuf::from("/d/kubeconfig")
        );
        assert_eq!(
            chosen(&["--kubeconfig", "/k", "--data-dir", "/d"], Some(&list)),
            PathBuf::from("/k")
        );
        assert_eq!(chosen(&[], Some(&"/missing".into())), PathBuf::from("/missing"));
        assert_eq!(
            chosen(&[], Some(&"".into())),
            PathBuf::from("/var/lib/gantry/kubeconfig")
        );
        assert_eq!(chosen(&[], None), PathBuf::from("/var/lib/gantry/kubeconfig"));
    }
}
