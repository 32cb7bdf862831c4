//! `lab-ue`: any number of subscribers' devices, and the report of what they saw. See the README.

mod counts;
mod device;
mod net;
mod report;
mod rtp;
mod sip;
mod work;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gantry_lab_aka::{Seen, Subscriber};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use counts::Counts;
use device::{Card, Config};
use net::Handset;
use report::Report;
use sip::Timers;
use work::{Contact, Work};

/// After the last device was switched on, before there is work.
const SETTLED: Duration = Duration::from_secs(5);

/// Before the end, without anything new: what is under way comes to its end, or has failed.
const LAST: Duration = Duration::from_secs(2);

/// More does not fit into a datagram with what proxies add.
const MOST_PADDED: i64 = 60_000;

/// Devices of subscribers for labs: they register with AKA, stay registered, and report what they saw as JSON.
///
/// Example: lab-ue --subscribers subscribers.csv --domain ims.lab --p-cscf 10.85.0.7:5060 --first-address 10.90.0.1
/// --count 1000 --rate 100 --seconds 120
#[derive(Parser)]
#[command(version)]
struct Args {
    /// File of subscribers: lines of imsi,msisdn,k,opc.
    #[arg(long)]
    subscribers: PathBuf,
    /// IMS domain.
    #[arg(long)]
    domain: String,
    /// The P-CSCF: a name or an address, and a port.
    #[arg(long)]
    p_cscf: String,
    /// Address of the first device; those after it have the addresses after it. They must be this host's.
    #[arg(long, env = "POD_IP", required_unless_present = "devices")]
    first_address: Option<Ipv4Addr>,
    /// All devices have the first address, and ports of their own: two each from --port on. A P-CSCF of kamailio bears that for some
    /// hundred.
    #[arg(long)]
    one_address: bool,
    /// File of lines of imsi,address in the place of addresses: the devices are those of its subscribers, in its order. lab-enb writes it.
    #[arg(long, conflicts_with = "one_address")]
    devices: Option<PathBuf>,
    /// Port of each device.
    #[arg(long, default_value_t = 5060)]
    port: u16,
    /// Port of each device's audio.
    #[arg(long, default_value_t = 40000)]
    audio_port: u16,
    /// How many devices; all of the file if absent.
    #[arg(long)]
    count: Option<usize>,
    /// Seconds before the first device is switched on.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// Devices that are switched on in a second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Seconds from the first device's start to the end.
    #[arg(long)]
    seconds: u64,
    /// Seconds for which a registration is asked.
    #[arg(long, default_value_t = 600)]
    expires: u64,
    /// Seconds after which it is asked for anew, at most.
    #[arg(long, default_value_t = 300)]
    refresh: u64,
    /// By how many percent sooner at most, spread over the devices.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=90))]
    spread: u8,
    /// Calls that are begun in a second, once all are registered, by the first half of the devices to the second.
    #[arg(long, default_value_t = 0)]
    calls: u32,
    /// Seconds of a call, from the shortest to the longest.
    #[arg(long, default_value = "10-30", value_parser = range)]
    talk: (u64, u64),
    /// Every so many calls is put on hold for its middle third; none if 0.
    #[arg(long, default_value_t = 5)]
    hold_every: u32,
    /// Messages in a second, likewise.
    #[arg(long, default_value_t = 0)]
    messages: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100)]
    message_bytes: usize,
    /// INVITE and MESSAGE have so many bytes at least, by a header of the lab: above the MTU they go in fragments.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=MOST_PADDED))]
    pad: u16,
    /// Audio that is longer on its way than so many milliseconds is late.
    #[arg(long, default_value_t = 150)]
    late: u64,
    /// No calls and messages are begun in the last so many seconds: longer than a call.
    #[arg(long, default_value_t = 40)]
    quiet_end: u64,
    /// Call by telephone number (tel:), which the network has to look up; else by SIP URI.
    #[arg(long)]
    by_number: bool,
    /// Where the report goes; standard output if absent.
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (counts, refused) = runtime.block_on(run(&args))?;
    let mut text = serde_json::to_string_pretty(&Report::of(&counts, refused))?;
    text.push('\n');
    match &args.report {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// Runs all devices for the time that was asked; what they counted, and how many orders were not followed.
async fn run(args: &Args) -> Result<(Vec<Counts>, u64)> {
    ensure!(args.rate > 0, "--rate must be above 0");
    tokio::time::sleep(Duration::from_secs(args.wait)).await;
    let owners = owners(args)?;
    let proxy = resolve(&args.p_cscf).await?;
    let run = rand::random();
    let (mut handsets, mut contacts) = (Vec::new(), Vec::new());
    for (nth, (subscriber, place)) in (0..).zip(owners) {
        let config = config(args, proxy, nth, place);
        let local = config.local;
        let card = card(subscriber, &args.domain);
        let uri = if args.by_number {
            &card.number
        } else {
            &card.public
        }
        .clone();
        let handset = Handset::new(card, config, run).await;
        let (handset, orders) = handset.with_context(|| {
            format!("device {nth} cannot have {local}: is the address this host's, and free?")
        })?;
        handsets.push(handset);
        contacts.push(Contact { orders, uri });
    }
    let [enough, quiet, stop] = std::array::from_fn(|_| CancellationToken::new());
    let count = u32::try_from(handsets.len()).unwrap_or(u32::MAX);
    let mut lives = JoinSet::new();
    for (nth, handset) in (0..).zip(handsets) {
        let begin = Duration::from_secs(1) * nth / args.rate;
        lives.spawn(handset.live(begin, quiet.clone(), stop.clone()));
    }
    let all = Duration::from_secs(args.seconds);
    let registered = Duration::from_secs(1) * count / args.rate + SETTLED;
    let given = tokio::spawn({
        let (work, enough) = (work(args), enough.clone());
        async move {
            tokio::time::sleep(registered).await;
            work.give(contacts, enough).await
        }
    });
    let end = async {
        let rest = all.min(Duration::from_secs(args.quiet_end));
        tokio::time::sleep(all - rest).await;
        enough.cancel();
        tokio::time::sleep(rest.saturating_sub(LAST)).await;
        quiet.cancel();
        tokio::time::sleep(rest.min(LAST)).await;
    };
    let mut terminate = signal(SignalKind::terminate())?;
    // Cancel-safe: none of them holds anything.
    tokio::select! {
        () = end => {}
        _ = tokio::signal::ctrl_c() => enough.cancel(),
        _ = terminate.recv() => enough.cancel(),
    }
    stop.cancel();
    let lives = lives.join_all().await;
    given.abort();
    let not_given = given.await.unwrap_or_default();
    let refused = lives.iter().map(|(_, refused)| refused).sum::<u64>() + not_given;
    Ok((lives.into_iter().map(|(counts, _)| counts).collect(), refused))
}

fn work(args: &Args) -> Work {
    Work {
        calls_per_second: args.calls,
        talk_s: args.talk,
        hold_every: args.hold_every,
        messages_per_second: args.messages,
        message_bytes: args.message_bytes,
    }
}

/// `10-30`, or `10`.
fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        text.parse()
            .map_err(|_| format!("`{text}` is no number of seconds"))
    };
    let (from, to) = (number(from)?, number(to)?);
    if (1..=to).contains(&from) {
        Ok((from, to))
    } else {
        Err("from 1 on, the shorter first".to_owned())
    }
}

