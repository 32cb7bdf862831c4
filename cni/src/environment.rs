//! The CNI_ environment variables.

use std::path::PathBuf;

use crate::error::CniError;

/// One end of an attachment: container and interface in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

fn wrong(variable: &'static str, problem: impl Into<String>) -> CniError {
    CniError::Environment {
        variable,
        problem: problem.into(),
    }
}

/// A variable that must be there.
pub fn required(variable: &'static str) -> Result<String, CniError> {
    std::env::var(variable)
        .ok()
        .filter(|v| !v.is_empty())
        .ok_or_else(|| wrong(variable, "is not set"))
}

impl Target {
    /// Reads and checks both variables.
    pub fn from_environment() -> Result<Target, CniError> {
        Target::new(required("CNI_CONTAINERID")?, required("CNI_IFNAME")?)
    }

    /// Checks both: they become parts of file names.
    pub fn new(container: String, ifname: String) -> Result<Target, CniError> {
        let first = container
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !first || !container.chars().all(rest) || container.len() > 200 {
            return Err(wrong(
                "CNI_CONTAINERID",
                "may hold letters, digits, '_', '.', '-' (at most 200)",
            ));
        }
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if ifname.is_empty() || ifname.len() > 15 || ifname.chars().any(bad) || matches!(&*ifname, "." | "..")
        {
            return Err(wrong(
                "CNI_IFNAME",
                "is no interface name (1 to 15 characters, no '/', ':', blanks)",
            ));
        }
        Ok(Target { container, ifname })
    }
}

/// CNI_NETNS: must be another network namespace than ours.
pub fn netns() -> Result<PathBuf, CniError> {
    use std::os::unix::fs::MetadataExt;
    let path = PathBuf::from(required("CNI_NETNS")?);
    let there =
        std::fs::metadata(&path).map_err(|e| wrong("CNI_NETNS", format!("{}: {e}", path.display())))?;
    let here = std::fs::metadata("/proc/thread-self/ns/net")
        .map_err(crate::error::file("read", "/proc/thread-self/ns/net"))?;
    if there.ino() == here.ino() && there.dev() == here.dev() {
        return Err(wrong(
            "CNI_NETNS",
            "is the host's own network namespace: pods need one of their own",
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for container in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(
                Target::new(container.into(), "eth0".into()).is_err(),
                "{container}"
            );
        }
        for ifname in ["", "a/b", "..", "sixteen-letters!", "a:b"] {
            assert!(Target::new("c".into(), ifname.into()).is_err(), "{ifname}");
        }
        assert!(Target::new("0cafe_1.x-y".into(), "eth0".into()).is_ok());
    }
}
