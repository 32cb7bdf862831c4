//! The real thing on this machine: binaries, containers, cgroups, eBPF, a SIP core. Needs root; says so loudly otherwise.

mod bad_input;
mod copies;
mod data;
mod first_version;
mod full_disk;
mod hostile;
mod inside;
mod life;
mod lives;
mod pinning;
mod state_files;
mod voice;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use gantry_tests::gantry::Gantry;
use gantry_tests::{Images, poll};

/// These tests share the CPUs and look at what is left on the machine: one at a time.
static MACHINE: Mutex<()> = Mutex::new(());
const PATIENCE: Duration = Duration::from_secs(60);

/// The machine for one test, or `None` where it cannot run.
fn machine() -> Option<MutexGuard<'static, ()>> {
    if nix::unistd::geteuid().is_root() {
        return Some(MACHINE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    skip("cgroup", "needs root for cgroups, network and eBPF");
    None
}

/// Says loudly that something is not tested here; fails where it has to be.
fn skip(area: &str, why: &str) {
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r == area),
        "REQUIRE={required}, but: {why}"
    );
    println!("SKIPPED: {why}");
}

/// Networks of their own for each test, so that nothing meets the demo's.
fn up(name: &str, net: u8, options: &[&str]) -> Result<Gantry> {
    up_with(name, net, options, Images::SIP)
}

/// The same with these of the catalog's images.
fn up_with(name: &str, net: u8, options: &[&str], images: Images) -> Result<Gantry> {
    let gantry = Gantry::new(name, false)?;
    let (pods, services) = (format!("10.{net}.0.0/16"), format!("10.{}.0.0/16", net + 1));
    gantry.first_up(&[&["--pod-cidr", &pods, "--service-cidr", &services], options].concat())?;
    gantry.import_images(images)?;
    Ok(gantry)
}

/// What undeployed functions had on the node's disk is gone.
fn no_volume_is_left(gantry: &Gantry) -> Result<()> {
    let volumes = gantry.path().join("agent/claims/kept");
    let none = || {
        std::fs::read_dir(&volumes)
            .is_ok_and(|mut left| left.next().is_none())
            .then_some(())
    };
    poll(PATIENCE, none).context("a volume is left")
}
