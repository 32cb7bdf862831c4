//! Voice over LTE on one server: a dozen network functions, devices that attach, register and call, all of it inside GTP-U.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use gantry_tests::leftovers::Leftovers;
use gantry_tests::{Images, poll};
use serde_json::{Value, json};

use crate::{machine, up_with};

/// The twelve.
const FUNCTIONS: [&str; 12] = [
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
/// Devices, as the manifest has them.
const DEVICES: u64 = 40;
/// How long the devices' pod may take beyond the time that it is asked for.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn devices_attach_register_and_call_through_a_dozen_functions() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let before = Leftovers::now()?;
    let gantry = up_with("volte", 120, &[], Images::CORE)?;
    let running = Leftovers::now()?;
    let files = tempfile::tempdir()?;
    let file = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    fs::write(file("subscribers.json"), subscribers().to_string())?;
    fs::write(file("devices.yaml"), devices()?)?;
    gantry.run(&["deploy", &file("subscribers.json")])?;
    gantry.run(&["deploy", "volte"])?;
    gantry.run(&["deploy", &file("devices.yaml")])?;

    // While they call, one of each plane gets less CPU, and as much as before.
    wait(&gantry, "the devices do not run", |pod| {
        pod["status"]["phase"] == "Running"
    })?;
    for (function, cpu) in [("s-cscf", "600m"), ("media", "600m"), ("sgw", "600m")] {
        gantry.run(&["resize", function, "--cpu", cpu])?;
        gantry.run(&["resize", function, "--cpu", "50m"])?;
    }
    wait(&gantry, "the devices do not end", |pod| {
        pod["status"]["phase"] == "Succeeded"
    })?;

    let calls: Value = serde_json::from_str(&gantry.text(&["logs", "devices", "-c", "ue"])?)?;
    let radio = report_of(&gantry.text(&["logs", "devices", "-c", "radio"])?)?;
    println!("{calls}\n{radio}");
    judge(&calls, &radio)?;
    let audio = calls["audio"]["sent"].as_u64().unwrap_or_default();
    for function in FUNCTIONS {
        let packets = received(&gantry, &format!("{function}-0"))?;
        println!("{function}: {packets} packets");
        let carries_audio = ["sgw", "pgw", "media"].contains(&function);
        let least = if carries_audio { audio } else { DEVICES };
        ensure!(
            packets >= least,
            "{function} is not in the way: {packets} packets"
        );
    }

    let gone = Api::of(&gantry)?.ask(
        "DELETE",
        "/api/v1/namespaces/default/pods/devices",
        "application/json",
        "",
    )?;
    ensure!(gone.code == 200, "{gone:?}");
    gantry.run(&["undeploy", "volte"])?;
    running.ensure_nothing_new_of_pods().context("after undeploy")?;
    let claims = gantry.path().join("agent/claims/kept");
    let empty = || {
        fs::read_dir(&claims)
            .is_ok_and(|mut left| left.next().is_none())
            .then_some(())
    };
    poll(PATIENCE, empty).context("a volume is left")?;
    drop(gantry);
    before.ensure_nothing_new().context("after down --purge")
}

/// What nobody has, and all that was begun is done.
fn judge(calls: &Value, radio: &Value) -> Result<()> {
    ensure!(radio["attaches"]["attached"] == DEVICES, "not all attached");
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
    let audio = &calls["audio"];
    ensure!(audio["sent"].as_u64() > Some(1000), "no audio");
    for none in ["lost", "doubled", "foreign", "unheard"] {
        ensure!(audio[none] == 0, "audio {none}: {audio}");
    }
    ensure!(
        radio["packets"]["up"].as_u64() >= audio["sent"].as_u64(),
        "audio went elsewhere than through GTP-U"
    );
    Ok(())
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

fn wait(gantry: &Gantry, otherwise: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
    let found = || {
        let status = gantry.json(&["status"]).ok()?;
        let mut pods = status["pods"].as_array()?.iter();
        pods.find(|pod| pod["metadata"]["name"] == "devices" && is(pod))
            .map(|_| ())
    };
    poll(PATIENCE, found).with_context(|| otherwise.to_owned())
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

/// The devices of the README, for a minute.
fn devices() -> Result<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../nf-catalog/lab/enb/devices.yaml");
    let text = fs::read_to_string(path)?;
    let short = text.replace("--seconds, \"120\"", "--seconds, \"60\"");
    ensure!(short != text, "the manifest says no time");
    Ok(short)
}
