//! Every state file in turn damaged in every way: Gantry starts, or refuses with the way out, and the pod that runs is never
//! touched.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gantry_tests::gantry::Gantry;
use gantry_tests::{busybox, poll, processes};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::{PATIENCE, machine, skip};

/// What happens to a file.
const DAMAGES: [&str; 8] = [
    "removed",
    "emptied",
    "half",
    "random",
    "another's",
    "wrong owner",
    "a directory",
    "a pipe",
];

/// All after which nothing of a file is left: what cannot be made anew is refused.
const BAD: [&str; 7] = [
    "removed",
    "emptied",
    "half",
    "random",
    "another's",
    "a directory",
    "a pipe",
];

/// A file, and the damages after which a start is refused with these words.
const FILES: [(&str, &[&str], &str); 13] = [
    ("store.redb", &BAD, "gantry restore"),
    ("secrets.key", &BAD, "gantry restore"),
    ("pki/ca.key", &BAD, "gantry restore"),
    ("pki/ca.crt", &["another's"], "gantry restore"),
    ("settings.json", &["another's"], "gantry restore"),
    ("settings.copy.json", &[], ""),
    ("pki/server.crt", &[], ""),
    ("pki/server.key", &[], ""),
    ("pki/admin.key", &[], ""),
    ("kubeconfig", &[], ""),
    ("pki/node-NODE.key", &[], ""),
    ("images/index.json", &[], ""),
    ("agent/ledger.json", &[], ""),
];

#[test]
fn a_damaged_file_never_stops_a_pod() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    if !busybox::is_there() {
        skip("cgroup", "there is no busybox (apt-get install busybox-static)");
        return Ok(());
    }
    let files = tempfile::tempdir()?;
    let other = another(files.path())?;
    let gantry = up("files", 150)?;
    let pod = deploy(&gantry, files.path())?;
    let running = processes::of_pod(&pod)?;
    let node = pod["spec"]["nodeName"].as_str().context("it is on a node")?;
    let backup = files.path().join("state.backup").to_string_lossy().into_owned();
    gantry.run(&["backup", &backup])?;

    for (file, refused, words) in FILES {
        let file = file.replace("NODE", node);
        for damage in DAMAGES {
            let what = format!("{file} {damage}");
            gantry.end_processes(Signal::SIGKILL)?;
            let path = gantry.path().join(&file);
            let good = fs::read(&path)?;
            harm(&path, damage, &good, &other.join(&file))?;
            let output = gantry.output(&["up", "--detach"])?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if refused.contains(&damage) {
                ensure!(!output.status.success(), "{what}: it was taken");
                ensure!(said.contains(words), "{what}: no way out in: {said}");
                // That way: what was saved is put back, while the pod runs.
                gantry.run(&["restore", &backup])?;
                gantry.up()?;
            } else {
                ensure!(output.status.success(), "{what}: {said}");
            }
            ensure!(processes::of_pod(&pod)? == running, "{what}: the pod was touched");
            let images = gantry.text(&["image", "ls"])?;
            ensure!(
                images.contains("busybox:1"),
                "{what}: the image is lost: {images}"
            );
            settled(&gantry, &pod).with_context(|| what.clone())?;
            println!("ok: {what}");
        }
    }
    ensure!(processes::of_pod(&pod)? == running, "the pod was touched");
    Ok(())
}

/// A small Gantry that is never started for long: its files are another cluster's.
fn another(dir: &Path) -> Result<PathBuf> {
    let other = up("other", 152)?;
    other.run(&["image", "import", &busybox::layout(dir)?.to_string_lossy()])?;
    other.end_processes(Signal::SIGTERM)?;
    let (from, copy) = (other.path(), dir.join("other"));
    let node = node_of(from)?;
    for (file, ..) in FILES {
        let file = file.replace("NODE", &node);
        let to = copy.join(&file);
        fs::create_dir_all(to.parent().context("it is below the copy")?)?;
        fs::copy(from.join(&file), to).with_context(|| file.clone())?;
    }
    Ok(copy)
}

fn node_of(dir: &Path) -> Result<String> {
    let names = fs::read_dir(dir.join("pki"))?.flatten().map(|e| e.file_name());
    let mut nodes = names.filter_map(|name| {
        let name = name.to_str()?.strip_prefix("node-")?.strip_suffix(".key")?;
        Some(name.to_owned())
    });
    nodes.next().context("no node has a key")
}

pub(crate) fn up(name: &str, net: u8) -> Result<Gantry> {
    let gantry = Gantry::new(name, false)?;
    let (pods, services) = (format!("10.{net}.0.0/16"), format!("10.{}.0.0/16", net + 1));
    gantry.first_up(&["--pod-cidr", &pods, "--service-cidr", &services])?;
    Ok(gantry)
}

/// One pod that sleeps.
pub(crate) fn deploy(gantry: &Gantry, dir: &Path) -> Result<Value> {
    let layout = busybox::layout(dir)?;
    gantry.run(&["image", "import", &layout.to_string_lossy()])?;
    let catalog = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/echo");
    gantry.run(&["deploy", "echo", "--catalog", &catalog.to_string_lossy()])?;
    let pods = gantry.pods("echo")?;
    pods.into_iter().next().context("there is a pod")
}

fn harm(path: &Path, damage: &str, good: &[u8], other: &Path) -> Result<()> {
    match damage {
        "removed" => fs::remove_file(path)?,
        "emptied" => fs::write(path, "")?,
        "half" => fs::write(path, &good[..good.len() / 2])?,
        "random" => {
            let mut state = 7_u64;
            let noise = good.iter().map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            });
            fs::write(path, noise.collect::<Vec<u8>>())?;
        }
        "another's" => fs::write(path, fs::read(other)?)?,
        "a directory" => {
            fs::remove_file(path)?;
            fs::create_dir(path)?;
            fs::write(path.join("stray"), good)?;
        }
        "a pipe" => {
            fs::remove_file(path)?;
            mkfifo(path, Mode::S_IRWXU)?;
        }
        _ => {
            chown(path, Some(65534), Some(65534))?;
            fs::set_permissions(path, Permissions::from_mode(0o666))?;
        }
    }
    Ok(())
}

/// The node is Ready and the pod runs, as the control plane sees it.
pub(crate) fn settled(gantry: &Gantry, pod: &Value) -> Result<()> {
    let seen = || {
        let pods = gantry.pods("echo").ok()?;
        let same = pods
            .iter()
            .any(|p| p["metadata"]["uid"] == pod["metadata"]["uid"]);
        (pods.len() == 1 && same && pods[0]["status"]["phase"] == "Running").then_some(())
    };
    poll(PATIENCE, seen).context("the pod is seen to run")
}