/// Where a device is: its address with its port, and its audio's port.
type Place = (SocketAddrV4, u16);

/// Those whose devices there are, and where.
fn owners(args: &Args) -> Result<Vec<(Subscriber, Place)>> {
    let path = &args.subscribers;
    let list = gantry_lab_aka::read(&read(path)?).with_context(|| format!("{}", path.display()))?;
    let mut owners = match &args.devices {
        Some(devices) => attached(list, devices, args)?,
        None => in_turn(list, args)?,
    };
    let count = args.count.unwrap_or(owners.len());
    ensure!(
        count <= owners.len(),
        "{} has {} subscribers, fewer than --count {count}",
        args.devices.as_ref().unwrap_or(path).display(),
        owners.len()
    );
    owners.truncate(count);
    Ok(owners)
}

/// Each has the address, or the ports, after the one's before.
fn in_turn(list: Vec<Subscriber>, args: &Args) -> Result<Vec<(Subscriber, Place)>> {
    // Those beyond the count need no place.
    let list = list.into_iter().take(args.count.unwrap_or(usize::MAX));
    let placed = (0..).zip(list).map(|(nth, subscriber)| {
        let place = place(args, nth);
        let place = place.with_context(|| format!("there is no address, or no port, for device {nth}"))?;
        Ok((subscriber, place))
    });
    placed.collect()
}

/// Each has the address that is written down for it.
fn attached(list: Vec<Subscriber>, path: &Path, args: &Args) -> Result<Vec<(Subscriber, Place)>> {
    let mut known: HashMap<String, Subscriber> = list
        .into_iter()
        .map(|subscriber| (subscriber.imsi.clone(), subscriber))
        .collect();
    let devices = gantry_lab_radio::read_attached(&read(path)?);
    let devices = devices.with_context(|| format!("{}", path.display()))?;
    let owners = devices.into_iter().map(|device| {
        let subscriber = known.remove(&device.imsi).with_context(|| {
            format!(
                "{} is in {} twice, or is no subscriber",
                device.imsi,
                path.display()
            )
        })?;
        let local = SocketAddrV4::new(device.address, args.port);
        Ok((subscriber, (local, args.audio_port)))
    });
    owners.collect()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn card(subscriber: Subscriber, domain: &str) -> Card {
    let private = format!("{}@{domain}", subscriber.imsi);
    Card {
        public: format!("sip:{private}"),
        number: format!("tel:+{}", subscriber.msisdn),
        private,
        key: subscriber.key,
        seen: Seen::default(),
    }
}

async fn resolve(name: &str) -> Result<SocketAddrV4> {
    let found = tokio::net::lookup_host(name).await;
    let found =
        found.with_context(|| format!("cannot find {name}: write a name or an address, and a port"))?;
    let mut found = found.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    found
        .next()
        .with_context(|| format!("{name} has no IPv4 address"))
}

/// The place of a device without a file.
fn place(args: &Args, nth: u32) -> Option<Place> {
    let first = args.first_address?;
    if args.one_address {
        let port = u16::try_from(nth).ok()?.checked_mul(2)?.checked_add(args.port)?;
        return Some((SocketAddrV4::new(first, port), port.checked_add(1)?));
    }
    let address = u32::from(first).checked_add(nth)?;
    Some((SocketAddrV4::new(address.into(), args.port), args.audio_port))
}

fn config(args: &Args, proxy: SocketAddrV4, nth: u32, (local, audio_port): Place) -> Config {
    Config {
        domain: args.domain.clone(),
        local,
        audio_port,
        proxy,
        expires_s: args.expires,
        refresh_s: args.refresh,
        spread_percent: args.spread,
        // Neighbours are far apart: a stride that has no factor in common with what it goes round in.
        place: u16::try_from(nth * 619 % 1001).unwrap_or_default(),
        timers: Timers::default(),
        late_ms: args.late,
        pad_bytes: args.pad.into(),
    }
}
