//! `cargo xtask test`: everything that CI checks, from a clean clone, ending in one line of counts.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{demo, deny, prepare, shell, vm};

/// Seeds of the simulation.
const SEEDS: u64 = 300;
/// Areas whose tests must run, not skip, when we are root.
const REQUIRED: &str = "netns,bpf,cgroup,images";

/// Runs all; `quick` leaves out what takes minutes of waiting: the machine and the demo.
pub fn run(quick: bool) -> Result<()> {
    prepare::ensure_programs()?;
    let root = prepare::is_root();
    let started = Instant::now();
    let mut tally = Tally::default();
    tally.check("format", || shell::cargo(&["fmt", "--all", "--check"]));
    let clippy = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    tally.check("clippy", || shell::cargo(&clippy));
    // The binaries come first: tests run them.
    tally.check("build", shell::build);
    let mut required = if root { REQUIRED.to_owned() } else { String::new() };
    match prepare::ensure_bpf_tools() {
        Ok(()) => required += ",bpf-build",
        Err(error) => tally.skip("rebuild of the kernel object", &error.to_string()),
    }
    tally.cargo_test(&required)?;
    tally.check("simulation", || shell::sim(0, SEEDS));
    tally.check("bans, licences, sources", deny::check);
    match deny::advisories_out_of_reach() {
        Some(why) => tally.skip("advisories", why),
        None => tally.check("advisories", || {
            shell::cargo(&["deny", "--all-features", "check", "advisories"])
        }),
    }
    match (quick, root) {
        (true, _) => tally.skip("machine and demo", "--quick"),
        (_, false) => tally.skip("machine and demo", "not root"),
        (false, true) => tally.machine_and_demo(),
    }
    tally.tell_failures();
    println!("{}", tally.closing_line(started));
    if tally.failed > 0 {
        bail!("{} failed", tally.failed);
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Within what tests that passed have printed.
    in_successes: bool,
    /// Tests of the program that runs now that said they skip.
    skips: u64,
    /// Within what tests that failed have printed.
    in_failures: bool,
    /// What failed and the last that it said; told once more at the end, where whoever reads only that finds it.
    failures: Vec<Failure>,
}

/// What failed.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    name: String,
    last: VecDeque<String>,
}

/// Lines of a failure that are told once more.
const LAST_LINES: usize = 20;

