//! `lab-pcrf`: policy and charging rules for labs. See the README for what it does, and what it leaves out.

mod config;
mod pcrf;
mod sessions;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use clap::Parser;
use gantry_lab_daemon::{Metrics, Ready, listen, pages, serve, stop_on_signal};
use gantry_lab_diameter::codes::application;
use gantry_lab_diameter::{Application, Identity, Node, VENDOR_3GPP};
use tokio_util::sync::CancellationToken;

use config::Config;
use pcrf::Pcrf;

/// A PCRF for labs: Gx for PGWs. Not for production: it trusts whoever connects, and grants everything.
///
/// Example: lab-pcrf --address 10.85.0.6 --config pcrf.yaml
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
    let node = Node::new(identity.clone(), Pcrf::new(identity, config.max_sessions));
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let peers = listen(address, config.port).await?;
    let page = listen(address, config.metrics_port).await?;
    let asks = config.connect.clone();
    let (shown, asked) = (node.clone(), node.clone());
    let pages = pages(move |page| metrics(&shown, page), move || ready(&asked, &asks));
    tracing::info!(port = config.port, "the PCRF is up");
    let (page, (), ()) = tokio::join!(
        serve(page, pages, stop.clone()),
        node.keep_all_connected(config.connect, &stop),
        node.serve(peers, stop.clone()),
    );
    page.context("the PCRF cannot go on")
}

fn identity(config: &Config, address: Ipv4Addr) -> Identity {
    Identity {
        host: config.host.clone(),
        realm: config.realm.clone(),
        address,
        product: "gantry-lab-pcrf",
        applications: vec![Application {
            id: application::GX,
            vendor: VENDOR_3GPP,
        }],
    }
}

/// Whoever is to be reached by a relay is so when one is connected; else PGWs may come.
fn ready(node: &Node<Pcrf>, connect: &[String]) -> Ready {
    if connect.is_empty() || !node.connected().is_empty() {
        return Ok(());
    }
    Err(format!("no connection to any of {}", connect.join(", ")))
}

fn metrics(node: &Node<Pcrf>, page: &mut Metrics) {
    let pcrf = node.service();
    page.value("pcrf_peers", node.connected().len());
    let sessions = pcrf.sessions();
    page.value("pcrf_sessions", sessions.count());
    for (pgw, count) in sessions.by_pgw() {
        page.labelled("pcrf_sessions_at", ("pgw", pgw), count);
    }
    drop(sessions);
    for (name, count) in pcrf.counts() {
        let all = [
            ("pcrf_requests_total", &count.asked),
            ("pcrf_refused_total", &count.refused),
            ("pcrf_unknown_sessions_total", &count.unknown),
        ];
        for (metric, value) in all {
            page.labelled(metric, ("command", name), value.load(Ordering::Relaxed));
        }
    }
}
