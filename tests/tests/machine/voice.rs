//! Voice over LTE on one server: a dozen network functions, devices that attach, register and call, all of it inside GTP-U.

use std::fs;

use anyhow::{Context, Result};
use gantry_tests::leftovers::Leftovers;
use gantry_tests::volte::Load;
use gantry_tests::{Images, poll, volte};

use crate::{PATIENCE, machine, up_with};

#[test]
fn devices_attach_register_and_call_through_a_dozen_functions() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let before = Leftovers::now()?;
    let gantry = up_with("volte", 120, &[], Images::CORE)?;
    let running = Leftovers::now()?;
    let report = volte::play(&gantry, Load::short())?;
    println!("{}", serde_json::to_string(&report)?);
    report.judge()?;

    gantry.run(&["undeploy", "volte"])?;
    running.ensure_nothing_new_of_pods().context("after undeploy")?;
    let volumes = gantry.path().join("agent/claims/kept");
    let none = || {
        fs::read_dir(&volumes)
            .is_ok_and(|mut left| left.next().is_none())
            .then_some(())
    };
    poll(PATIENCE, none).context("a volume is left")?;
    drop(gantry);
    before.ensure_nothing_new().context("after down --purge")
}
