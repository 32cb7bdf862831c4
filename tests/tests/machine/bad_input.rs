//! Each mistake gets one clear error, and nothing is half done.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, ensure};
use gantry_tests::gantry::Gantry;
use gantry_tests::target_dir;

use crate::{machine, up};

#[test]
fn a_machine_that_cannot_is_told_why_and_left_alone() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let place = tempfile::tempdir()?;
    let untouched = place.path().join("data");
    let up = || {
        let mut command = Command::new(target_dir().join("gantry"));
        command.args(["up", "--detach", "--data-dir"]).arg(&untouched);
        command
    };
    let mut not_root = up();
    not_root.uid(65534);
    // The binary may be in a directory that only root can read.
    if not_root.output().is_ok() {
        fails(&mut not_root, &["needs root", "sudo"])?;
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    fails(
        up().args(["--listen", &address]),
        &[&address, "in use", "--listen"],
    )?;
    ensure!(!untouched.exists(), "a failed `up` left {}", untouched.display());
    Ok(())
}

#[test]
fn a_broken_descriptor_and_one_that_does_not_fit_change_nothing() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let gantry = up("bad", 104, &[])?;
    let files = tempfile::tempdir()?;
    let write = |name: &str, spec: &str| -> Result<String> {
        let file = files.path().join(name);
        let head = "apiVersion: gantry.dev/v1\nkind: NetworkFunction\nmetadata: {name: x}\nspec:\n";
        std::fs::write(&file, format!("{head}{spec}"))?;
        Ok(file.to_string_lossy().into_owned())
    };
    let broken = write("broken.yaml", "  package: pcscf\n  versoin: 1.0.0\n")?;
    refuses(&gantry, &["deploy", &broken], "broken.yaml:6:3")?;
    let huge = write(
        "huge.yaml",
        "  package: sip-as\n  version: 1.0.1\n  resources: {sipp: {cpu: {mode: exclusive, count: 640}}}\n",
    )?;
    refuses(&gantry, &["plan", "-f", &huge], "NUMA node 0")?;
    refuses(&gantry, &["deploy", &huge], "NUMA node 0")
}

/// The command fails, says this, and nothing is deployed.
fn refuses(gantry: &Gantry, args: &[&str], expected: &str) -> Result<()> {
    let output = gantry.output(args)?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        !output.status.success(),
        "`gantry {}` succeeded: {text}",
        args.join(" ")
    );
    ensure!(text.contains(expected), "`{expected}` is missing in: {text}");
    let status = gantry.json(&["status"])?;
    ensure!(
        status["networkFunctions"].as_array().is_some_and(Vec::is_empty),
        "`gantry {}` deployed something",
        args.join(" ")
    );
    Ok(())
}

/// Runs a command that must fail, and say these things.
fn fails(command: &mut Command, expected: &[&str]) -> Result<()> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "should fail: {command:?}");
    for part in expected {
        ensure!(text.contains(part), "`{part}` is missing in: {text}");
    }
    Ok(())
}
