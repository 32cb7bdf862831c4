//! Voice over LTE, played: the service of the catalog, devices that attach, register and call, and changes meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::Api;
use crate::gantry::Gantry;
use crate::{poll, processes};

/// The twelve, and the one that each plane's change is tried on.
pub const FUNCTIONS: [&str; 12] = [
    "dns",
    "hss",
    "pcrf",
    "diameter-agent",
    "mme",
    "sgw",
    "pgw",
    "p-cscf",
    "i-cscf",
    "s-cscf",
    "mmtel-as",
    "media",
];
const RESIZED: [&str; 3] = ["s-cscf", "media", "sgw"];
/// Devices, as the manifest has them.
const DEVICES: u64 = 40;
/// How long the devices may take beyond the time that they are asked for.
const PATIENCE: Duration = Duration::from_secs(180);
/// Packets at the media gateway by which calls are up.
const CALLING: u64 = 500;
const POD: &str = "/api/v1/namespaces/default/pods/devices";

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the devices saw: registrations, calls, messages, audio.
    pub calls: Value,
    /// What the radio side saw: attaches, packets.
    pub radio: Value,
    /// Packets that came to each function while the devices were there, those of its probes among them.
    pub packets: BTreeMap<String, u64>,
    /// Memory of each function's processes (proportional), in bytes.
    pub memory_bytes: BTreeMap<String, u64>,
}

/// Deploys the service, lets devices call for so many seconds while functions of each plane become bigger and smaller, and takes the
/// devices away.
pub fn play(gantry: &Gantry, seconds: u32) -> Result<Report> {
    let files = tempfile::tempdir()?;
    let file = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    fs::write(file("subscribers.json"), subscribers().to_string())?;
    fs::write(file("devices.yaml"), devices(seconds)?)?;
    gantry.run(&["deploy", &file("subscribers.json")])?;
    gantry.run(&["deploy", "volte"])?;
    let before = of_each(|function| received(gantry, &format!("{function}-0")))?;
    gantry.run(&["deploy", &file("devices.yaml")])?;
    let audio = || {
        received(gantry, "media-0")
            .ok()
            .filter(|packets| *packets > before["media"] + CALLING)
    };
    poll(PATIENCE, audio).context("nobody calls")?;
    for function in RESIZED {
        gantry.run(&["resize", function, "--cpu", "600m"])?;
        gantry.run(&["resize", function, "--cpu", "50m"])?;
    }
    let memory_bytes = of_each(|function| memory(gantry, function))?;
    let api = Api::of(gantry)?;
    let ended = || {
        let phase = api.get(POD).ok()?.json()["status"]["phase"].clone();
        (phase == "Succeeded" || phase == "Failed").then_some(phase)
    };
    let phase = poll(PATIENCE + Duration::from_secs(seconds.into()), ended).context("the devices go on")?;
    ensure!(
        phase == "Succeeded",
        "the devices have failed: `kubectl logs devices -c ue`"
    );

    let calls = gantry.text(&["logs", "devices", "-c", "ue"])?;
    let report = Report {
        calls: serde_json::from_str(&calls).with_context(|| format!("no report: {calls}"))?,
        radio: report_of(&gantry.text(&["logs", "devices", "-c", "radio"])?)?,
        packets: of_each(|function| Ok(received(gantry, &format!("{function}-0"))? - before[function]))?,
        memory_bytes,
    };
    let gone = api.ask("DELETE", POD, "application/json", "")?;
    ensure!(gone.code == 200, "{gone:?}");
    Ok(report)
}

impl Report {
    /// All that was begun is done, nothing was lost on the way, and each function was on it.
    pub fn judge(&self) -> Result<()> {
        let (calls, audio) = (&self.calls, &self.calls["audio"]);
        ensure!(self.radio["attaches"]["attached"] == DEVICES, "not all attached");
        ensure!(calls["registrations"]["done"] == DEVICES, "not all registered");
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
            "without_identity",
            "wrong_contacts",
            "wrong_targets",
            "wrong_vias",
        ] {
            ensure!(calls[none] == 0, "{none}: {}", calls[none]);
        }
        for none in ["lost", "doubled", "foreign", "unheard"] {
            ensure!(audio[none] == 0, "audio {none}: {audio}");
        }
        let sent = audio["sent"].as_u64().unwrap_or(0);
        ensure!(sent > 1000, "no audio");
        let carried = self.radio["packets"]["up"].as_u64().unwrap_or(0);
        ensure!(carried >= sent, "audio went elsewhere than through GTP-U");
        for (function, packets) in &self.packets {
            let carries_audio = ["sgw", "pgw", "media"].contains(&function.as_str());
            let least = if carries_audio { sent } else { DEVICES };
            ensure!(
                *packets >= least,
                "{function} is not in the way: {packets} packets"
            );
        }
        Ok(())
    }
}

fn of_each(of: impl Fn(&str) -> Result<u64>) -> Result<BTreeMap<String, u64>> {
    let each = FUNCTIONS.into_iter();
    each.map(|function| Ok((function.to_owned(), of(function)?)))
        .collect()
}

/// The report at the end of a log.
fn report_of(log: &str) -> Result<Value> {
    let at = log.find("\n{").or_else(|| log.starts_with('{').then_some(0));
    serde_json::from_str(&log[at.context("no report")?..]).context("no report")
}

/// Packets that a pod's interface has received (proc(5), `/proc/net/dev`).
fn received(gantry: &Gantry, pod: &str) -> Result<u64> {
    let table = gantry.read_file(pod, "/proc/net/dev")?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    let packets = line.and_then(|line| line.split_whitespace().nth(1));
    packets.and_then(|text| text.parse().ok()).context("no eth0")
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

/// Keys that are as good as any in a test.
fn subscribers() -> Value {
    let mut lines = "imsi,msisdn,k,opc\n".to_owned();
    for n in 1..=DEVICES {
        // Writing to a String does not fail.
        let _ = writeln!(
            lines,
            "00101{n:010},4917{n:07},{:032x},{:032x}",
            n * 7919,
            n * 104_729
        );
    }
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "subscribers"},
        "stringData": {"subscribers.csv": lines}})
}

/// The devices of the README, for another time.
fn devices(seconds: u32) -> Result<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../nf-catalog/lab/enb/devices.yaml");
    let text = fs::read_to_string(path)?;
    let (before, after) = text
        .split_once("--seconds, \"120\"")
        .context("the manifest says another time")?;
    Ok(format!("{before}--seconds, \"{seconds}\"{after}"))
}
