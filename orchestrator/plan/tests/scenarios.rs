//! Golden scenarios: text in, plan out. `BLESS=1 cargo test -p gantry-plan --test scenarios` rewrites what is expected.

mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use common::{held, node, pod, settle, size};
use gantry_plan::*;

const DIVIDER: &str = "\n----\n";

#[test]
fn every_scenario_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let bless = std::env::var_os("BLESS").is_some();
    let mut differ = Vec::new();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "txt")) {
        let text = std::fs::read_to_string(file).unwrap();
        let (input, expected) = text.split_once(DIVIDER).unwrap_or((&text, ""));
        let output = run(input, &file.display().to_string());
        if output != expected && bless {
            std::fs::write(file, format!("{}{DIVIDER}{output}", input.trim_end())).unwrap();
        } else if output != expected {
            differ.push(format!(
                "{}\n--- expected\n{expected}--- got\n{output}",
                file.display()
            ));
        }
    }
    assert!(
        differ.is_empty(),
        "BLESS=1 accepts what differs:\n{}",
        differ.join("\n")
    );
}

/// Runs the steps; each `plan` adds to the output.
fn run(input: &str, file: &str) -> String {
    let (mut snapshot, mut current, mut output) = (Snapshot::default(), Plan::default(), String::new());
    for line in input
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (head, rest) = line
            .split_once(':')
            .map_or((line, ""), |(head, rest)| (head, rest.trim()));
        match head.split(' ').collect::<Vec<_>>()[..] {
            ["node", name] => {
                snapshot.nodes.insert(name.to_owned(), node(rest));
            }
            ["pod", name] => {
                let (namespace, short) = name.split_once('/').expect("namespace/name");
                snapshot.pods.insert(name.to_owned(), pod(namespace, short, rest));
            }
            ["delete", name] => {
                snapshot.pods.remove(name).expect("pod to delete");
            }
            // Agents have made the plan true.
            ["settle"] => settle(&mut snapshot, &current),
            // The agent has made the plan true for this pod (it let go of what the plan took away).
            ["settle", name] => settle_one(&mut snapshot, &current, name),
            ["cordon", name] => snapshot.nodes.get_mut(name).unwrap().schedulable = false,
            ["uncordon", name] => snapshot.nodes.get_mut(name).unwrap().schedulable = true,
            ["plan"] => current = step(&snapshot, current, &mut output, file),
            _ => panic!("{file}: step `{line}`"),
        }
    }
    output
}

fn settle_one(snapshot: &mut Snapshot, current: &Plan, uid: &str) {
    for (name, node) in &mut snapshot.nodes {
        node.held.remove(uid);
        if let Some(placement) = current.placements.get(uid).filter(|p| p.node == *name) {
            node.held.insert(uid.to_owned(), held(placement));
        }
    }
}

fn step(snapshot: &Snapshot, current: Plan, output: &mut String, file: &str) -> Plan {
    let outcome = plan(snapshot, &current, 7);
    assert_eq!(check(snapshot, &current, &outcome.plan), [], "{file}");
    let again = plan(snapshot, &outcome.plan, 7);
    assert_eq!(
        again.plan, outcome.plan,
        "{file}: planning again changes something"
    );
    let unchanged = if outcome.plan.id == current.id {
        " (unchanged)"
    } else {
        ""
    };
    writeln!(output, "plan {}{unchanged}", outcome.plan.id).unwrap();
    for (uid, placement) in &outcome.plan.placements {
        writeln!(output, "  {uid} on {}: {}", placement.node, describe(placement)).unwrap();
    }
    for (name, pool) in &outcome.plan.shared_pools {
        let pool = if pool.is_empty() {
            "none".to_owned()
        } else {
            pool.to_string()
        };
        writeln!(output, "  shared pool of {name}: {pool}").unwrap();
    }
    for (uid, explanation) in &outcome.unplaced {
        writeln!(output, "  {uid} waits: {}", explanation.reason).unwrap();
    }
    outcome.plan
}

fn describe(placement: &Placement) -> String {
    let list = |items: Vec<String>| items.join(" ");
    let mut containers = Vec::new();
    for container in &placement.containers {
        let mut parts = vec![match container.cpu {
            CpuRequest::Exclusive { .. } => format!("cpus {}", container.cpus),
            CpuRequest::Shared { request_milli, .. } => format!("shared {request_milli}m"),
        }];
        if !container.memory_bytes.is_empty() {
            let memory = container
                .memory_bytes
                .iter()
                .map(|(n, b)| format!("{n}:{}", size(*b)))
                .collect();
            parts.push(format!("memory {}", list(memory)));
        }
        for (numa, pages) in &container.hugepages {
            let pages = pages
                .iter()
                .map(|(page, b)| format!("{numa}:{}x{}", b / page, size(*page)))
                .collect();
            parts.push(format!("hugepages {}", list(pages)));
        }
        if container.storage_bytes > 0 {
            parts.push(format!("storage {}", size(container.storage_bytes)));
        }
        containers.push(parts.join(", "));
    }
    let pending = if placement.resize_pending {
        " (resize pending)"
    } else {
        ""
    };
    format!(
        "{}, numa {:?}{pending}",
        containers.join(" + "),
        placement.numa_nodes
    )
}
