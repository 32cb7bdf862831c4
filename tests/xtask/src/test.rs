//! `cargo xtask test`: everything that CI checks, from a clean clone, ending in one line of counts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{demo, prepare, shell};

/// Seeds of the simulation.
const SEEDS: u64 = 1000;
/// Areas whose tests must run, not skip, when we are root.
const REQUIRED: &str = "netns,bpf,cgroup,images";

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs all; `quick` leaves the end-to-end demo out.
pub fn run(quick: bool) -> Result<()> {
    prepare::ensure_programs()?;
    let mut tally = Tally::default();
    tally.check("format", || shell::cargo(&["fmt", "--all", "--check"]));
    tally.check("clippy", || {
        shell::cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    });
    // The binaries come first: tests run them.
    tally.check("build", || shell::cargo(&["build", "--quiet", "--workspace"]));
    let mut required = if prepare::is_root() {
        REQUIRED.to_owned()
    } else {
        String::new()
    };
    match prepare::ensure_bpf_tools() {
        Ok(()) => required += ",bpf-build",
        Err(error) => tally.skip("rebuild of the kernel object", &error.to_string()),
    }
    tally.cargo_test(&required)?;
    tally.check("simulation", || shell::sim(0, SEEDS));
    if shell::has("cargo-deny") {
        tally.check("cargo deny", || {
            shell::cargo(&["deny", "--all-features", "check"])
        });
    } else {
        tally.skip(
            "cargo deny",
            "cargo-deny is not installed: cargo install cargo-deny --locked",
        );
    }
    match (quick, prepare::is_root()) {
        (true, _) => tally.skip("demo", "--quick"),
        (_, false) => tally.skip("demo", "not root"),
        (false, true) => tally.check("demo", || demo::run(false, None, demo::Strictness::Counts)),
    }
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    );
    if tally.failed > 0 {
        bail!("{} failed", tally.failed);
    }
    Ok(())
}

impl Tally {
    fn check(&mut self, name: &str, act: impl FnOnce() -> Result<()>) {
        let started = Instant::now();
        let result = act();
        let took_s = started.elapsed().as_secs();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok: {name} ({took_s} s)");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED: {name} ({took_s} s): {error:#}");
            }
        }
    }

    fn skip(&mut self, name: &str, why: &str) {
        self.skipped += 1;
        println!("SKIPPED: {name}: {why}");
    }

    /// Runs cargo's tests, shows their output, and counts them.
    fn cargo_test(&mut self, required: &str) -> Result<()> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut command = Command::new(cargo);
        command
            .args(["test", "--workspace", "--no-fail-fast"])
            .current_dir(shell::root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.env("REQUIRE", required);
        let mut child = command.spawn().context("cannot run cargo test")?;
        let output = child.stdout.take().context("cargo test has no output")?;
        let failed_before = self.failed;
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read cargo test's output")?;
            self.count(&line);
            writeln!(std::io::stdout(), "{line}")?;
        }
        let status = child.wait().context("cargo test does not end")?;
        if !status.success() && self.failed == failed_before {
            self.failed += 1;
            println!("FAILED: cargo test: {status}");
        }
        Ok(())
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
    fn count(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        let number = |what: &str| {
            let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|w| !w.is_empty()).collect();
            words
                .windows(2)
                .find(|w| w[1] == what)
                .and_then(|w| w[0].parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
        self.skipped += number("ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn counts_are_read_from_cargo_tests_lines() {
        let mut tally = Tally::default();
        tally.count("test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        tally.count("test a ... ok");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (3, 2, 1));
    }
}
