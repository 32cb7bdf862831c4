//! Packet data of 2G and 3G: packets of devices through a GGSN that becomes smaller and bigger, and comes again.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use gantry_tests::leftovers::Leftovers;
use gantry_tests::{Images, devices, poll};
use serde_json::Value;

use crate::{PATIENCE, machine, no_volume_is_left, up_with};

const CONTEXTS: u64 = 50;
const PACKETS: u64 = 8000;
const RATE: u64 = 1000;
const PODS: &str = "/api/v1/namespaces/default/pods";
const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../nf-catalog/lab");

#[test]
fn contexts_carry_packets_through_a_ggsn() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let before = Leftovers::now()?;
    let gantry = up_with("data", 122, &[], Images::DATA)?;
    let api = Api::of(&gantry)?;
    let running = Leftovers::now()?;
    let report = play(&gantry)?;
    println!("{report}");
    judge(&report)?;
    let carried: u64 = number(&gantry, "/sys/class/net/apn0/statistics/rx_packets")?;
    ensure!(
        carried >= PACKETS,
        "packets went elsewhere than through GTP-U: {carried}"
    );
    devices::remove(&gantry)?;
    comes_again(&gantry, &api)?;

    delete(&api, &format!("{PODS}/echo"))?;
    gantry.run(&["undeploy", "2g3g-data"])?;
    running.ensure_nothing_new_of_pods().context("after undeploy")?;
    no_volume_is_left(&gantry)?;
    drop(gantry);
    before.ensure_nothing_new().context("after down --purge")
}

/// Deploys the service and its devices, resizes the GGSN while packets pass, and reads what became of them.
fn play(gantry: &Gantry) -> Result<Value> {
    gantry.run(&["deploy", "2g3g-data"])?;
    gantry.run(&["deploy", &format!("{LAB}/traffic/echo.yaml")])?;
    gantry.apply(&manifest()?)?;
    let passing = || {
        number(gantry, "/sys/class/net/apn0/statistics/rx_packets")
            .ok()
            .filter(|n| *n > RATE)
    };
    poll(PATIENCE, passing).context("no packet comes through the GGSN")?;
    gantry.run(&["resize", "ggsn", "--cpu", "50m", "--cpu-limit", "250m"])?;
    std::thread::sleep(Duration::from_secs(1));
    gantry.run(&["resize", "ggsn", "--cpu", "50m", "--cpu-limit", "2000m"])?;
    devices::finish(gantry, "traffic", PATIENCE)
}

/// Each packet was answered once, to the device that had sent it.
fn judge(report: &Value) -> Result<()> {
    for (count, expected) in [("devices", CONTEXTS), ("sent", PACKETS), ("received", PACKETS)] {
        ensure!(report[count] == expected, "{count}: {report}");
    }
    for none in [
        "lost",
        "duplicated",
        "reordered",
        "corrupted",
        "foreign",
        "refused",
    ] {
        ensure!(report[none] == 0, "{none}: {report}");
    }
    Ok(())
}

/// A GGSN that comes again says so to its SGSNs: its restart counter is on its volume, and grows (TS 23.060, 13.8; TS 29.060, 7.7.11).
fn comes_again(gantry: &Gantry, api: &Api) -> Result<()> {
    let counter = || number(gantry, "/var/lib/ggsn/gsn_restart");
    let first = counter()?;
    delete(api, &format!("{PODS}/ggsn-0"))?;
    let grown = || counter().ok().filter(|now| *now > first);
    poll(PATIENCE, grown).context("the restart counter has not grown")?;
    Ok(())
}

/// The devices of the catalog, fewer of them.
fn manifest() -> Result<String> {
    let text = fs::read_to_string(format!("{LAB}/sgsn/devices.yaml"))?;
    let contexts = format!("name: CONTEXTS, value: \"{CONTEXTS}\"");
    let text = devices::with(&text, "name: CONTEXTS, value: \"200\"", &contexts)?;
    let packets = format!("--rate {RATE} --packets {PACKETS}");
    devices::with(&text, "--rate 5000 --packets 1000000", &packets)
}

fn number(gantry: &Gantry, path: &str) -> Result<u64> {
    Ok(gantry.read_file("ggsn-0", path)?.trim().parse()?)
}

fn delete(api: &Api, path: &str) -> Result<()> {
    let gone = api.ask("DELETE", path, "application/json", "")?;
    ensure!(gone.code == 200, "{path}: {gone:?}");
    Ok(())
}
