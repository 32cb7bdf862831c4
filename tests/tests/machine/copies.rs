//! A data directory that was copied, or restored beside the first, names the same instance: it is refused with the way out, and
//! nothing of the first is touched.

use std::process::Command;

use anyhow::{Result, ensure};
use gantry_tests::gantry::Gantry;
use gantry_tests::{busybox, processes};

use crate::state_files::{deploy, settled, up};
use crate::{machine, skip};

#[test]
fn a_copy_touches_nothing_of_the_first() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    if !busybox::is_there() {
        skip("cgroup", "there is no busybox (apt-get install busybox-static)");
        return Ok(());
    }
    let files = tempfile::tempdir()?;
    let gantry = up("copies", 154)?;
    let pod = deploy(&gantry, files.path())?;
    let running = processes::of_pod(&pod)?;
    let processes = || -> Result<_> { Ok((gantry.pid("orchestrator")?, gantry.pid("nodeagent")?)) };
    let before = processes()?;

    let copy = files.path().join("copy");
    // It may complain of what is mounted there.
    Command::new("cp")
        .arg("-a")
        .arg(gantry.path())
        .arg(&copy)
        .output()?;
    ensure!(copy.join("nodeagent.pid").exists(), "it was copied");
    let copy = Gantry::at(copy);
    refused(&copy, &["down", "--purge"], "two directories cannot run it")?;

    let backup = files.path().join("state.backup").to_string_lossy().into_owned();
    gantry.run(&["backup", &backup])?;
    let restored = Gantry::at(files.path().join("restored"));
    restored.run(&["restore", &backup])?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let listen = address.to_string();
    refused(
        &restored,
        &["up", "--detach", "--listen", &listen],
        "two directories cannot run it",
    )?;
    refused(&restored, &["down", "--purge"], "two directories cannot run it")?;
    ensure!(processes()? == before, "the first was stopped");
    ensure!(processes::of_pod(&pod)? == running, "the pod was touched");

    // The same while its pods run alone.
    gantry.run(&["down", "--keep-pods"])?;
    for other in [&copy, &restored] {
        refused(other, &["up", "--detach", "--listen", &listen], "still run")?;
        refused(other, &["down", "--purge"], "still run")?;
    }
    gantry.up()?;
    settled(&gantry, &pod)?;
    ensure!(processes::of_pod(&pod)? == running, "the pod was touched");

    // Nothing of it runs any more: then another may have it.
    gantry.run(&["down"])?;
    restored.run(&["up", "--detach", "--listen", &listen])?;
    restored.run(&["down", "--purge"])
}

fn refused(gantry: &Gantry, args: &[&str], words: &str) -> Result<()> {
    let output = gantry.output(args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "{args:?} was done");
    ensure!(
        said.contains(words) && said.contains("gantry down --data-dir"),
        "{said}"
    );
    Ok(())
}
