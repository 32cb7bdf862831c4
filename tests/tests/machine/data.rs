//! Packets of devices through gateways that become smaller and bigger: of 4G, and of 2G and 3G, where the gateway comes again.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use gantry_tests::leftovers::Leftovers;
use gantry_tests::{Images, devices, poll};
use serde_json::Value;

use crate::{PATIENCE, machine, no_volume_is_left, up_with};

const DEVICES: u64 = 50;
const PACKETS: u64 = 8000;
const RATE: u64 = 1000;
const PODS: &str = "/api/v1/namespaces/default/pods";
const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../nf-catalog/lab");

/// A packet core, and its devices that only send.
struct Core {
    service: &'static str,
    /// Of the devices, in the lab's directory, and what makes them fewer.
    manifest: &'static str,
    fewer: (&'static str, String),
    /// What becomes smaller and bigger while packets pass.
    gateways: &'static [&'static str],
    /// Where the last gateway counts what comes out of the tunnels.
    pod: &'static str,
    counter: &'static str,
}

#[test]
fn contexts_carry_packets_through_a_ggsn() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let core = Core {
        service: "2g3g-data",
        manifest: "sgsn/devices.yaml",
        fewer: (
            "name: CONTEXTS, value: \"200\"",
            format!("name: CONTEXTS, value: \"{DEVICES}\""),
        ),
        gateways: &["ggsn"],
        pod: "ggsn-0",
        counter: "/sys/class/net/apn0/statistics/rx_packets",
    };
    core.carries("data", 122, Images::DATA, |gantry| {
        comes_again(gantry, &Api::of(gantry)?)
    })
}

#[test]
fn sessions_carry_packets_through_a_serving_and_a_packet_gateway() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let core = Core {
        service: "epc",
        manifest: "enb/traffic.yaml",
        fewer: ("--count, \"500\"", format!("--count, \"{DEVICES}\"")),
        gateways: &["sgw", "pgw"],
        pod: "pgw-0",
        counter: "/sys/class/net/pgwtun/statistics/rx_packets",
    };
    core.carries("epc", 124, Images::CORE, |_| Ok(()))
}

impl Core {
    /// Packets pass while gateways change, then something else happens, and nothing is left.
    fn carries(
        &self,
        name: &str,
        net: u8,
        images: Images,
        then: impl FnOnce(&Gantry) -> Result<()>,
    ) -> Result<()> {
        let before = Leftovers::now()?;
        let gantry = up_with(name, net, &[], images)?;
        let running = Leftovers::now()?;
        let report = self.play(&gantry)?;
        println!("{report}");
        judge(&report)?;
        let carried = number(&gantry, self.pod, self.counter)?;
        ensure!(
            carried >= PACKETS,
            "packets went elsewhere than through GTP-U: {carried}"
        );
        devices::remove(&gantry)?;
        then(&gantry)?;

        delete(&Api::of(&gantry)?, &format!("{PODS}/echo"))?;
        gantry.run(&["undeploy", self.service])?;
        running.ensure_nothing_new_of_pods().context("after undeploy")?;
        no_volume_is_left(&gantry)?;
        drop(gantry);
        before.ensure_nothing_new().context("after down --purge")
    }

    /// Deploys the service and its devices, resizes the gateways while packets pass, and reads what became of them.
    fn play(&self, gantry: &Gantry) -> Result<Value> {
        gantry.apply(&devices::subscribers(DEVICES).to_string())?;
        gantry.run(&["deploy", self.service])?;
        gantry.run(&["deploy", &format!("{LAB}/traffic/echo.yaml")])?;
        let text = fs::read_to_string(format!("{LAB}/{}", self.manifest))?;
        let text = devices::with(&text, self.fewer.0, &self.fewer.1)?;
        let packets = format!("--rate {RATE} --packets {PACKETS}");
        gantry.apply(&devices::with(&text, "--rate 5000 --packets 1000000", &packets)?)?;
        let passing = || number(gantry, self.pod, self.counter).ok().filter(|n| *n > RATE);
        poll(PATIENCE, passing).context("no packet comes through")?;
        for limit in ["250m", "2000m"] {
            for gateway in self.gateways {
                gantry.run(&["resize", gateway, "--cpu", "50m", "--cpu-limit", limit])?;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        devices::finish(gantry, "traffic", PATIENCE)
    }
}

/// Each packet was answered once, to the device that had sent it.
fn judge(report: &Value) -> Result<()> {
    for (count, expected) in [("devices", DEVICES), ("sent", PACKETS), ("received", PACKETS)] {
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
    let counter = || number(gantry, "ggsn-0", "/var/lib/ggsn/gsn_restart");
    let first = counter()?;
    delete(api, &format!("{PODS}/ggsn-0"))?;
    let grown = || counter().ok().filter(|now| *now > first);
    poll(PATIENCE, grown).context("the restart counter has not grown")?;
    Ok(())
}

fn number(gantry: &Gantry, pod: &str, path: &str) -> Result<u64> {
    Ok(gantry.read_file(pod, path)?.trim().parse()?)
}

fn delete(api: &Api, path: &str) -> Result<()> {
    let gone = api.ask("DELETE", path, "application/json", "")?;
    ensure!(gone.code == 200, "{path}: {gone:?}");
    Ok(())
}
