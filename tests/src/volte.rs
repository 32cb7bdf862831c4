//! Voice over LTE, played: the service of the catalog, devices that attach, register and call, and changes meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::gantry::Gantry;
use crate::scraper::{page, scrape};
use crate::{devices, processes};

/// The twelve, and what shows that one was on the way.
const FUNCTIONS: [(&str, Counter); 12] = [
    ("dns", Counter::NumbersAsked),
    ("hss", Counter::Metric("hss_requests_total")),
    ("pcrf", Counter::Metric("pcrf_requests_total")),
    ("diameter-agent", Counter::Packets("eth0")),
    ("mme", Counter::Metric("mme_attaches_total")),
    ("sgw", Counter::Packets("eth0")),
    ("pgw", Counter::Packets("pgwtun")),
    ("p-cscf", CALLS),
    ("i-cscf", CALLS),
    ("s-cscf", CALLS),
    ("mmtel-as", CALLS),
    ("media", AUDIO),
];
const AUDIO: Counter = Counter::Metric(devices::AUDIO_PACKETS);
const CALLS: Counter = Counter::Metric("kamailio_core_rcv_requests_invite");
/// How long the devices may take beyond the time that they are asked for.
const PATIENCE: Duration = Duration::from_secs(180);

/// What devices do, and which functions become bigger and smaller meanwhile.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// How many devices.
    pub devices: u64,
    /// Calls that are begun in a second, of 5 to 10 seconds.
    pub calls: u32,
    /// How long the devices are there, in seconds.
    pub seconds: u32,
    /// Which of the twelve are resized, up and down.
    pub resized: Vec<&'static str>,
}

impl Load {
    /// With a function of each plane that is changed.
    pub fn short() -> Self {
        Self {
            devices: 40,
            calls: 2,
            seconds: 60,
            resized: vec!["s-cscf", "media", "sgw"],
        }
    }

    /// With each of the twelve changed.
    pub fn whole(devices: u64, calls: u32, seconds: u32) -> Self {
        Self {
            devices,
            calls,
            seconds,
            resized: FUNCTIONS.map(|(function, _)| function).to_vec(),
        }
    }
}

