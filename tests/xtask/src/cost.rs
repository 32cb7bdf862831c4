//! `cargo xtask cost`: an IMS core under calls, on Gantry and in turn as the same programs started by hand, and what the difference is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use gantry_tests::api::Api;
use gantry_tests::bare::{Program, Running};
use gantry_tests::gantry::Gantry;
use gantry_tests::{Images, devices, poll, processes};
use serde::Serialize;
use serde_json::{Value, json};

use crate::prepare;

const NETWORKS: [&str; 4] = ["--pod-cidr", "10.116.0.0/16", "--service-cidr", "10.117.0.0/16"];
/// Of the devices, all at the generator.
const DEVICES: &str = "10.118.0.0/16";
const FIRST_DEVICE: &str = "10.118.0.1";
/// The elements, each after those that it asks as it starts.
const ELEMENTS: [&str; 9] = [
    "dns",
    "subscriber-db",
    "hss",
    "diameter-agent",
    "mmtel-as",
    "media",
    "i-cscf",
    "s-cscf",
    "p-cscf",
];
/// Those with a virtual address, which nobody has who starts programs by hand.
const VIRTUAL: [&str; 2] = ["dns", "media"];
/// Seconds from the devices' start to the first registration, in which their files are copied.
const WAIT: u32 = 15;
const PATIENCE: Duration = Duration::from_secs(60);

/// Something measured, and how far beyond the programs by hand it may be: by a ratio, or by a difference that is as good.
struct Figure {
    name: &'static str,
    of: fn(&Round) -> f64,
    ratio: f64,
    difference: f64,
}

const fn figure(name: &'static str, of: fn(&Round) -> f64, ratio: f64, difference: f64) -> Figure {
    Figure {
        name,
        of,
        ratio,
        difference,
    }
}

const FIGURES: [Figure; 7] = [
    figure("registration p95 (ms)", |r| r.register_p95_ms, 1.25, 2.0),
    figure("call set-up p95 (ms)", |r| r.set_up_p95_ms, 1.25, 2.0),
    figure("audio gap p99.9 (ms)", |r| r.gap_p999_ms, 1.5, 0.0),
    figure("CPU of the elements (s)", |r| r.cpu_seconds, 1.15, 0.0),
    figure("failed", |r| r.failed, 1.0, 0.0),
    figure("packets lost", |r| r.packets_lost, 1.0, 0.0),
    figure("sent again", |r| r.retransmissions, 1.0, 0.0),
];

/// Of audio, in milliseconds.
const LONGEST_GAP_MS: f64 = 100.0;

/// What the devices do.
#[derive(clap::Args)]
pub struct Load {
    /// Devices that register
    #[arg(long, default_value_t = 4000)]
    devices: u32,
    /// How many of them in a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Calls that are begun in a second, of 10 to 30 seconds
    #[arg(long, default_value_t = 11)]
    calls: u32,
    /// Seconds of a round
    #[arg(long, default_value_t = 243)]
    seconds: u32,
    /// Rounds, each once on Gantry and once by hand
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// On Gantry each element becomes bigger and smaller once under calls
    #[arg(long)]
    resize: bool,
}

impl Load {
    fn patience(&self) -> Duration {
        PATIENCE + Duration::from_secs((WAIT + self.seconds).into())
    }
}

/// What came of one round.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    register_p95_ms: f64,
    set_up_p95_ms: f64,
    gap_p999_ms: f64,
    longest_gap_ms: f64,
    retransmissions: f64,
    failed: f64,
    packets_lost: f64,
    /// User and system, of the elements, with what Gantry does in their pods.
    cpu_seconds: f64,
    cpu_seconds_by_element: BTreeMap<String, f64>,
    calls: u64,
    calls_at_once: u64,
    packets: u64,
    /// All that the devices say.
    report: Value,
}

