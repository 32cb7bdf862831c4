//! A data directory of the first version is taken over, with its pods.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gantry_tests::gantry::Gantry;
use gantry_tests::{busybox, poll, processes};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{PATIENCE, machine, skip};

/// The node's name in the directory.
const NODE: &str = "node-a";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/first-version.tar.zst")
}

#[test]
fn a_directory_of_the_first_version_is_taken_over_with_its_pods() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    if !busybox::is_there() {
        skip("cgroup", "there is no busybox (apt-get install busybox-static)");
        return Ok(());
    }
    let gantry = Gantry::new("first", false)?.with_host_name(NODE);
    let archive = zstd::Decoder::new(File::open(fixture())?)?;
    tar::Archive::new(archive).unpack(gantry.path())?;
    let images = tempfile::tempdir()?;
    let layout = busybox::layout(images.path())?;
    gantry.run(&["image", "import", &layout.to_string_lossy()])?;
    let before = json(gantry.path(), "agent/ledger.json")?;
    let uid = pods(&before).first().context("the directory has a pod")?.clone();

    gantry.first_up(&[])?;
    let pod = poll(PATIENCE, || {
        let pods = gantry.pods("echo").ok()?;
        pods.into_iter().find(|pod| processes::of_pod(pod).is_ok())
    });
    let pod = pod.context("its pod runs")?;
    ensure!(pod["metadata"]["uid"] == *uid, "it is the same pod");
    let marked = || {
        let cluster = json(gantry.path(), "settings.json").ok()?["cluster"]
            .as_str()?
            .to_owned();
        let ledger = json(gantry.path(), "agent/ledger.json").ok()?;
        (ledger["config"]["cluster"] == *cluster && pods(&ledger) == [uid.clone()]).then_some(cluster)
    };
    let cluster = poll(PATIENCE, marked).context("settings and ledger name one cluster")?;

    // Again, now that it is one of this version; and its pod is not touched.
    let running = processes::of_pod(&pod)?;
    gantry.end_processes(Signal::SIGKILL)?;
    gantry.up()?;
    ensure!(processes::of_pod(&pod)? == running, "the pod was touched");
    ensure!(marked() == Some(cluster), "the id stays");

    // An emptied store is no new cluster.
    gantry.end_processes(Signal::SIGKILL)?;
    let store = gantry.path().join("store.redb");
    let good = fs::read(&store)?;
    fs::write(&store, "")?;
    let refused = gantry.output(&["up", "--detach"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success(),
        "an empty store was taken for a new cluster"
    );
    ensure!(
        said.contains("store.redb is missing or empty") && said.contains("gantry restore"),
        "{said}"
    );
    ensure!(processes::of_pod(&pod)? == running, "the pod was touched");
    fs::write(&store, good)?;
    gantry.up()?;
    ensure!(processes::of_pod(&pod)? == running, "the pod was touched");
    Ok(())
}

fn json(dir: &Path, file: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(dir.join(file))?)?)
}

fn pods(ledger: &Value) -> Vec<String> {
    let pods = ledger["config"]["pods"].as_object();
    pods.into_iter().flatten().map(|(uid, _)| uid.clone()).collect()
}
