//! A disk that is full: what has nothing to write starts, and the control plane's own writes find the space they hold.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gantry_tests::gantry::Gantry;
use gantry_tests::{busybox, processes};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::state_files::deploy;
use crate::{machine, skip};

#[test]
fn all_comes_back_on_a_disk_without_a_free_byte() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    if !busybox::is_there() {
        skip("cgroup", "there is no busybox (apt-get install busybox-static)");
        return Ok(());
    }
    let gantry = Gantry::new("full", false)?;
    let path = gantry.path().to_owned();
    let none: Option<&str> = None;
    mount(
        none,
        &path,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=96m,mode=700"),
    )?;
    let done = starts_on_a_full_disk(&gantry);
    drop(gantry);
    umount2(&path, MntFlags::MNT_DETACH)?;
    fs::remove_dir(&path)?;
    done
}

fn starts_on_a_full_disk(gantry: &Gantry) -> Result<()> {
    gantry.first_up(&["--pod-cidr", "10.154.0.0/16", "--service-cidr", "10.155.0.0/16"])?;
    let files = tempfile::tempdir()?;
    let pod = deploy(gantry, files.path())?;
    let running = processes::of_pod(&pod)?;
    fill(gantry.path())?;
    for way in ["killed", "stopped"] {
        let signal = if way == "killed" {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        };
        gantry.end_processes(signal)?;
        gantry.up().context(way)?;
        ensure!(processes::of_pod(&pod)? == running, "the pod was touched");
    }
    gantry.run(&["down", "--keep-pods"])?;
    gantry.up().context("after down")?;
    ensure!(processes::of_pod(&pod)? == running, "the pod was touched");
    Ok(())
}

/// Takes all that is left.
fn fill(dir: &Path) -> Result<()> {
    let mut filler = File::create(dir.join("filler"))?;
    for size in [1 << 20, 4096, 1] {
        let block = vec![1; size];
        while filler.write(&block).is_ok_and(|written| written > 0) {}
    }
    ensure!(
        fs::write(dir.join("another"), [1; 4096]).is_err(),
        "it is not full"
    );
    Ok(())
}
