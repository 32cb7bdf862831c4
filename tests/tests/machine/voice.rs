//! Voice over LTE on one server: a dozen network functions, devices that attach, register and call, all of it inside GTP-U.

use anyhow::{Context, Result};
use gantry_tests::leftovers::Leftovers;
use gantry_tests::volte::Load;
use gantry_tests::{Images, volte};

use crate::{machine, no_volume_is_left, up_with};

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
    no_volume_is_left(&gantry)?;
    drop(gantry);
    before.ensure_nothing_new().context("after down --purge")
}
