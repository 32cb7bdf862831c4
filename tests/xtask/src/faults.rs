//! The table of faults: what was injected between devices and a whole core, and what the devices' report has of it.

use anyhow::{Result, bail};
use gantry_tests::Images;
use gantry_tests::faults::{self, Row};
use gantry_tests::gantry::Gantry;
use gantry_tests::leftovers::Leftovers;

use crate::demo::NETWORKS;
use crate::prepare;

/// Builds what is missing, plays all of it on one deployment, and fails where a count is another.
pub fn run() -> Result<()> {
    prepare::for_pods("faults")?;
    let before = Leftovers::now()?;
    let gantry = Gantry::new("faults", false)?;
    gantry.first_up(&NETWORKS)?;
    gantry.import_images(Images::CORE)?;
    let rows = faults::play(&gantry, tell)?;
    gantry.run(&["undeploy", "volte"])?;
    drop(gantry);
    before.ensure_nothing_new()?;
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| row.judge().err())
        .map(|error| error.to_string())
        .collect();
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    println!("{} runs, each as it must be", rows.len());
    Ok(())
}

fn tell(row: &Row) {
    let counted: Vec<String> = row
        .counted
        .iter()
        .map(|(place, count)| format!("{place} {count}"))
        .collect();
    let [calls, messages] = row.done;
    println!(
        "{:<18} injected {:>5}  counted {}; calls {} of {}, messages {} of {}, fragments {} up, {} down",
        row.what,
        row.injected,
        counted.join(", "),
        calls.1,
        calls.0,
        messages.1,
        messages.0,
        row.fragments.0,
        row.fragments.1
    );
}