impl Failure {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            last: VecDeque::new(),
        }
    }

    fn add(&mut self, line: &str) {
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }
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
                println!("FAILED: {name} ({took_s} s): {error:#}");
                self.fail(name, &format!("{error:#}"));
            }
        }
    }

    /// Counts what is no test of a test program.
    fn fail(&mut self, name: &str, why: &str) {
        self.failed += 1;
        let mut failure = Failure::new(name);
        failure.add(why);
        self.failures.push(failure);
    }

    fn tell_failures(&self) {
        for failure in &self.failures {
            println!("FAILED: {}", failure.name);
            failure.last.iter().for_each(|line| println!("    {line}"));
        }
    }

    /// Over everything, in the words of `cargo test`, for whoever reads those.
    fn closing_line(&self, started: Instant) -> String {
        format!(
            "test result: {}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.2}s",
            if self.failed == 0 { "ok" } else { "FAILED" },
            self.passed,
            self.failed,
            self.skipped,
            started.elapsed().as_secs_f64()
        )
    }

    fn skip(&mut self, name: &str, why: &str) {
        self.skipped += 1;
        println!("SKIPPED: {name}: {why}");
    }

    /// Runs cargo's tests, shows their output, and counts them.
    fn cargo_test(&mut self, required: &str) -> Result<()> {
        let mut command = Command::new(shell::cargo_program());
        command
            .args(["test", "--workspace", "--no-fail-fast", "--", "--show-output"])
            .current_dir(shell::root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.env("REQUIRE", required);
        let mut child = command.spawn().context("cannot run cargo test")?;
        let output = child.stdout.take().context("cargo test has no output")?;
        let failed_before = self.failed;
        for line in BufReader::new(output).lines() {
            self.show(&line.context("cannot read cargo test's output")?);
        }
        let status = child.wait().context("cargo test does not end")?;
        if !status.success() && self.failed == failed_before {
            self.fail("cargo test", &status.to_string());
        }
        Ok(())
    }

    /// Runs tests in the machine, and counts them; and the demo meanwhile, which waits most of its time for calls to end.
    fn machine_and_demo(&mut self) {
        let output = thread::scope(|scope| {
            let machine = scope.spawn(|| vm::run(None, |_| ()));
            self.check("demo", || demo::run(false, None, demo::Strictness::Counts));
            machine
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let failed_before = self.failed;
        if let Ok(output) = &output {
            output.lines.iter().for_each(|line| self.show(line));
        }
        if self.failed == failed_before {
            self.check("machine", || output?.judge());
        }
    }

    fn show(&mut self, line: &str) {
        if self.count(line) && !line.is_empty() {
            println!("{line}");
        }
    }

    /// A line of what a test that failed has printed.
    fn failure(&mut self, line: &str) {
        match (heading(line), self.failures.last_mut()) {
            (Some(name), _) => self.failures.push(Failure::new(name)),
            (None, Some(failure)) if !line.is_empty() && !is_of_backtrace(line) => failure.add(line),
            (None, _) => {}
        }
    }

    /// Counts by one line of a test program; true if it is worth showing. Of what tests print that pass only a skip is, and
    /// it is counted as one.
    fn count(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.in_successes = true,
            // It comes twice: before what the tests printed, and before a list of their names.
            "failures:" => (self.in_successes, self.in_failures) = (false, !self.in_failures),
            _ if self.in_failures => self.failure(line),
            _ => {}
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            (self.in_successes, self.in_failures) = (false, false);
            // To the test program a test that skipped has passed.
            let skips = std::mem::take(&mut self.skips);
            self.passed += number(counts, "passed").saturating_sub(skips);
            self.failed += number(counts, "failed");
            self.skipped += number(counts, "ignored") + skips;
        } else if line.starts_with("SKIPPED: ") {
            self.skips += 1;
            return true;
        }
        !self.in_successes
    }
}

/// `  4: function`, `at file:line`, and what is above and below such lines: they would push out what was said.
fn is_of_backtrace(line: &str) -> bool {
    let line = line.trim_start();
    let numbered = line
        .split_once(": ")
        .is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    numbered
        || ["at ", "stack backtrace:", "Stack backtrace:", "note: "]
            .iter()
            .any(|start| line.starts_with(start))
}

/// The name in `---- a::b stdout ----`, before what a test has printed.
fn heading(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// The count in `ok. 3 passed; 0 failed; 1 ignored; ...`.
fn number(counts: &str, what: &str) -> u64 {
    let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|w| !w.is_empty()).collect();
    words
        .windows(2)
        .find(|w| w[1] == what)
        .and_then(|w| w[0].parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Failure, Tally};

    #[test]
    fn counts_are_read_from_the_lines_of_test_programs() {
        let mut tally = Tally::default();
        let shown = [
            "test a ... ok",
            "successes:",
            "---- a stdout ----",
            "SKIPPED: needs root",
            "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ]
        .map(|line| tally.count(line));
        assert_eq!(shown, [true, false, false, true, true]);
        assert_eq!((tally.passed, tally.failed, tally.skipped), (2, 2, 2));
    }

    #[test]
    fn what_failed_is_remembered_with_its_last_words() {
        let mut tally = Tally::default();
        for line in [
            "failures:",
            "",
            "---- a::b stdout ----",
            "Error: too slow",
            "stack backtrace:",
            "   0: main",
            "             at ./src/main.rs:1:1",
            "",
            "failures:",
            "    a::b",
            "",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "test c ... ok",
        ] {
            assert!(tally.count(line));
        }
        let mut failure = Failure::new("a::b");
        failure.add("Error: too slow");
        assert_eq!(tally.failures, [failure]);
    }
}
