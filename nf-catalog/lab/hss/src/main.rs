//! `lab-hss`: a home subscriber server for labs. See the README for what it does, and what it leaves out.

mod config;
mod cx;
mod disk;
mod hss;
mod http;
mod identity;
mod profile;
mod registry;
mod reply;
mod s6a;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use gantry_lab_daemon::{listen, serve, stop_on_signal};
use gantry_lab_diameter::codes::application;
use gantry_lab_diameter::{Application, Identity, Node, VENDOR_3GPP};
use tokio_util::sync::CancellationToken;

use config::Config;
use disk::Disk;
use hss::Hss;
use identity::Users;
use profile::ApplicationServer;
use registry::Registry;

/// A home subscriber server for labs: Cx for IMS, S6a for an MME. Not for production: it trusts whoever connects.
///
/// Example: lab-hss --address 10.85.0.5 --config hss.yaml
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Its configuration; the README has one with all fields.
    #[arg(long)]
    config: PathBuf,
    /// Its own address, at which it listens.
    #[arg(long, env = "POD_IP")]
    address: Ipv4Addr,
}

fn main() -> Result<()> {
    gantry_lab_daemon::log();
    let args = Args::parse();
    let config: Config = gantry_lab_daemon::config(&args.config)?;
    gantry_lab_daemon::runtime()?.block_on(run(config, args.address))
}

async fn run(config: Config, address: Ipv4Addr) -> Result<()> {
    let identity = identity(&config, address);
    let node = Node::new(identity.clone(), hss(&config, identity)?);
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let peers = listen(address, config.port).await?;
    let metrics = listen(address, config.metrics_port).await?;
    let metrics = serve(metrics, http::pages(node.clone()), stop.clone());
    let control = listen(Ipv4Addr::LOCALHOST, config.control_port).await?;
    let control = serve(control, http::control(node.clone()), stop.clone());
    tracing::info!(
        port = config.port,
        subscribers = node.service().users().len(),
        "the HSS is up"
    );
    let (metrics, control, (), ()) = tokio::join!(
        metrics,
        control,
        node.keep_all_connected(config.connect, &stop),
        node.serve(peers, stop.clone()),
    );
    metrics.and(control).context("the HSS cannot go on")
}

fn identity(config: &Config, address: Ipv4Addr) -> Identity {
    let of_3gpp = |id| Application {
        id,
        vendor: VENDOR_3GPP,
    };
    Identity {
        host: config.host.clone(),
        realm: config.realm.clone(),
        address,
        product: "gantry-lab-hss",
        applications: vec![of_3gpp(application::CX), of_3gpp(application::S6A)],
    }
}

fn hss(config: &Config, identity: Identity) -> Result<Hss> {
    let users = users(&config.subscribers, &config.domain)?;
    let (disk, records) = Disk::open(&config.state).with_context(|| format!("{}", config.state.display()))?;
    let mut registry = Registry::new(&users, config.s_cscfs.clone());
    for (imsi, record) in records {
        // Whoever is no longer in the file is nobody.
        if let Some(nth) = users.by_private(&imsi) {
            registry.restore(nth, record);
        }
    }
    let server = config
        .application_server
        .clone()
        .map(|uri| ApplicationServer { uri });
    Ok(Hss::new(identity, users, registry, disk, server))
}

fn users(path: &Path, domain: &str) -> Result<Users> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let list = gantry_lab_aka::read(&text).with_context(|| format!("{}", path.display()))?;
    Ok(Users::new(list, domain))
}
