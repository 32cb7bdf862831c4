//! Exclusive CPUs as the kernel holds them: given, taken and moved while a container runs.

use std::fs;

use anyhow::{Context, Result, ensure};
use gantry_tests::gantry::Gantry;
use gantry_tests::poll;
use gantry_tests::processes::of_pod;
use serde_json::Value;

use crate::{PATIENCE, machine, skip, up};

const NAME: &str = "pinned";

/// Deploys an application server on exclusive CPUs and returns its pod and the CPUs that the plan names.
fn deploy(gantry: &Gantry, count: usize, smt: &str) -> Result<(Value, Vec<usize>)> {
    let files = tempfile::tempdir()?;
    let manifest = files.path().join("pinned.yaml");
    fs::write(
        &manifest,
        format!(
            "apiVersion: gantry.dev/v1\nkind: NetworkFunction\nmetadata: {{name: {NAME}}}\nspec:\n  package: sip-as\n  \
             version: 1.0.1\n  resources: {{sipp: {{cpu: {{mode: exclusive, count: {count}, smt: {smt}}}}}}}\n"
        ),
    )?;
    let file = manifest.to_string_lossy().into_owned();
    let plan = gantry.json(&["plan", "-f", &file])?;
    let cpus = plan["placements"][0]["cpus"].as_str();
    let cpus = cpu_list(cpus.with_context(|| format!("the plan names no CPUs: {plan}"))?);
    ensure!(cpus.len() == count, "{count} CPUs were asked for: {plan}");
    gantry.run(&["deploy", &file])?;
    let pod = gantry.pods(NAME)?.into_iter().next().context("no pod")?;
    ensure!(held(&pod, count)? == cpus, "the node does what the plan says");
    Ok((pod, cpus))
}

/// The CPUs of every process of the pod, once they are so many.
fn held(pod: &Value, count: usize) -> Result<Vec<usize>> {
    let same_for_all = || -> Option<Vec<usize>> {
        let mut all = of_pod(pod).ok()?.into_iter().map(|pid| allowed(pid, "Cpus"));
        let first = all.next()??;
        (first.len() == count && all.all(|cpus| cpus.as_ref() == Some(&first))).then_some(first)
    };
    poll(PATIENCE, same_for_all).with_context(|| format!("the pod never has exactly {count} CPUs"))
}

/// What `/proc/PID/status` says of CPUs or Mems (proc(5)).
fn allowed(pid: i32, what: &str) -> Option<Vec<usize>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let name = format!("{what}_allowed_list:");
    let list = status.lines().find_map(|l| l.strip_prefix(&name))?;
    Some(cpu_list(list.trim()))
}

/// `0-1,4` as numbers.
fn cpu_list(text: &str) -> Vec<usize> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

fn system(file: &str) -> Result<Vec<usize>> {
    let path = format!("/sys/devices/system/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(cpu_list(text.trim()))
}

#[test]
fn exclusive_cpus_grow_and_shrink_live() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let online = system("cpu/online")?.len();
    if online < 2 {
        skip("cgroup", "needs two CPUs to grow");
        return Ok(());
    }
    let gantry = up("cpus", 102, &["--reserved-cpus", "none"])?;
    let (pod, first) = deploy(&gantry, 1, "any")?;
    let before = of_pod(&pod)?;
    gantry.run(&["resize", NAME, "--cpu", "2"])?;
    let grown = held(&pod, 2)?;
    ensure!(grown.contains(&first[0]), "{first:?} -> {grown:?}: it moved");
    gantry.run(&["resize", NAME, "--cpu", "1", "--memory", "96Mi"])?;
    let shrunk = held(&pod, 1)?;
    ensure!(
        of_pod(&pod)?.first() == before.first(),
        "the container was restarted by a resize"
    );

    // One CPU more than there is: pending with a reason, and the pod keeps what it has.
    let many = (online + 1).to_string();
    gantry.run(&["resize", NAME, "--cpu", &many, "--queue", "--no-wait"])?;
    let name = pod["metadata"]["name"].as_str().context("a name")?;
    let explained = poll(PATIENCE, || {
        let text = gantry.text(&["explain", name]).ok()?;
        text.contains("NUMA node 0").then_some(text)
    });
    println!("{}", explained.context("no explanation down to the NUMA node")?);
    ensure!(held(&pod, 1)? == shrunk, "it lost what it had");
    Ok(())
}

#[test]
fn exclusive_cpus_are_full_cores_of_one_numa_node() -> Result<()> {
    let Some(_machine) = machine() else { return Ok(()) };
    let nodes = system("node/online")?;
    let siblings = |cpu: usize| system(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
    if nodes.len() < 2 || siblings(0)?.len() != 2 {
        skip("numa", "needs two NUMA nodes and cores of two threads");
        return Ok(());
    }
    let gantry = up("numa", 106, &["--reserved-cpus", "none"])?;
    let (pod, core) = deploy(&gantry, 2, "full")?;
    ensure!(siblings(core[0])? == core, "{core:?} is not one core");
    gantry.run(&["resize", NAME, "--cpu", "4"])?;
    let cores = held(&pod, 4)?;
    let on_node =
        |node: &usize| Ok::<_, anyhow::Error>(system(&format!("node/node{node}/cpulist"))? == cores);
    let node = nodes
        .iter()
        .find(|node| on_node(node).unwrap_or_default())
        .with_context(|| format!("{cores:?} are not the CPUs of one NUMA node"))?;
    println!("{core:?} grew to {cores:?}, all of NUMA node {node}");
    for pid in of_pod(&pod)? {
        let memory = allowed(pid, "Mems");
        ensure!(
            memory == Some(vec![*node]),
            "memory of process {pid} may come from {memory:?}"
        );
    }
    Ok(())
}
