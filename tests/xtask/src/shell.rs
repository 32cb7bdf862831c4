//! Running other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("xtask is two levels below the root")
        .to_owned()
}

/// Runs a command in the workspace, its output shown; fails if it fails.
pub fn run(program: &str, args: &[&str]) -> Result<()> {
    run_with(program, args, &[])
}

fn run_with(program: &str, args: &[&str], env: &[(&str, &Path)]) -> Result<()> {
    eprintln!("$ {program} {}", args.join(" "));
    let status = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .current_dir(root())
        .stdin(Stdio::null())
        .status();
    let status = status.with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("`{program} {}` failed: {status}", args.join(" "));
    }
    Ok(())
}

/// Cargo, the same that runs us.
pub fn cargo(args: &[&str]) -> Result<()> {
    cargo_with(args, &[])
}

/// Cargo, with something more in its environment.
pub fn cargo_with(args: &[&str], env: &[(&str, &Path)]) -> Result<()> {
    run_with(
        &std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()),
        args,
        env,
    )
}

/// The simulation; a program of its own, so that the chores are there before the whole workspace is compiled.
pub fn sim(from: u64, seeds: u64) -> Result<()> {
    let (from, seeds) = (from.to_string(), seeds.to_string());
    cargo(&[
        "run",
        "--quiet",
        "-p",
        "gantry-sim",
        "--",
        "--from",
        &from,
        "--seeds",
        &seeds,
    ])
}

/// Whether a program is in PATH or a system directory.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}
