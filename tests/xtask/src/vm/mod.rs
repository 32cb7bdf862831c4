//! `cargo xtask vm`: tests that touch the kernel, on a machine that this one is not (`tests/vm/README.md`).

mod kernel;
mod machine;

use std::io::BufRead;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;
use kernel::Kernel;
use machine::{Machine, Output};

/// Package, test target, and what of it (all, if nothing is said).
const TESTS: [(&str, &str, &str); 15] = [
    ("gantry-nodeagent", "runtime", ""),
    ("gantry-nodeagent", "runtime_exec", ""),
    ("gantry-nodeagent", "runtime_cgroup", ""),
    ("gantry-nodeagent", "runtime_volumes", ""),
    ("gantry-nodeagent", "runtime_sealed", ""),
    ("gantry-nodeagent", "escapes", "nothing_gets_out"),
    ("gantry-nodeagent", "agent", ""),
    ("gantry-nodeagent", "agent_ids", ""),
    ("gantry-nodeagent", "agent_quota", ""),
    ("gantry-nodeagent", "agent_apparmor", ""),
    ("gantry-cni", "network", ""),
    ("gantry-cni", "flows", ""),
    ("gantry-cni", "outside", ""),
    ("gantry-ebpf", "golden", ""),
    ("gantry-tests", "machine", "full_cores"),
];
/// Areas that must run there, not skip.
const REQUIRED: &str = "netns,bpf,cgroup,numa,quota,apparmor";
/// Without KVM everything is a dozen times slower.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Builds the tests, boots, runs those whose target has `only` in its name. Shows each line as it comes, and returns all.
pub fn run(only: Option<&str>, show: impl FnMut(&str)) -> Result<Output> {
    let chosen: Vec<_> = TESTS
        .into_iter()
        .filter(|(_, target, _)| only.is_none_or(|o| target.contains(o)))
        .collect();
    if chosen.is_empty() {
        let known: Vec<&str> = TESTS.iter().map(|t| t.1).collect();
        bail!("no such test runs there; there are: {}", known.join(", "));
    }
    let dir = shell::target().join("vm");
    let kernel = Kernel::ensure(&dir.join("kernel"))?;
    let apparmor = kernel::unpacked("apparmor", &dir.join("apparmor"))?;
    let tests = build(&chosen)?;
    let mut script = format!(
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin:{}/sbin HOME=/root REQUIRE={REQUIRED} CARGO_TARGET_DIR={}\nfailed=0\n",
        apparmor.display(),
        shell::target().display()
    );
    for test in &tests {
        script += &format!(
            "cd {} && {} --test-threads 4 {} || failed=1\n",
            test.package_dir.display(),
            test.executable.display(),
            test.filter
        );
    }
    script += "test $failed = 0";
    Machine::new(&kernel, &dir).run(&script, PATIENCE, show)
}

impl Output {
    /// An error if a test failed.
    pub fn judge(&self) -> Result<()> {
        match self.code {
            0 => Ok(()),
            code => bail!("tests failed in the machine (exit code {code})"),
        }
    }
}

struct Test {
    executable: PathBuf,
    package_dir: PathBuf,
    filter: &'static str,
}

/// Compiles the tests and finds their executables in what cargo says.
fn build(chosen: &[(&'static str, &'static str, &'static str)]) -> Result<Vec<Test>> {
    let said = shell::cargo_output(&[
        "test",
        "--workspace",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ])?;
    let artifacts: Vec<Value> = said
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    let find = |package: &str, target: &str| -> Option<(PathBuf, PathBuf)> {
        let artifact = artifacts.iter().find(|a| {
            a["profile"]["test"] == true
                && a["target"]["name"] == target
                && a["executable"].is_string()
                && a["package_id"].as_str().is_some_and(|id| id.contains(package))
        })?;
        let manifest = PathBuf::from(artifact["manifest_path"].as_str()?);
        Some((
            artifact["executable"].as_str()?.into(),
            manifest.parent()?.to_owned(),
        ))
    };
    chosen
        .iter()
        .map(|(package, target, filter)| {
            let (executable, package_dir) = find(package, target)
                .with_context(|| format!("cargo built no test {target} of {package}"))?;
            Ok(Test {
                executable,
                package_dir,
                filter,
            })
        })
        .collect()
}
