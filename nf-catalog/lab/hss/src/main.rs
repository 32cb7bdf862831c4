//! `lab-hss`: a home subscriber server for labs. See the README for what it does, and what it leaves out.

mod cx;
mod disk;
mod hss;
mod http;
mod identity;
mod profile;
mod registry;
mod reply;
mod s6a;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use gantry_lab_diameter::codes::application;
use gantry_lab_diameter::{Application, Identity, Node, VENDOR_3GPP};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use disk::Disk;
use hss::Hss;
use identity::Users;
use profile::ApplicationServer;
use registry::Registry;

/// A home subscriber server for labs: Cx for IMS, S6a for an MME. Not for production: it trusts whoever connects.
///
/// Example: lab-hss --host hss.ims.lab --realm ims.lab --address 10.85.0.5 --domain ims.lab --subscribers subscribers.csv
/// --state hss.redb --s-cscf sip:scscf.ims.lab:5060
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Its DiameterIdentity.
    #[arg(long)]
    host: String,
    /// Its Diameter realm.
    #[arg(long)]
    realm: String,
    /// Its own address.
    #[arg(long, env = "POD_IP")]
    address: Ipv4Addr,
    /// Port for peers.
    #[arg(long, default_value_t = 3868)]
    port: u16,
    /// Peers that it connects to itself, as host:port.
    #[arg(long = "connect")]
    peers: Vec<String>,
    /// IMS domain of the users.
    #[arg(long)]
    domain: String,
    /// File of subscribers: lines of imsi,msisdn,k,opc.
    #[arg(long)]
    subscribers: PathBuf,
    /// File of its state; it is made if it is not there.
    #[arg(long)]
    state: PathBuf,
    /// SIP URI of an S-CSCF for new users; several take turns.
    #[arg(long = "s-cscf")]
    s_cscfs: Vec<String>,
    /// SIP URI of the application server for calls and messages.
    #[arg(long)]
    application_server: Option<String>,
    /// Port of /metrics and /healthz.
    #[arg(long, default_value_t = 9090)]
    metrics_port: u16,
    /// Port on the loopback for orders: POST /release/<imsi> moves a user to another S-CSCF.
    #[arg(long, default_value_t = 9091)]
    control_port: u16,
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    let node = Node::new(identity(&args), hss(&args)?);
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let listen = |address: Ipv4Addr, port: u16| async move {
        let at = SocketAddr::from((address, port));
        TcpListener::bind(at)
            .await
            .with_context(|| format!("cannot listen on {at}"))
    };
    let any = Ipv4Addr::UNSPECIFIED;
    let peers = listen(any, args.port).await?;
    let metrics = http::serve(
        listen(any, args.metrics_port).await?,
        http::metrics(node.clone()),
        stop.clone(),
    );
    let control = listen(Ipv4Addr::LOCALHOST, args.control_port).await?;
    let control = http::serve(control, http::control(node.clone()), stop.clone());
    for to in args.peers {
        let (node, stop) = (node.clone(), stop.clone());
        tokio::spawn(async move { node.keep_connected(&to, &stop).await });
    }
    tracing::info!(
        port = args.port,
        subscribers = node.service().users().len(),
        "the HSS is up"
    );
    let (peers, metrics, control) = tokio::join!(node.serve(peers, stop), metrics, control);
    peers.and(metrics).and(control).context("the HSS cannot go on")
}

fn identity(args: &Args) -> Identity {
    let of_3gpp = |id| Application {
        id,
        vendor: VENDOR_3GPP,
    };
    Identity {
        host: args.host.clone(),
        realm: args.realm.clone(),
        address: args.address,
        product: "gantry-lab-hss",
        applications: vec![of_3gpp(application::CX), of_3gpp(application::S6A)],
    }
}

fn hss(args: &Args) -> Result<Hss> {
    let users = users(&args.subscribers, &args.domain)?;
    let (disk, records) = Disk::open(&args.state).with_context(|| format!("{}", args.state.display()))?;
    let mut registry = Registry::new(&users, args.s_cscfs.clone());
    for (imsi, record) in records {
        // Whoever is no longer in the file is nobody.
        if let Some(nth) = users.by_private(&imsi) {
            registry.restore(nth, record);
        }
    }
    let server = args
        .application_server
        .clone()
        .map(|uri| ApplicationServer { uri });
    Ok(Hss::new(identity(args), users, registry, disk, server))
}

fn users(path: &Path, domain: &str) -> Result<Users> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let list = gantry_lab_aka::read(&text).with_context(|| format!("{}", path.display()))?;
    Ok(Users::new(list, domain))
}

fn stop_on_signal(stop: CancellationToken) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        // Cancel-safe: both wait for a signal and hold nothing else.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
