//! What a machine shows of Gantry: to see that nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::poll;

/// How long what is being torn down may still be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that Gantry could have left, as lines of text.
pub struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// What is there now.
    pub fn now() -> Result<Self> {
        let mut found = BTreeSet::new();
        for link in fs::read_dir("/sys/class/net")?.flatten() {
            let name = link.file_name().to_string_lossy().into_owned();
            if is_link(&name) {
                found.insert(format!("link {name}"));
            }
        }
        for line in fs::read_to_string("/proc/self/mounts")?
            .lines()
            .filter(|l| l.contains("gantry"))
        {
            found.insert(format!("mount {line}"));
        }
        for line in command("nft", &["list", "tables"])?
            .lines()
            .filter(|l| l.contains("gantry"))
        {
            found.insert(format!("nft {line}"));
        }
        let addresses = command("ip", &["-o", "address"])? + &command("ip", &["route"])?;
        for line in addresses.lines().filter(|l| l.split([' ', '@']).any(is_link)) {
            found.insert(format!(
                "address or route {}",
                line.split("valid_lft").next().unwrap_or(line).trim()
            ));
        }
        cgroups("/sys/fs/cgroup".as_ref(), 0, &mut found);
        for process in fs::read_dir("/proc")?.flatten() {
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let (name, state) = name_and_state(&stat).unwrap_or_default();
            // A zombie holds nothing; pid 1 reaps it in its own time.
            if state == "Z" {
                continue;
            }
            let groups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            if ["gantry", "kamailio", "sipp"]
                .iter()
                .any(|own| name.starts_with(own))
                || groups.contains("/gantry/")
            {
                found.insert(format!(
                    "process {} {}",
                    process.file_name().to_string_lossy(),
                    name
                ));
            }
        }
        for file in fs::read_dir(std::env::temp_dir())?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with("gantry") {
                found.insert(format!("file {name}"));
            }
        }
        Ok(Self(found))
    }

    /// Fails with what is there now and was not before. The kernel gets a moment for its own tidying.
    pub fn ensure_nothing_new(&self) -> Result<()> {
        self.ensure_nothing_new_where(|_| true)
    }

    /// The same for what pods leave: a Gantry that runs keeps the cgroup that all its pods were in.
    pub fn ensure_nothing_new_of_pods(&self) -> Result<()> {
        self.ensure_nothing_new_where(|line| !line.starts_with("cgroup") || line.contains("/pod"))
    }

    fn ensure_nothing_new_where(&self, counts: impl Fn(&str) -> bool) -> Result<()> {
        let mut new: Vec<String> = Vec::new();
        let clean = poll(PATIENCE, || {
            new = Self::now().ok()?.0.difference(&self.0).cloned().collect();
            new.retain(|line| counts(line));
            new.is_empty().then_some(())
        });
        match clean {
            Some(()) => Ok(()),
            None => bail!("left behind:\n  {}", new.join("\n  ")),
        }
    }
}

/// Name and state of `/proc/PID/stat` (proc(5)).
fn name_and_state(stat: &str) -> Option<(&str, &str)> {
    let (head, rest) = stat.rsplit_once(')')?;
    Some((head.split_once('(')?.1, rest.split_whitespace().next()?))
}

/// Groups named `gantry`, in any hierarchy, and those below them.
fn cgroups(directory: &std::path::Path, depth: u32, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|t| t.is_dir()) || depth > 6 {
            continue;
        }
        if path.to_string_lossy().contains("/gantry/") {
            found.insert(format!("cgroup {}", path.display()));
        }
        cgroups(&path, depth + 1, found);
    }
}

/// Gantry's links: `g`, what it is for (`h`, `p`) or nothing, and the instance in hexadecimal digits.
fn is_link(name: &str) -> bool {
    let rest = name.strip_prefix('g').unwrap_or_default();
    let digits = rest.strip_prefix(['h', 'p']).unwrap_or(rest);
    digits.len() >= 6 && digits.chars().all(|c| c.is_ascii_hexdigit())
}

fn command(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} {} failed", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::is_link;

    #[test]
    fn only_links_of_gantry_count() {
        assert!(is_link("gh12ab34") && is_link("gp12ab34") && is_link("g12ab34c0ffee00"));
        assert!(!is_link("eth0") && !is_link("veth12ab34") && !is_link("gre0"));
    }
}
