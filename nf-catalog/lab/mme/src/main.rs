//! `lab-mme`: mobility management for labs. See the README for what it does, and what it leaves out.

mod attach;
mod cause;
mod config;
mod devices;
mod enbs;
mod http;
mod leave;
mod mme;
mod s11;
mod s6a;
mod transactions;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;
use gantry_lab_daemon::{listen, serve, stop_on_signal};
use gantry_lab_diameter::codes::application;
use gantry_lab_diameter::{Application, Identity, Node, VENDOR_3GPP};
use gantry_lab_gtp::{Message, Plmn};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use config::Config;
use devices::Devices;
use mme::{Counts, Mme, Nothing, Settings};

/// Requests of SGWs that are worked on at once.
const AT_ONCE: usize = 256;

/// An MME for labs: S6a to an HSS, S11 to an SGW, and a protocol of its own to lab-enb. Not for production.
///
/// Example: lab-mme --address 10.85.0.8 --config mme.yaml
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Its configuration; the README has one with all fields.
    #[arg(long)]
    config: PathBuf,
    /// Its own address, at which it listens, and to which SGWs answer.
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
    let settings = settings(&config, address)?;
    let at = (address, config.gtp_port);
    let socket = UdpSocket::bind(at)
        .await
        .with_context(|| format!("cannot take port {} of {address} for S11", config.gtp_port))?;
    let socket = Arc::new(socket);
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = start.subsec_nanos() >> 7;
    let (s11, asked, task) = s11::new(socket.clone(), config.s11.limits(), number);
    let identity = identity(&config, address);
    let mme = Arc::new(Mme {
        settings,
        node: Node::new(identity.clone(), Nothing(identity)),
        s11,
        socket,
        devices: Devices::new(config.max_devices, (number << 16) | 1),
        counts: Counts::default(),
        start: start.as_secs(),
        sessions: AtomicU64::new(0),
    });
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let enbs = listen(address, config.enb_port).await?;
    let page = listen(address, config.metrics_port).await?;
    let control = listen(Ipv4Addr::LOCALHOST, config.control_port).await?;
    tokio::spawn(answer_all(mme.clone(), asked));
    tracing::info!(enbs = config.enb_port, "the MME is up");
    let ((), page, control, s11, ()) = tokio::join!(
        enbs::serve(mme.clone(), enbs, stop.clone()),
        serve(page, http::pages(&mme), stop.clone()),
        serve(control, http::control(mme.clone()), stop.clone()),
        task.run(stop.clone()),
        mme.node.keep_all_connected(config.connect, &stop),
    );
    page.and(control).and(s11).context("the MME cannot go on")
}

/// What SGWs ask, each by itself: one may wait for a device that something else is done with.
async fn answer_all(mme: Arc<Mme>, mut asked: mpsc::Receiver<(std::net::SocketAddrV4, Message)>) {
    let mut tasks = JoinSet::new();
    while let Some((from, request)) = asked.recv().await {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await;
        }
        while tasks.try_join_next().is_some() {}
        let mme = mme.clone();
        tasks.spawn(async move { mme.asked(from, &request).await });
    }
}

fn settings(config: &Config, address: Ipv4Addr) -> Result<Settings> {
    let plmn = Plmn::new(&config.plmn);
    Ok(Settings {
        address,
        plmn: plmn.with_context(|| format!("plmn must be five or six digits, and not `{}`", config.plmn))?,
        area: config.area,
        apn: config.apn.clone(),
        sgw: config.sgw.clone(),
        pgw: config.pgw.clone(),
        hss_realm: config.hss_realm.clone().unwrap_or_else(|| config.realm.clone()),
        hss: config.hss.clone(),
    })
}

fn identity(config: &Config, address: Ipv4Addr) -> Identity {
    Identity {
        host: config.host.clone(),
        realm: config.realm.clone(),
        address,
        product: "gantry-lab-mme",
        applications: vec![Application {
            id: application::S6A,
            vendor: VENDOR_3GPP,
        }],
    }
}
