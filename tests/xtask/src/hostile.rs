//! `cargo xtask hostile`: tables of what hostile tenants try, by hand. The test command runs the same tests without the tables.

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

use crate::shell;

/// Which table.
#[derive(Subcommand)]
pub enum Table {
    /// Ways out of a container, at two levels, and each once more with its protection off
    Escapes,
}

/// Runs a table and prints it; fails if one attempt succeeds, or one control does not.
pub fn run(table: &Table) -> Result<()> {
    match table {
        Table::Escapes => escapes(),
    }
}

fn escapes() -> Result<()> {
    let args = [
        "test",
        "-p",
        "gantry-nodeagent",
        "--test",
        "escapes",
        "--test",
        "runtime_sealed",
        "--test",
        "runtime_fresh",
    ];
    let harness = ["--", "--nocapture", "--test-threads=1"];
    let env = [
        ("ESCAPES_TABLE", Path::new("1")),
        ("REQUIRE", Path::new("cgroup")),
    ];
    shell::cargo_with(&[&args[..], &harness].concat(), &env)
}