/// Runs the rounds and prints the medians. Fails where Gantry costs more than it may.
pub fn run(load: &Load, report_file: Option<&Path>) -> Result<()> {
    prepare::for_pods("cost")?;
    let gantry = Gantry::new("cost", false)?;
    gantry.first_up(&NETWORKS)?;
    gantry.import_images(Images::CORE)?;
    gantry.import_images(Images::DATABASE)?;
    gantry.apply(&devices::subscribers(load.devices.into()).to_string())?;
    gantry.apply(&devices::database_password().to_string())?;
    let (mut managed, mut bare) = (Vec::new(), Vec::new());
    for number in 1..=load.rounds {
        let place = tempfile::tempdir()?;
        let (round, programs) = on_gantry(&gantry, load, place.path())?;
        println!("round {number} on Gantry: {round}");
        managed.push(round);
        let round = by_hand(&programs, load)?;
        println!("round {number} by hand:   {round}");
        bare.push(round);
    }
    drop(gantry);
    if let Some(file) = report_file {
        let report = json!({"onGantry": managed, "byHand": bare});
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    judge(&managed, &bare)
}

/// One round on Gantry, and its programs as they were before the first device came.
fn on_gantry(gantry: &Gantry, load: &Load, place: &Path) -> Result<(Round, Vec<Program>)> {
    gantry.run(&["deploy", "ims"])?;
    let mut programs = Vec::new();
    for element in ELEMENTS {
        let pods = gantry.pods(element)?;
        let pod = pods.first().with_context(|| format!("{element} is gone"))?;
        let container = pod["spec"]["containers"][0]["name"].as_str().unwrap_or_default();
        programs.push(Program::of_pod(pod, container, place)?);
    }
    let devices_of_round = manifest(load, &gantry.vip("dns")?).to_string();
    let before = cpu(gantry)?;
    gantry.apply(&devices_of_round)?;
    let api = Api::of(gantry)?;
    let running = || {
        let pod = devices::pod(&api).ok()?;
        if pod["status"]["phase"] == "Failed" {
            return Some(devices::finish(gantry, "ue", PATIENCE).and(Err(anyhow!("no devices"))));
        }
        Program::of_pod(&pod, "ue", place).ok().map(Ok)
    };
    programs.push(poll(PATIENCE, running).context("the devices do not start")??);
    // What was copied is not to be written while the database writes.
    nix::unistd::sync();
    if load.resize {
        devices::resize_under_calls(gantry, &ELEMENTS, load.patience())?;
    }
    let report = devices::finish(gantry, "ue", load.patience())?;
    let after = cpu(gantry)?;
    devices::remove(gantry)?;
    adapt(gantry, &programs)?;
    gantry.run(&["undeploy", "ims"])?;
    Ok((Round::of(report, &before, &after)?, programs))
}

/// What has to be other by hand: there are no virtual addresses, and where all share a network namespace, nobody may listen everywhere.
fn adapt(gantry: &Gantry, programs: &[Program]) -> Result<()> {
    for (element, program) in ELEMENTS.into_iter().zip(programs) {
        let own = program.address().to_string();
        if VIRTUAL.contains(&element) {
            let vip = gantry.vip(element)?;
            programs.iter().try_for_each(|other| other.replace(&vip, &own))?;
        }
        let listen = format!("ListenOn = \"{own}\";");
        match element {
            "diameter-agent" => program.append("freeDiameter/freeDiameter.conf", &listen)?,
            "dns" => program.replace("inet \\*", &format!("inet {own}"))?,
            _ => {}
        }
    }
    Ok(())
}

/// The same programs once more without Gantry; the last of them is the load.
fn by_hand(programs: &[Program], load: &Load) -> Result<Round> {
    let (devices, elements) = programs.split_last().context("no programs")?;
    let addresses: Vec<Ipv4Addr> = programs.iter().map(Program::address).collect();
    let mut running = Running::network(&addresses, DEVICES)?;
    for element in elements {
        running.start(element, false)?;
    }
    let before = running.cpu()?;
    running.start(devices, true)?;
    let log = running.finish(load.patience())?;
    let report = serde_json::from_str(&log).with_context(|| format!("no report: {log}"))?;
    Round::of(report, &before, &running.cpu()?)
}

/// CPU time of each element's pod so far.
fn cpu(gantry: &Gantry) -> Result<BTreeMap<String, Duration>> {
    let of = |element: &str| {
        let mut pids = Vec::new();
        for pod in gantry.pods(element)? {
            pids.extend(processes::of_pod(&pod)?);
        }
        Ok((element.to_owned(), processes::cpu(&pids)))
    };
    ELEMENTS.into_iter().map(of).collect()
}

/// A pod of devices, each with an address of its own, that asks the core's name server.
fn manifest(load: &Load, dns: &str) -> Value {
    let route = format!("ip route add local {DEVICES} dev lo");
    let extras = json!({"subnets": [DEVICES], "openFiles": {"ue": 65_536}}).to_string();
    let numbers = [
        ("--count", load.devices),
        ("--rate", load.rate),
        ("--wait", WAIT),
        ("--seconds", load.seconds),
        ("--calls", load.calls),
        ("--quiet-end", 35),
        ("--refresh", 60),
    ];
    let mut arguments: Vec<String> = [
        "--subscribers",
        "/etc/ue/subscribers.csv",
        "--domain",
        "ims.lab",
        "--p-cscf",
        "p-cscf.ims.lab:5060",
        "--first-address",
        FIRST_DEVICE,
        "--talk",
        "10-30",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.extend(
        numbers
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value.to_string()]),
    );
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "devices", "annotations": {"gantry.dev/extras": extras}},
        "spec": {
            "restartPolicy": "Never",
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": [dns]},
            "initContainers": [{"name": "route", "image": "nextepc:0.3.10", "command": ["/bin/sh", "-c", route],
                "securityContext": {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}}}],
            "containers": [{"name": "ue", "image": "lab:0.1.0", "command": ["/usr/bin/lab-ue"], "args": arguments,
                "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
                "volumeMounts": [{"name": "subscribers", "mountPath": "/etc/ue"}]}],
            "volumes": [{"name": "subscribers", "secret": {"secretName": "subscribers"}}]}})
}

