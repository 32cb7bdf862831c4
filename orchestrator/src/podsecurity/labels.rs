//! A namespace's labels: which level, of which version, for what.

use std::fmt;

use serde_json::Value;

use super::Level;

/// Newest standards that are known here: Kubernetes 1.36.
pub(super) const NEWEST: u32 = 36;
const PREFIX: &str = "pod-security.kubernetes.io/";

/// What happens to a pod that violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// It goes into the log.
    Audit,
    /// The client is warned.
    Warn,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Enforce, Self::Audit, Self::Warn];

    fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
            Self::Warn => "warn",
        }
    }
}

/// A level of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The level.
    pub level: Level,
    /// Kubernetes 1.x; `None` is the newest.
    pub version: Option<u32>,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Some(minor) => write!(f, ":v1.{minor}"),
            None => f.write_str(":latest"),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor == "0" || !minor.starts_with('0') && minor.bytes().all(|b| b.is_ascii_digit());
    minor.parse().ok().filter(|_| plain).map(Some)
}

impl Policy {
    /// By a namespace's labels. Without a label everything is allowed; of a label that cannot be read, as little as can be: it
    /// was refused when it was written.
    pub fn of(labels: &Value, mode: Mode) -> Self {
        let label = |suffix: &str| labels.get(format!("{PREFIX}{}{suffix}", mode.label()))?.as_str();
        Self {
            level: label("").map_or(Level::Privileged, |text| level(text).unwrap_or(Level::Restricted)),
            version: label("-version").and_then(version).flatten(),
        }
    }
}

/// Labels whose values cannot be read: the label's key, and what is wrong.
pub fn label_errors(labels: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for mode in Mode::ALL {
        let key = format!("{PREFIX}{}", mode.label());
        let value = |key: &str| labels.get(key).map(|v| v.as_str().unwrap_or_default());
        if let Some(text) = value(&key).filter(|text| level(text).is_none()) {
            let wrong = format!("Invalid value: {text:?}: must be one of privileged, baseline, restricted");
            found.push((key.clone(), wrong));
        }
        let key = key + "-version";
        if let Some(text) = value(&key).filter(|text| version(text).is_none()) {
            let wrong = format!("Invalid value: {text:?}: must be \"latest\" or \"v1.x\"");
            found.push((key, wrong));
        }
    }
    found
}
