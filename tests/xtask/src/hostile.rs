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
    /// What tenants write, send and run against their neighbours, and each once more with its protection off
    Tenants,
}

/// Runs a table, or both, and prints it; fails if one attempt succeeds or harms, or one control does not.
pub fn run(table: Option<&Table>) -> Result<()> {
    match table {
        Some(Table::Escapes) => escapes(),
        Some(Table::Tenants) => tenants(),
        None => escapes().and_then(|()| tenants()),
    }
}

fn tenants() -> Result<()> {
    shell::build()?;
    let test = ["test", "--workspace", "--test", "machine", "hostile"];
    let harness = ["--", "--nocapture", "--test-threads=1"];
    let env = [
        ("HOSTILE_TABLE", Path::new("1")),
        ("REQUIRE", Path::new("cgroup,images")),
    ];
    shell::cargo_with(&[&test[..], &harness].concat(), &env)
}

fn escapes() -> Result<()> {
    let args = [
        "test",
        "--workspace",
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
