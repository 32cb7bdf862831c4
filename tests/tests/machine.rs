//! The real thing on this machine: binaries, containers, cgroups, eBPF, a SIP core. Needs root; says so loudly otherwise.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_tests::gantry::Gantry;
use gantry_tests::leftovers::Leftovers;
use gantry_tests::{poll, target_dir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Tests of this file share two CPUs and look at what is left on the machine: one at a time.
static MACHINE: Mutex<()> = Mutex::new(());
const PATIENCE: Duration = Duration::from_secs(60);

/// The machine for one test, or `None` where it cannot run.
fn machine() -> Option<MutexGuard<'static, ()>> {
    if nix::unistd::geteuid().is_root() {
        return Some(MACHINE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(
        !required.contains("cgroup"),
        "REQUIRE={required}, but this is not root"
    );
    eprintln!("SKIPPED: needs root for cgroups, network and eBPF");
    None
}

/// Networks of their own for each test, so that nothing meets the demo's.
fn up(name: &str, net: u8, options: &[&str]) -> Result<Gantry> {
    let gantry = Gantry::new(name, false);
    let (pods, services) = (format!("10.{net}.0.0/16"), format!("10.{}.0.0/16", net + 1));
    gantry.first_up(&[&["--pod-cidr", &pods, "--service-cidr", &services], options].concat())?;
    gantry.import_images()?;
    Ok(gantry)
}

fn vip(gantry: &Gantry, function: &str) -> Result<String> {
    let status = gantry.json(&["status"])?;
    let all = status["networkFunctions"]
        .as_array()
        .context("no network functions")?;
    let found = all.iter().find(|nf| nf["metadata"]["name"] == function);
    Ok(found
        .and_then(|nf| nf["status"]["vip"].as_str())
        .context("no virtual address")?
        .to_owned())
}

/// Host pids of a pod's processes, by the cgroup they are in.
fn pids(pod: &Value) -> Vec<i32> {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or("no uid");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(uid))
        })
        .collect()
}

fn allowed_cpus(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    line.map(|l| l.trim().to_owned()).unwrap_or_default()
}

/// One SIP OPTIONS; true if a 200 comes back soon.
fn answers(socket: &UdpSocket, vip: &str, number: u32) -> bool {
    let local = socket.local_addr().expect("a bound socket");
    let request = format!(
        "OPTIONS sip:test@{vip}:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {local};rport;branch=z9hG4bK{number}\r\n\
         From: <sip:t@{local}>;tag={number}\r\nTo: <sip:test@{vip}>\r\nCall-ID: {number}@t\r\nCSeq: 1 OPTIONS\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    if socket.send_to(request.as_bytes(), format!("{vip}:5060")).is_err() {
        return false;
    }
    let mut answer = [0; 4096];
    let expected = format!("branch=z9hG4bK{number}\r");
    while let Ok(length) = socket.recv(&mut answer) {
        let text = String::from_utf8_lossy(&answer[..length]).replace(";received", "\r");
        if text.starts_with("SIP/2.0 200")
            && (text.contains(&expected) || text.contains(&format!("z9hG4bK{number};")))
        {
            return true;
        }
    }
    false
}

#[test]
fn a_killed_container_comes_back_and_nothing_is_left_in_the_end() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let before = Leftovers::now()?;
    let gantry = up("kill", 100, &[])?;
    gantry.run(&["deploy", "sip-core"])?;
    gantry.run(&["scale", "pcscf", "--replicas", "2"])?;
    let vip = vip(&gantry, "pcscf")?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    ensure!(
        poll(PATIENCE, || answers(&socket, &vip, 1).then_some(())).is_some(),
        "the service never answers"
    );

    let pods = gantry.pods("pcscf")?;
    let (victim, other) = (&pods[0], &pods[1]);
    let others = pids(other);
    let victims = pids(victim);
    ensure!(!victims.is_empty() && !others.is_empty(), "pods have processes");
    for pid in victims {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // Fresh sources: some would go to the dead instance.
    let killed = Instant::now();
    let mut good_in_a_row = 0;
    let back = poll(PATIENCE, || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
        let good = answers(&socket, &vip, u32::from(socket.local_addr().ok()?.port()));
        good_in_a_row = if good { good_in_a_row + 1 } else { 0 };
        (good_in_a_row == 10).then(|| killed.elapsed())
    });
    println!(
        "ten fresh sources in a row answered {:?} after the kill",
        back.context("the service stays away")?
    );
    ensure!(pids(other) == others, "the other instance was touched");

    gantry.run(&["undeploy", "sip-core"])?;
    ensure!(
        gantry.json(&["status"])?["pods"]
            .as_array()
            .is_some_and(Vec::is_empty),
        "undeploy left pods"
    );
    drop(gantry);
    before.ensure_nothing_new()
}

