//! The judge of calls judged on a whole core: faults between devices and network, and what the report of the devices has of them.

use anyhow::{Result, ensure};
use gantry_lab_faults::Fault;
use serde_json::Value;

use crate::gantry::Gantry;
use crate::volte::Load;
use crate::{devices, volte};

/// Above any MTU on the way, even in two.
const PADDED: &str = "3000";

/// One run.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was wrong, or what was asked for.
    pub what: String,
    /// How often.
    pub injected: u64,
    /// Where the report has it, and how often.
    pub counted: Vec<(&'static str, u64)>,
    /// Calls and messages that were begun, and of those that were done.
    pub done: [(u64, u64); 2],
    /// Fragments from and to devices.
    pub fragments: (u64, u64),
}

impl Row {
    /// Each injected one is counted, and where none was to be noticed all is done.
    pub fn judge(&self) -> Result<()> {
        let Self { what, injected, .. } = self;
        for (place, counted) in &self.counted {
            ensure!(*injected > 0, "{what}: never injected");
            ensure!(
                counted == injected,
                "{what}: {injected} injected, {place} has {counted}"
            );
        }
        if self.counted.is_empty() {
            ensure!(
                self.fragments.0 > 0 && self.fragments.1 > 0,
                "{what}: no fragments"
            );
            for (begun, done) in self.done {
                ensure!(begun == done && done > 0, "{what}: {done} of {begun} done");
            }
        }
        Ok(())
    }
}

/// Plays all faults and requests above the MTU on a Gantry that has the images; `seen` gets each row.
pub fn play(gantry: &Gantry, mut seen: impl FnMut(&Row)) -> Result<Vec<Row>> {
    volte::deploy(gantry, &load())?;
    let mut rows = Vec::new();
    let mut row = |what: &str, fault: Option<Fault>, padded: bool| -> Result<()> {
        let row = run(gantry, what, fault, padded)?;
        seen(&row);
        rows.push(row);
        Ok(())
    };
    for fault in Fault::ALL {
        let padded = fault.counted_in().is_empty();
        row(fault.word(), Some(fault), padded)?;
    }
    row("above-the-mtu", None, true)?;
    Ok(rows)
}

/// Of each run.
fn load() -> Load {
    Load {
        seconds: 45,
        ..Load::short()
    }
}

fn run(gantry: &Gantry, what: &str, fault: Option<Fault>, padded: bool) -> Result<Row> {
    let load = load();
    let mut manifest = volte::manifest(&load)?;
    if let Some(fault) = fault {
        let option = format!("/run/radio/devices.csv, --fault, {fault}]");
        manifest = devices::with(&manifest, "/run/radio/devices.csv]", &option)?;
    }
    if padded {
        let option = format!("--by-number, --pad, \"{PADDED}\"");
        manifest = devices::with(&manifest, "--by-number", &option)?;
    }
    gantry.apply(&manifest)?;
    let (calls, radio) = volte::reports(gantry, &load)?;
    devices::remove(gantry)?;
    let places = fault.map_or(&[][..], Fault::counted_in);
    Ok(Row {
        what: what.to_owned(),
        injected: number(&radio, "/fault/injected"),
        counted: places
            .iter()
            .map(|place| (*place, number(&calls, place)))
            .collect(),
        done: ["/calls", "/messages"].map(|of| {
            ["begun", "done"]
                .map(|part| number(&calls, &format!("{of}/{part}")))
                .into()
        }),
        fragments: (
            number(&radio, "/packets/fragments_up"),
            number(&radio, "/packets/fragments_down"),
        ),
    })
}

/// A place that is not there has none.
fn number(report: &Value, place: &str) -> u64 {
    report.pointer(place).and_then(Value::as_u64).unwrap_or(0)
}
