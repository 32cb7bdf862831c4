//! `lab-traffic`: packets of devices and their echo, for labs. See the README.

mod echo;
mod judge;
mod packet;
mod report;
mod send;

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use gantry_lab_daemon::{listen, pages, resolve, serve, stop_on_signal};
use tokio_util::sync::CancellationToken;

use judge::Judge;
use packet::{HEADERS_BYTES, LEAST_BYTES, MOST_BYTES};
use report::Report;
use send::{Sent, Work};

/// Packets of devices, each checked, and a server that echoes them.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    side: Side,
}

#[derive(Subcommand)]
enum Side {
    /// Sends every datagram back.
    Echo(EchoArgs),
    /// Sends packets from the addresses of a file, checks each answer, and reports.
    ///
    /// Example: lab-traffic send --devices devices.csv --to 10.99.0.2:7000 --rate 5000 --packets 1000000
    Send(SendArgs),
}

#[derive(clap::Args)]
struct EchoArgs {
    /// Own address.
    #[arg(long, env = "POD_IP")]
    address: Ipv4Addr,
    /// Own port.
    #[arg(long, default_value_t = 7000)]
    port: u16,
    /// Port of /metrics and /healthz.
    #[arg(long, default_value_t = 9090)]
    metrics_port: u16,
}

#[derive(clap::Args)]
struct SendArgs {
    /// Lines of imsi,address; the addresses must be this host's.
    #[arg(long)]
    devices: PathBuf,
    /// The echo: a name or an address, and a port.
    #[arg(long)]
    to: String,
    /// Packets in a second, of all devices together.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Packets in all.
    #[arg(long)]
    packets: u64,
    /// Bytes of a packet with its headers of IPv4 and UDP.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Seconds that are waited after the last packet, before one without an answer counts as lost.
    #[arg(long, default_value_t = 5)]
    wait: u64,
    /// Where the report goes; standard output if absent.
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> Result<()> {
    gantry_lab_daemon::log();
    let args = Args::parse();
    let runtime = gantry_lab_daemon::runtime()?;
    match args.side {
        Side::Echo(args) => runtime.block_on(run_echo(args)),
        Side::Send(args) => {
            let report = runtime.block_on(run_send(&args))?;
            let mut text = serde_json::to_string_pretty(&report)?;
            text.push('\n');
            match &args.report {
                Some(path) => {
                    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
                }
                None => {
                    print!("{text}");
                    Ok(())
                }
            }
        }
    }
}

async fn run_echo(args: EchoArgs) -> Result<()> {
    let at = (args.address, args.port);
    let socket =
        UdpSocket::bind(at).with_context(|| format!("cannot take port {} of {}", args.port, args.address))?;
    send::make_room(&socket);
    let page = listen(Ipv4Addr::UNSPECIFIED, args.metrics_port).await?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let counts = Arc::<echo::Counts>::default();
    let shown = counts.clone();
    let pages = pages(
        move |page| {
            let all = [
                ("echo_received_total", &shown.received),
                ("echo_sent_total", &shown.sent),
                ("echo_received_bytes_total", &shown.bytes),
            ];
            for (name, count) in all {
                page.value(name, count.load(Ordering::Relaxed));
            }
        },
        || Ok(()),
    );
    tokio::spawn(serve(page, pages, stop.clone()));
    let echo = tokio::task::spawn_blocking(move || echo::run(&socket, &counts, &stop));
    echo.await?.context("the echo cannot go on")
}

async fn run_send(args: &SendArgs) -> Result<Report> {
    let bytes = args.size.checked_sub(HEADERS_BYTES);
    let bytes = bytes.filter(|bytes| (LEAST_BYTES..=MOST_BYTES).contains(bytes));
    let bytes = bytes.with_context(|| {
        let (least, most) = (LEAST_BYTES + HEADERS_BYTES, MOST_BYTES + HEADERS_BYTES);
        format!("--size must be {least} to {most}")
    })?;
    ensure!(args.rate > 0, "--rate must be above 0");
    let addresses = addresses(&args.devices)?;
    let work = Work {
        to: resolve(&args.to).await?,
        rate: args.rate,
        packets: args.packets,
        bytes,
        run: rand::random(),
    };
    let sockets = send::sockets(&addresses).context("an address is not this host's, or has no port left")?;
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    stop_on_signal(stop.clone())?;
    let most = args.packets.div_ceil(addresses.len() as u64);
    let mut judge = Judge::new(work.run, addresses.len(), most);
    let begun = Instant::now();
    let receiver = {
        let (sockets, end) = (sockets.clone(), end.clone());
        tokio::task::spawn_blocking(move || {
            send::receive(&sockets, work.to, &mut judge, begun, &end).map(|()| judge)
        })
    };
    let sent: Sent = tokio::task::spawn_blocking(move || send::send(&sockets, &work, begun, &stop)).await?;
    tokio::time::sleep(Duration::from_secs(args.wait)).await;
    end.cancel();
    let mut judge = receiver.await?.context("answers cannot be received")?;
    Ok(Report::new(addresses.len(), &sent, &mut judge, args.wait))
}

fn addresses(path: &Path) -> Result<Vec<Ipv4Addr>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let devices = gantry_lab_radio::read_attached(&text).with_context(|| format!("{}", path.display()))?;
    ensure!(!devices.is_empty(), "{} has no devices", path.display());
    Ok(devices.into_iter().map(|device| device.address).collect())
}
