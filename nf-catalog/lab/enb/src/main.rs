//! `lab-enb`: the radio side of an EPC for labs. See the README for what it does, and what it leaves out.

mod addresses;
mod carry;
mod cell;
mod faulty;
mod http;
mod netlink;
mod report;
mod shell;
mod tun;
mod tunnels;

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gantry_lab_aka::Subscriber;
use gantry_lab_daemon::{listen, serve, stop_on_signal};
use gantry_lab_faults::{Fault, Plan};
use gantry_lab_gtp::USER_PORT;
use ipnet::Ipv4Net;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use addresses::Addresses;
use carry::{Carrier, Counts};
use cell::Cell;
use faulty::Faulty;
use netlink::Netlink;
use report::Report;
use shell::{Shared, Shell, lock};

/// Packets that the tun holds while nobody reads: half a second of a bar's traffic.
const TUN_QUEUE: u32 = 5000;
/// Bytes that the socket holds likewise; the kernel gives as many as it may.
const SOCKET_BYTES: usize = 4 << 20;
/// Orders that wait.
const ORDERS: usize = 1024;

/// The radio side for labs: attaches subscribers' devices at lab-mme, and carries their packets between a tun and GTP-U.
///
/// Example: lab-enb --mme 10.85.0.8:36412 --subscribers subscribers.csv --address 10.85.0.9 --count 200 --rate 50 --tun uetun
/// --pool 10.45.0.0/16 --devices devices.csv
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The MME: a name or an address, and a port.
    #[arg(long)]
    mme: String,
    /// File of subscribers: lines of imsi,msisdn,k,opc.
    #[arg(long)]
    subscribers: PathBuf,
    /// Own address of S1-U.
    #[arg(long, env = "POD_IP")]
    address: Ipv4Addr,
    /// The first of the file's subscribers, from 0 on.
    #[arg(long, default_value_t = 0)]
    start: usize,
    /// How many; all from the first one on if absent.
    #[arg(long)]
    count: Option<usize>,
    /// Attaches that are begun in a second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Seconds after which one that has failed is begun anew; never if 0.
    #[arg(long, default_value_t = 10)]
    retry: u64,
    /// Name of the tun, which is made if it is not there.
    #[arg(long, default_value = "uetun")]
    tun: String,
    /// Its MTU: what fits into the network's with 36 bytes before it.
    #[arg(long, default_value_t = 1400)]
    mtu: u32,
    /// Addresses of the PGW's devices, for example 10.45.0.0/16: what comes from them goes to the tun. May be there more than once.
    #[arg(long)]
    pool: Vec<Ipv4Net>,
    /// Where those that are attached are written down: lines of imsi,address.
    #[arg(long)]
    devices: PathBuf,
    /// Seconds that devices have to leave at the end.
    #[arg(long, default_value_t = 20)]
    leave: u64,
    /// What is wrong between devices and network: loss, duplicate, delay, wrong-200, drop-bye, rtp-wrong-port, rtp-one-way, leak-keys,
    /// wrong-autn or reorder-fragments. The report has how often it was.
    #[arg(long)]
    fault: Option<Fault>,
    /// It is done to each so many of those that it can be done to: of audio to 1 %, of a fault's own choice if absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    fault_every: Option<u64>,
    /// Milliseconds by which `delay` delays.
    #[arg(long, default_value_t = 200)]
    fault_delay: u64,
    /// Port of /metrics, /healthz and /devices.
    #[arg(long, default_value_t = 9090)]
    metrics_port: u16,
    /// Port on the loopback for orders.
    #[arg(long, default_value_t = 9091)]
    control_port: u16,
    /// Where the report goes at the end; standard output if absent.
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> Result<()> {
    gantry_lab_daemon::log();
    let args = Args::parse();
    ensure!(args.rate > 0, "--rate must be above 0");
    let report = gantry_lab_daemon::runtime()?.block_on(run(&args))?;
    let mut text = serde_json::to_string_pretty(&report)?;
    text.push('\n');
    match &args.report {
        Some(path) => shell::replace(path, &text),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

async fn run(args: &Args) -> Result<Report> {
    let subscribers = subscribers(&args.subscribers, args.start, args.count)?;
    let (carrier, addresses, wanted) = carrier(args)?;
    let counts = carrier.counts.clone();
    let tunnels = carrier.tunnels.clone();
    let cell: Shared = Arc::new(Mutex::new(Cell::new(config(args), subscribers)));
    let (rest, rests) = mpsc::channel(ORDERS);
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let page = listen(Ipv4Addr::UNSPECIFIED, args.metrics_port).await?;
    let control = listen(Ipv4Addr::LOCALHOST, args.control_port).await?;
    tokio::spawn(serve(page, http::pages(&cell, counts.clone()), stop.clone()));
    tokio::spawn(serve(control, http::control(rest), stop.clone()));
    let shell = Shell {
        cell: cell.clone(),
        tunnels,
        addresses,
        mme: args.mme.clone(),
        devices: args.devices.clone(),
        wanted,
        rest: rests,
        patience: Duration::from_secs(args.leave),
    };
    let end = CancellationToken::new();
    let carried = {
        let (end, stop) = (end.clone(), stop.clone());
        std::thread::spawn(move || {
            let carried = carrier.run(&end);
            // Without it there is nothing to stay for.
            stop.cancel();
            carried
        })
    };
    let attached = async {
        stop.cancelled().await;
        lock(&cell).attached().count()
    };
    let (done, attached) = tokio::join!(
        async {
            let done = shell.run(stop.clone()).await;
            // Where it ends by itself, the rest ends, too.
            stop.cancel();
            done
        },
        attached
    );
    end.cancel();
    let carried = carried
        .join()
        .map_err(|_| anyhow::anyhow!("the carrying thread panicked"))?;
    done.and(carried.context("packets cannot be carried any more"))?;
    let cell = lock(&cell);
    Ok(Report::new(&cell, attached, &counts, tun::dropped(&args.tun)).with(plan(args)))
}

fn plan(args: &Args) -> Option<Plan> {
    let delay = Duration::from_millis(args.fault_delay);
    args.fault.map(|fault| Plan {
        fault,
        every: args.fault_every.unwrap_or_else(|| fault.usual_every()),
        delay,
    })
}

fn config(args: &Args) -> cell::Config {
    cell::Config {
        own: args.address,
        between: Duration::from_secs(1) / args.rate,
        retry: (args.retry > 0).then(|| Duration::from_secs(args.retry)),
        first_teid: rand::random::<u32>() & 0x7fff_0000 | 1,
    }
}

fn carrier(args: &Args) -> Result<(Carrier, Addresses, mpsc::Receiver<usize>)> {
    let at = (args.address, USER_PORT);
    let socket = UdpSocket::bind(at)
        .with_context(|| format!("cannot take port {USER_PORT} of {} for S1-U", args.address))?;
    socket.set_nonblocking(true)?;
    // Less is no error: the kernel has its own bound.
    let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BYTES);
    let (tun, link) = tun::open(&args.tun).with_context(|| {
        format!(
            "cannot open the tun {}: are /dev/net/tun and NET_ADMIN there?",
            args.tun
        )
    })?;
    let mut netlink = Netlink::open().context("cannot open a netlink socket")?;
    netlink
        .set_up(link, args.mtu, TUN_QUEUE)
        .with_context(|| format!("cannot set {} up", args.tun))?;
    let mut addresses = Addresses::new(netlink, link, args.pool.clone());
    addresses
        .lead()
        .with_context(|| format!("cannot lead the pools to {}", args.tun))?;
    let (wanted, wants) = mpsc::channel(ORDERS);
    let carrier = Carrier {
        tun,
        socket,
        tunnels: Arc::new(RwLock::default()),
        counts: Arc::<Counts>::default(),
        wanted,
        faulty: plan(args).map(Faulty::new),
    };
    Ok((carrier, addresses, wants))
}

fn subscribers(path: &Path, start: usize, count: Option<usize>) -> Result<Vec<Subscriber>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let list = gantry_lab_aka::read(&text).with_context(|| format!("{}", path.display()))?;
    let there = list.len().saturating_sub(start);
    let count = count.unwrap_or(there);
    ensure!(
        count <= there,
        "{} has {} subscribers, fewer than --start {start} and --count {count} want",
        path.display(),
        list.len()
    );
    Ok(list.into_iter().skip(start).take(count).collect())
}
