//! Who may import whom, checked over cargo's own metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every member of the workspace and the members it may import. A new edge is a decision: it changes this table and
/// ARCHITECTURE.md in one commit.
const MAY_IMPORT: [(&str, &[&str]); 29] = [
    ("gantry-catalog", &[]),
    ("gantry-topology", &[]),
    ("gantry-ebpf-common", &[]),
    ("gantry-images", &[]),
    ("gantry-lab-aka", &[]),
    ("gantry-lab-daemon", &[]),
    ("gantry-lab-diameter", &[]),
    ("gantry-lab-faults", &[]),
    ("gantry-lab-gtp", &[]),
    (
        "gantry-lab-mme",
        &[
            "gantry-lab-aka",
            "gantry-lab-daemon",
            "gantry-lab-diameter",
            "gantry-lab-gtp",
            "gantry-lab-radio",
        ],
    ),
    (
        "gantry-lab-enb",
        &[
            "gantry-lab-aka",
            "gantry-lab-daemon",
            "gantry-lab-faults",
            "gantry-lab-gtp",
            "gantry-lab-radio",
        ],
    ),
    ("gantry-lab-nextepc-pool", &[]),
    ("gantry-lab-pcrf", &["gantry-lab-daemon", "gantry-lab-diameter"]),
    ("gantry-lab-radio", &[]),
    ("gantry-lab-traffic", &["gantry-lab-daemon", "gantry-lab-radio"]),
    ("gantry-lab-ue", &["gantry-lab-aka", "gantry-lab-radio"]),
    ("gantry-log", &[]),
    ("gantry-api", &["gantry-catalog", "gantry-topology"]),
    (
        "gantry-lab-hss",
        &["gantry-lab-aka", "gantry-lab-daemon", "gantry-lab-diameter"],
    ),
    ("gantry-nodeagent-api", &["gantry-topology"]),
    ("gantry-plan", &["gantry-topology"]),
    ("gantry-ebpf", &["gantry-ebpf-common"]),
    ("gantry-cni", &["gantry-ebpf"]),
    (
        "gantry-nodeagent",
        &[
            "gantry-ebpf",
            "gantry-images",
            "gantry-log",
            "gantry-nodeagent-api",
            "gantry-topology",
        ],
    ),
    (
        "gantry-orchestrator",
        &[
            "gantry-api",
            "gantry-catalog",
            "gantry-nodeagent-api",
            "gantry-plan",
            "gantry-topology",
        ],
    ),
    (
        "gantry",
        &[
            "gantry-api",
            "gantry-catalog",
            "gantry-images",
            "gantry-log",
            "gantry-nodeagent-api",
            "gantry-orchestrator",
            "gantry-plan",
            "gantry-topology",
        ],
    ),
    ("gantry-sim", &["*"]),
    ("gantry-tests", &["*"]),
    ("xtask", &["gantry-catalog", "gantry-tests"]),
];

/// Leaves and pure crates: no runtime, no sockets, no system calls.
const PURE: [&str; 8] = [
    "gantry-catalog",
    "gantry-lab-aka",
    "gantry-lab-faults",
    "gantry-lab-gtp",
    "gantry-lab-radio",
    "gantry-topology",
    "gantry-ebpf-common",
    "gantry-plan",
];
const IMPURE_CRATES: [&str; 8] = [
    "tokio",
    "nix",
    "rustix",
    "hyper",
    "tonic",
    "aya",
    "rtnetlink",
    "libc",
];

/// Names of the workspace's members with the names of their normal dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .expect("cargo metadata runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("dependencies");
            (
                name(package),
                all.iter()
                    .filter(|d| d["kind"].is_null() && d["optional"] != true)
                    .map(name)
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn members_import_only_what_they_may() {
    let members = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let named: BTreeSet<&str> = allowed.keys().copied().collect();
    let there: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(there, named, "the table must name every member and no other");
    for (member, imports) in &members {
        let may = allowed[member.as_str()];
        for import in imports.iter().filter(|i| members.contains_key(*i)) {
            assert!(
                may.contains(&"*") || may.contains(&import.as_str()),
                "{member} must not import {import}"
            );
        }
    }
}

#[test]
fn pure_crates_have_no_io() {
    let members = dependencies();
    for pure in PURE {
        let found: Vec<&String> = members[pure]
            .iter()
            .filter(|d| IMPURE_CRATES.contains(&d.as_str()))
            .collect();
        assert!(
            found.is_empty(),
            "{pure} must stay without I/O, but imports {found:?}"
        );
    }
}