impl Round {
    fn of(
        report: Value,
        before: &BTreeMap<String, Duration>,
        after: &BTreeMap<String, Duration>,
    ) -> Result<Self> {
        let number = |pointer: &str| {
            let found = report.pointer(pointer).and_then(Value::as_f64);
            found.with_context(|| format!("the report has no {pointer}"))
        };
        let mut failed = 0.0;
        for what in ["registrations", "refreshes", "subscriptions", "calls", "holds"] {
            failed += number(&format!("/{what}/begun"))? - number(&format!("/{what}/done"))?;
        }
        for none in [
            "undelivered",
            "unchallenged",
            "unnotified",
            "not_authentic",
            "wrong_targets",
        ] {
            failed += number(&format!("/{none}"))?;
        }
        let spent = before.iter().map(|(element, before)| {
            let after = after.get(element).copied().unwrap_or_default();
            (element.clone(), after.saturating_sub(*before).as_secs_f64())
        });
        let spent: BTreeMap<String, f64> = spent.collect();
        Ok(Self {
            register_p95_ms: number("/registrations/p95_ms")?,
            set_up_p95_ms: number("/ringing/p95_ms")?,
            gap_p999_ms: number("/audio/p999_gap_ms")?,
            longest_gap_ms: number("/audio/longest_gap_ms")?,
            retransmissions: number("/retransmissions")?,
            failed,
            packets_lost: number("/audio/lost")?,
            cpu_seconds: spent.values().sum(),
            cpu_seconds_by_element: spent,
            calls: number("/calls/begun")? as u64,
            calls_at_once: number("/calls_at_once")? as u64,
            packets: number("/audio/sent")? as u64,
            report,
        })
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls, {} of them at once, {} packets; {} failed, {} sent again, {} packets lost, longest gap {} ms; CPU {:.1} s",
            self.calls,
            self.calls_at_once,
            self.packets,
            self.failed,
            self.retransmissions,
            self.packets_lost,
            self.longest_gap_ms,
            self.cpu_seconds
        )
    }
}

/// Prints the medians; an error if one is beyond what is allowed, or if anything was lost on Gantry.
fn judge(managed: &[Round], bare: &[Round]) -> Result<()> {
    println!("{:<26}{:>10}{:>10}{:>8}", "MEDIAN", "GANTRY", "BY HAND", "RATIO");
    let mut beyond = Vec::new();
    for Figure {
        name,
        of,
        ratio,
        difference,
    } in FIGURES
    {
        let (ours, floor) = (median(managed, of), median(bare, of));
        let times = if floor > 0.0 {
            format!("{:.2}", ours / floor)
        } else {
            "-".to_owned()
        };
        println!("{name:<26}{ours:>10.2}{floor:>10.2}{times:>8}");
        if ours > floor * ratio && ours > floor + difference {
            beyond.push(name);
        }
    }
    for (number, round) in (1..).zip(managed) {
        if round.failed > 0.0 || round.packets_lost > 0.0 || round.longest_gap_ms > LONGEST_GAP_MS {
            bail!(
                "round {number} on Gantry: nothing may fail or be lost, and no gap exceed {LONGEST_GAP_MS} ms: {round}"
            );
        }
    }
    match beyond.as_slice() {
        [] => Ok(()),
        _ => bail!("Gantry costs more than it may: {}", beyond.join(", ")),
    }
}

fn median(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}