#[test]
fn exclusive_cpus_grow_and_shrink_live() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let gantry = up("cpus", 102, &["--reserved-cpus", "none"])?;
    let files = tempfile::tempdir()?;
    let manifest = files.path().join("pinned.yaml");
    let (nf, package) = ("pinned", "sip-as");
    std::fs::write(
        &manifest,
        format!(
            "apiVersion: gantry.dev/v1\nkind: NetworkFunction\nmetadata: {{name: {nf}}}\nspec:\n  package: {package}\n  version: 1.0.0\n  \
             resources: {{sipp: {{cpu: {{mode: exclusive, count: 1, smt: any}}}}}}\n"
        ),
    )?;
    let file = manifest.to_string_lossy().into_owned();
    let plan = gantry.json(&["plan", "-f", &file])?;
    ensure!(
        plan["placements"][0]["cpus"] == "0",
        "the plan names exact CPUs: {plan}"
    );
    gantry.run(&["deploy", &file])?;
    let pod = gantry.pods(nf)?.into_iter().next().context("no pod")?;
    let mut before = pids(&pod);
    before.sort_unstable();
    let cpus = |expected: &str| {
        poll(PATIENCE, || {
            pids(&pod)
                .iter()
                .all(|pid| allowed_cpus(*pid) == expected)
                .then_some(())
        })
        .with_context(|| format!("the pod should have CPUs {expected}"))
    };
    cpus("0")?;
    gantry.run(&["resize", nf, "--cpu", "2"])?;
    cpus("0-1")?;
    gantry.run(&["resize", nf, "--cpu", "1", "--memory", "96Mi"])?;
    cpus("0")?;
    let mut after = pids(&pod);
    after.sort_unstable();
    ensure!(
        before.first() == after.first(),
        "the container was restarted by a resize"
    );

    // One CPU more than there is: pending with a reason, and the pod keeps what it has.
    gantry.run(&["resize", nf, "--cpu", "3", "--no-wait"])?;
    let name = pod["metadata"]["name"].as_str().context("a name")?;
    let explained = poll(PATIENCE, || {
        let text = gantry.text(&["explain", name]).ok()?;
        text.contains("NUMA node 0").then_some(text)
    });
    println!("{}", explained.context("no explanation down to the NUMA node")?);
    cpus("0")
}

#[test]
fn bad_input_gets_one_clear_error_and_nothing_half_done() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let gantry_binary = target_dir().join("gantry");
    let fails = |command: &mut Command, expected: &[&str]| -> Result<()> {
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "should fail: {command:?}");
        for part in expected {
            ensure!(text.contains(part), "`{part}` is missing in: {text}");
        }
        Ok(())
    };
    let untouched = std::env::temp_dir().join(format!("gantry-bad-{}", std::process::id()));
    let mut not_root = Command::new(&gantry_binary);
    not_root.uid(65534).args(["up", "--data-dir"]).arg(&untouched);
    // The binary may be in a directory that only root can read.
    if not_root.output().is_ok() {
        fails(&mut not_root, &["needs root", "sudo"])?;
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let mut in_use = Command::new(&gantry_binary);
    fails(
        in_use
            .args(["up", "--detach", "--listen", &address, "--data-dir"])
            .arg(&untouched),
        &[&address, "in use", "--listen"],
    )?;
    ensure!(!untouched.exists(), "a failed `up` left {}", untouched.display());

    let gantry = up("bad", 104, &[])?;
    let files = tempfile::tempdir()?;
    let broken = files.path().join("broken.yaml");
    std::fs::write(
        &broken,
        "apiVersion: gantry.dev/v1\nkind: NetworkFunction\nmetadata: {name: x}\nspec:\n  package: pcscf\n  versoin: 1.0.0\n",
    )?;
    let broken = broken.to_string_lossy().into_owned();
    let error = gantry.output(&["deploy", &broken])?;
    let text = String::from_utf8_lossy(&error.stderr).into_owned();
    ensure!(
        !error.status.success() && text.contains("broken.yaml:6:3"),
        "no file:line:column in: {text}"
    );

    let huge = files.path().join("huge.yaml");
    std::fs::write(
        &huge,
        "apiVersion: gantry.dev/v1\nkind: NetworkFunction\nmetadata: {name: huge}\nspec:\n  package: sip-as\n  version: 1.0.0\n  \
         resources: {sipp: {cpu: {mode: exclusive, count: 64}}}\n",
    )?;
    let plan = gantry.output(&["plan", "-f", &huge.to_string_lossy()])?;
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    ensure!(
        plan.status.code() == Some(2) && text.contains("NUMA node 0"),
        "no explanation in: {text}"
    );
    ensure!(
        gantry.json(&["status"])?["networkFunctions"]
            .as_array()
            .is_some_and(Vec::is_empty),
        "something was deployed"
    );
    Ok(())
}