/// Probes make none of these grow but the packets of `eth0`.
#[derive(Clone, Copy)]
enum Counter {
    /// One that the function shows.
    Metric(&'static str),
    /// Telephone numbers that BIND was asked for (ENUM, RFC 6116).
    NumbersAsked,
    /// What the kernel counts for an interface of the pod, for programs that show nothing.
    Packets(&'static str),
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked of the devices.
    pub load: Load,
    /// What the devices saw: registrations, calls, messages, audio.
    pub calls: Value,
    /// What the radio side saw: attaches, packets.
    pub radio: Value,
    /// What passed each function while the devices were there, by its counter.
    pub passed: BTreeMap<String, u64>,
    /// What `gantry top` said of each function while they called.
    pub top: Value,
    /// Memory of each function's processes (proportional), in bytes.
    pub memory_bytes: BTreeMap<String, u64>,
}

/// Deploys the service, lets devices call while functions become bigger and smaller, and takes the devices away.
pub fn play(gantry: &Gantry, load: Load) -> Result<Report> {
    deploy(gantry, &load)?;
    let before = counted(gantry)?;
    gantry.apply(&manifest(&load)?)?;
    devices::resize_under_calls(gantry, &load.resized, PATIENCE)?;
    let top = serde_json::from_str(&gantry.text(&["top", "volte", "-o", "json"])?)?;
    let memory_bytes = of_each(|function, _| memory(gantry, function))?;
    let (calls, radio) = reports(gantry, &load)?;
    let passed = counted(gantry)?
        .into_iter()
        .map(|(function, now)| (function.clone(), now - before[&function]))
        .collect();
    devices::remove(gantry)?;
    Ok(Report {
        load,
        calls,
        radio,
        passed,
        top,
        memory_bytes,
    })
}

/// Deploys the service, and the keys of its subscribers.
pub fn deploy(gantry: &Gantry, load: &Load) -> Result<()> {
    gantry.apply(&devices::subscribers(load.devices).to_string())?;
    gantry.run(&["deploy", "volte"])
}

/// What the devices saw, and what the radio side saw.
pub fn reports(gantry: &Gantry, load: &Load) -> Result<(Value, Value)> {
    let patience = PATIENCE + Duration::from_secs(load.seconds.into());
    let calls = devices::finish(gantry, "ue", patience)?;
    let radio = report_of(&gantry.text(&["logs", "devices", "-c", "radio"])?)?;
    Ok((calls, radio))
}

impl Report {
    /// All that was begun is done, nothing was lost on the way, and each function was on it.
    pub fn judge(&self) -> Result<()> {
        let (calls, audio) = (&self.calls, &self.calls["audio"]);
        let devices = self.load.devices;
        ensure!(self.radio["attaches"]["attached"] == devices, "not all attached");
        for (part, none) in [("attaches", "failed"), ("packets", "dropped")] {
            let of = &self.radio[part];
            // A device's kernel asks for routers of IPv6 by itself.
            let mut reasons = of[none].as_object().into_iter().flatten();
            ensure!(
                reasons.all(|(reason, count)| *count == 0 || reason == "not_ipv4"),
                "{part}: {of}"
            );
        }
        ensure!(calls["registrations"]["done"] == devices, "not all registered");
        for what in [
            "registrations",
            "refreshes",
            "subscriptions",
            "calls",
            "holds",
            "messages",
        ] {
            let of = &calls[what];
            ensure!(of["begun"].as_u64() > Some(0), "no {what}");
            ensure!(of["done"] == of["begun"], "{what}: {of}");
        }
        for none in [
            "leaked_keys",
            "not_authentic",
            "unchallenged",
            "undelivered",
            "unnotified",
            "without_identity",
            "wrong_contacts",
            "wrong_targets",
            "wrong_texts",
            "wrong_vias",
        ] {
            ensure!(calls[none] == 0, "{none}: {}", calls[none]);
        }
        for none in [
            "lost",
            "doubled",
            "foreign",
            "open",
            "reordered",
            "unheard",
            "without_call",
            "wrong_port",
        ] {
            ensure!(audio[none] == 0, "audio {none}: {audio}");
        }
        let sent = audio["sent"].as_u64().unwrap_or(0);
        ensure!(sent > 1000, "no audio");
        self.judge_top()?;
        let carried = self.radio["packets"]["up"].as_u64().unwrap_or(0);
        ensure!(carried >= sent, "audio went elsewhere than through GTP-U");
        let begun = calls["calls"]["begun"].as_u64().unwrap_or(0);
        let questions = self.passed["hss"] + self.passed["pcrf"];
        for (function, passed) in &self.passed {
            let least = match function.as_str() {
                "sgw" | "pgw" | "media" => sent,
                "hss" | "pcrf" | "mme" => devices,
                // Each question comes to it, and its answer.
                "diameter-agent" => 2 * questions,
                _ => begun,
            };
            ensure!(
                *passed >= least,
                "{function} is not on the way: {passed} of at least {least}"
            );
        }
        Ok(())
    }

    /// It knew all of them, and the calls.
    fn judge_top(&self) -> Result<()> {
        let rows = self.top.as_array().context("no rows")?;
        ensure!(rows.len() == FUNCTIONS.len(), "{rows:?}");
        for row in rows {
            for known in ["cpuMilli", "memoryBytes", "packetsPerSecond"] {
                ensure!(row[known].as_f64() > Some(0.0), "{known}: {row}");
            }
        }
        let media = rows.iter().find(|row| row["function"] == "media");
        ensure!(
            media.is_some_and(|row| row["plane"] == "media" && row["sessions"].as_u64() > Some(0)),
            "no calls: {media:?}"
        );
        Ok(())
    }
}

fn of_each(of: impl Fn(&str, Counter) -> Result<u64>) -> Result<BTreeMap<String, u64>> {
    let each = FUNCTIONS.into_iter();
    each.map(|(function, counter)| Ok((function.to_owned(), of(function, counter)?)))
        .collect()
}

/// What each function's counter says now.
fn counted(gantry: &Gantry) -> Result<BTreeMap<String, u64>> {
    of_each(|function, counter| count(gantry, function, counter))
}

fn count(gantry: &Gantry, function: &str, counter: Counter) -> Result<u64> {
    let instances = gantry.instances(function)?;
    let first = instances.first().with_context(|| format!("{function} is gone"))?;
    let count = match counter {
        Counter::Metric(name) => scrape(first.metrics).and_then(|all| Some(*all.get(name)? as u64)),
        Counter::NumbersAsked => page(first.metrics, "/json/v1/server").and_then(|text| {
            let server: Value = serde_json::from_str(&text).ok()?;
            Some(server["qtypes"]["NAPTR"].as_u64().unwrap_or(0))
        }),
        Counter::Packets(interface) => received(gantry, &first.name, interface)?,
    };
    count.with_context(|| format!("{function} does not count"))
}

/// The report at the end of a log.
fn report_of(log: &str) -> Result<Value> {
    let at = log.find("\n{").or_else(|| log.starts_with('{').then_some(0));
    serde_json::from_str(&log[at.context("no report")?..]).context("no report")
}

/// Packets that a pod's interface has received (proc(5), `/proc/net/dev`).
fn received(gantry: &Gantry, pod: &str, interface: &str) -> Result<Option<u64>> {
    let table = gantry.read_file(pod, "/proc/net/dev")?;
    let mut lines = table.lines().filter_map(|line| line.split_once(':'));
    let (_, counts) = lines
        .find(|(name, _)| name.trim() == interface)
        .with_context(|| format!("{pod} has no {interface}"))?;
    let packets = counts.split_whitespace().nth(1);
    Ok(packets.and_then(|text| text.parse().ok()))
}

/// Of all processes of a function's pods, the shim among them, what is theirs alone and their part of what they share (proc(5),
/// `smaps_rollup`).
fn memory(gantry: &Gantry, function: &str) -> Result<u64> {
    let mut kib = 0;
    for pod in gantry.pods(function)? {
        for pid in processes::of_pod(&pod)? {
            // One that has just ended has none.
            let table = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = table.lines().find_map(|line| line.strip_prefix("Pss:"));
            let amount = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib += amount.unwrap_or(0);
        }
    }
    Ok(kib * 1024)
}

/// The devices of the README, with another load.
pub fn manifest(load: &Load) -> Result<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../nf-catalog/lab/enb/devices.yaml");
    let text = fs::read_to_string(path)?;
    let text = devices::with(
        &text,
        "--count, \"40\"",
        &format!("--count, \"{}\"", load.devices),
    )?;
    let text = devices::with(&text, "--calls, \"2\"", &format!("--calls, \"{}\"", load.calls))?;
    devices::with(
        &text,
        "--seconds, \"120\"",
        &format!("--seconds, \"{}\"", load.seconds),
    )
}
