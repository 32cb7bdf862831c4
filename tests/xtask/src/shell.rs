//! Running other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use gantry_tests::target_dir;

/// The workspace's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("xtask is two levels below the root")
        .to_owned()
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    let profile = target_dir();
    profile.parent().map_or_else(|| profile.clone(), Path::to_owned)
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
    run_with(&cargo_program(), args, env)
}

/// The tests of durability, with more runs than the test command has.
pub fn durability(runs: u64, kills: u64) -> Result<()> {
    let (runs, kills) = (runs.to_string(), (kills / 2).to_string());
    let env = [
        ("GANTRY_DURABILITY_RUNS", Path::new(&runs)),
        ("GANTRY_KILLS", Path::new(&kills)),
        ("REQUIRE", Path::new("netns,cgroup")),
    ];
    build()?;
    let test = |rest: &[&str]| cargo_with(&[&["test", "--workspace"], rest].concat(), &env);
    test(&["--lib", "durability"])?;
    test(&[
        "--test",
        "kills",
        "--test",
        "agent",
        "survive_kills",
        "--",
        "--nocapture",
    ])
}

/// Builds everything. Always the whole workspace: for a part of it cargo chooses other features of what all have in common, and
/// compiles that once more.
pub fn build() -> Result<()> {
    cargo(&["build", "--quiet", "--workspace"])
}

/// Cargo, for what it prints on stdout.
pub fn cargo_output(args: &[&str]) -> Result<Vec<u8>> {
    eprintln!("$ cargo {}", args.join(" "));
    let output = Command::new(cargo_program())
        .args(args)
        .current_dir(root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "`cargo {}` failed: {}",
        args.join(" "),
        output.status
    );
    Ok(output.stdout)
}

/// The cargo that runs us.
pub fn cargo_program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// The simulation; a program of its own, so that the chores are there before the whole workspace is compiled.
pub fn sim(from: u64, seeds: u64) -> Result<()> {
    build()?;
    let (from, seeds) = (from.to_string(), seeds.to_string());
    let program = target_dir().join("gantry-sim");
    run(&program.to_string_lossy(), &["--from", &from, "--seeds", &seeds])
}

/// Whether a program is in PATH or a system directory.
pub fn has(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is, in PATH or a system directory.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
