//! A disk that is full: what has nothing to write starts, and the control plane's own writes find the space they hold. A disk
//! that a pod fills: it goes, and nobody else.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::Api;
use gantry_tests::gantry::Gantry;
use gantry_tests::{busybox, poll, processes};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

use crate::state_files::deploy;
use crate::{machine, skip};

const PATIENCE: Duration = Duration::from_secs(120);
/// A log that is longer than they get.
const LONG_LOG_BYTES: usize = 9 << 20;

#[test]
fn all_comes_back_on_a_disk_without_a_free_byte() -> Result<()> {
    on_a_disk("full", "size=96m,mode=700", starts_on_a_full_disk)
}

#[test]
fn nothing_ends_because_its_log_cannot_be_written() -> Result<()> {
    on_a_disk("mute", "size=96m,mode=700", goes_on_without_a_log)
}

/// Runs with a Gantry whose data directory is a file system of its own.
fn on_a_disk(name: &str, options: &str, run: impl Fn(&Gantry) -> Result<()>) -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    if !busybox::is_there() {
        skip("cgroup", "there is no busybox (apt-get install busybox-static)");
        return Ok(());
    }
    let gantry = Gantry::new(name, false)?;
    let path = gantry.path().to_owned();
    let none: Option<&str> = None;
    mount(none, &path, Some("tmpfs"), MsFlags::empty(), Some(options))?;
    let done = run(&gantry);
    drop(gantry);
    umount2(&path, MntFlags::MNT_DETACH)?;
    fs::remove_dir(&path)?;
    done
}

/// One pod fills the disk: it goes, the other one stays, and meanwhile no more come.
#[test]
fn whoever_fills_the_disk_goes_and_nobody_else() -> Result<()> {
    on_a_disk("hog", "size=320m,mode=700", |gantry| {
        gantry.first_up(&["--pod-cidr", "10.156.0.0/16", "--service-cidr", "10.157.0.0/16"])?;
        let files = tempfile::tempdir()?;
        let pod = deploy(gantry, files.path())?;
        let running = processes::of_pod(&pod)?;
        let api = Api::of(gantry)?;
        // Some 16 MiB are left then, of which a tenth of the disk should be.
        let free = statvfs(gantry.path())?;
        let blocks = (free.blocks_available() * free.fragment_size() - (16 << 20)) >> 16;
        let script = format!("busybox dd if=/dev/zero of=/big bs=64k count={blocks}; sleep 10000");
        let container = json!({"name": "c", "image": busybox::IMAGE, "args": [script]});
        let hog = json!({"metadata": {"name": "hog"}, "spec": {"containers": [container]}});
        api.make("/api/v1/namespaces/default/pods", &hog)?;
        let node = || -> Option<Value> {
            let nodes = api.get("/api/v1/nodes").ok()?.json();
            Some(nodes["items"][0].clone())
        };
        let pressure = |status: &'static str| {
            move |node: &Value| {
                let conditions = node["status"]["conditions"].as_array();
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|c| c["type"] == "DiskPressure" && c["status"] == status)
            }
        };
        let tainted = poll(PATIENCE, || node().filter(pressure("True"))).context("DiskPressure")?;
        ensure!(tainted["spec"]["taints"][0]["key"] == "node.kubernetes.io/disk-pressure");
        let evicted = || {
            let hog = api.get("/api/v1/namespaces/default/pods/hog").ok()?.json();
            (hog["status"]["reason"] == "Evicted").then_some(hog)
        };
        let hog = poll(PATIENCE, evicted).context("the hog is evicted")?;
        let message = hog["status"]["message"].as_str().unwrap_or_default();
        ensure!(
            message.starts_with("The node was low on resource: ephemeral-storage."),
            "{message}"
        );
        poll(PATIENCE, || node().filter(pressure("False"))).context("the pressure is gone")?;
        ensure!(processes::of_pod(&pod)? == running, "the other pod was touched");
        Ok(())
    })
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

/// Every write is answered, pods go, and what starts stays, although not a byte can be logged; then the logs say so.
fn goes_on_without_a_log(gantry: &Gantry) -> Result<()> {
    gantry.first_up(&["--pod-cidr", "10.158.0.0/16", "--service-cidr", "10.159.0.0/16"])?;
    let files = tempfile::tempdir()?;
    let pod = deploy(gantry, files.path())?;
    let running = processes::of_pod(&pod)?;
    let api = Api::of(gantry)?;
    for name in ["first", "second"] {
        start(&api, name)?;
    }
    fill(gantry.path())?;
    let logs = ["orchestrator.log", "nodeagent.log"].map(|name| gantry.path().join(name));
    let fill_logs = || -> Result<()> {
        for log in &logs {
            let mut file = File::options().append(true).open(log)?;
            while file.write(b"\n").is_ok() {}
        }
        Ok(())
    };
    fill_logs()?;
    for round in ["first", "second"] {
        let pids = || Ok::<_, anyhow::Error>([gantry.pid("orchestrator")?, gantry.pid("nodeagent")?]);
        let before = pids()?;
        for number in 0..100 {
            let map = json!({"metadata": {"name": format!("{round}-{number}")}});
            api.make("/api/v1/namespaces/default/configmaps", &map)?;
        }
        let path = format!("/api/v1/namespaces/default/pods/{round}");
        api.ask("DELETE", &path, "", "")?;
        let gone = || (api.get(&path).ok()?.code == 404).then_some(());
        poll(PATIENCE, gone).with_context(|| format!("pod {round} does not go"))?;
        ensure!(pids()? == before, "a process has ended");
        ensure!(processes::of_pod(&pod)? == running, "the pod was touched");
        gantry.end_processes(Signal::SIGKILL)?;
        gantry.up()?;
        fill_logs()?;
    }
    fs::remove_file(gantry.path().join("filler"))?;
    start(&api, "third")?;
    for log in &logs {
        let told = || {
            let text = fs::read_to_string(log).ok()?;
            text.contains("lines of this log were lost: No space left")
                .then_some(())
        };
        poll(PATIENCE, told).with_context(|| format!("{} does not say what is missing", log.display()))?;
        File::options()
            .append(true)
            .open(log)?
            .write_all(&vec![b'\n'; LONG_LOG_BYTES])?;
    }
    start(&api, "fourth")?;
    for log in &logs {
        let anew = || {
            let (now, before) = (
                fs::metadata(log).ok()?.len(),
                fs::metadata(log.with_extension("log.1")).ok()?.len(),
            );
            (now > 0 && now < 1 << 20 && before > LONG_LOG_BYTES as u64).then_some(())
        };
        poll(PATIENCE, anew).with_context(|| format!("{} is not begun anew", log.display()))?;
    }
    Ok(())
}

/// A pod that sleeps, when it runs.
fn start(api: &Api, name: &str) -> Result<()> {
    let pods = "/api/v1/namespaces/default/pods";
    let container = json!({"name": "c", "image": busybox::IMAGE, "args": ["exec sleep 10000"]});
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
    api.make(pods, &json!({"metadata": {"name": name}, "spec": spec}))?;
    let runs = || {
        let pod = api.get(&format!("{pods}/{name}")).ok()?.json();
        (pod["status"]["phase"] == "Running").then_some(())
    };
    poll(PATIENCE, runs).with_context(|| format!("pod {name} does not run"))
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
