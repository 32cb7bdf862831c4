//! The pod `devices` of a core network: the lab's devices, and what they report.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::api::Api;
use crate::gantry::Gantry;
use crate::scraper::scrape;
use crate::{poll, poll_each};

const PATIENCE: Duration = Duration::from_secs(60);
/// Packets at the media gateway by which calls are up.
const CALLING: f64 = 500.0;
/// The media gateway's counter of them.
pub const AUDIO_PACKETS: &str = "rtpengine_packets_total";
/// Between two questions, since what asks takes CPU from what is measured.
const SELDOM: Duration = Duration::from_secs(1);
const POD: &str = "/api/v1/namespaces/default/pods/devices";

/// A Secret of so many subscribers, with keys that are as good as any in a test.
pub fn subscribers(count: u64) -> Value {
    let mut lines = "imsi,msisdn,k,opc\n".to_owned();
    for n in 1..=count {
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

/// A Secret for `subscriber-db`.
pub fn database_password() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "subscriber-db"},
        "stringData": {"password": "as-good-as-any-in-a-test"}})
}

/// The pod, as the API has it now.
pub fn pod(api: &Api) -> Result<Value> {
    Ok(api.get(POD)?.json())
}

/// Makes functions bigger and smaller, one after the other, once audio passes the media gateway.
pub fn resize_under_calls(gantry: &Gantry, functions: &[&str], patience: Duration) -> Result<()> {
    let passes = || {
        let media = gantry.instances("media").ok()?;
        let packets = *scrape(media.first()?.metrics)?.get(AUDIO_PACKETS)?;
        (packets > CALLING).then_some(())
    };
    poll_each(SELDOM, patience, passes).context("nobody calls")?;
    for function in functions {
        gantry.run(&["resize", function, "--cpu", "600m", "--cpu-limit", "2500m"])?;
        gantry.run(&["resize", function, "--cpu", "50m", "--cpu-limit", "1000m"])?;
    }
    Ok(())
}

/// Waits until the devices have done what they were asked for; the report of one container.
pub fn finish(gantry: &Gantry, container: &str, patience: Duration) -> Result<Value> {
    let api = Api::of(gantry)?;
    let ended = || {
        let phase = pod(&api).ok()?["status"]["phase"].clone();
        (phase == "Succeeded" || phase == "Failed").then_some(phase)
    };
    let phase = poll_each(SELDOM, patience, ended).context("the devices go on")?;
    let log = gantry.text(&["logs", "devices", "-c", container])?;
    ensure!(phase == "Succeeded", "the devices have failed: {log}");
    serde_json::from_str(&log).with_context(|| format!("no report: {log}"))
}

/// Takes them away, and waits until they are gone.
pub fn remove(gantry: &Gantry) -> Result<()> {
    let api = Api::of(gantry)?;
    let gone = api.ask("DELETE", POD, "application/json", "")?;
    ensure!(gone.code == 200, "{gone:?}");
    let none = || api.get(POD).ok().filter(|answer| answer.code == 404);
    poll(PATIENCE, none).context("the devices stay")?;
    Ok(())
}

/// A manifest with something else in the place of this.
pub fn with(manifest: &str, old: &str, new: &str) -> Result<String> {
    let (before, after) = manifest
        .split_once(old)
        .with_context(|| format!("the manifest has no {old}"))?;
    Ok(format!("{before}{new}{after}"))
}
