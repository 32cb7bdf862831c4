//! The rules that a descriptor must meet beyond its shape. Each returns every broken rule, not only the first.

mod container;
mod files;
mod function;
mod package;
mod service;

pub use function::{LONGEST_FUNCTION_NAME, function_name_problem};

use std::collections::BTreeSet;

use crate::Problem;

/// The largest user or group, as in Kubernetes: the kernel takes the largest of its own for "stay who you are".
pub const MAX_ID: u32 = 2_147_483_647;

/// What was found.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: &str, message: String) {
        self.0.push(Problem {
            path: path.to_owned(),
            message,
        });
    }

    fn require(&mut self, holds: bool, path: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.add(path, message());
        }
    }

    fn unique<'a>(&mut self, path: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for (i, name) in names.enumerate() {
            self.require(seen.insert(name), &format!("{path}[{i}]"), || {
                format!("`{name}` is there twice")
            });
        }
    }

    /// A directory that would hide one of these.
    fn hides(&mut self, directory: &str, paths: &[&str], path: &str) {
        let is_in = |other: &&&str| **other == directory || is_below(other, directory);
        if let Some(other) = paths.iter().find(is_in) {
            self.add(
                path,
                format!("`{directory}` hides `{other}`: choose another directory"),
            );
        }
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The longest name of a package, function or interface: names of pods, made from it, have room.
const MAX_NAME_BYTES: usize = 40;

/// RFC 1123 label, not longer than that.
pub(crate) fn is_dns_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|b| inner(b) || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn dns_label_hint(name: &str) -> String {
    if name.len() > MAX_NAME_BYTES {
        return format!(
            "`{name}` has {} characters, at most {MAX_NAME_BYTES} are allowed",
            name.len()
        );
    }
    format!(
        "`{name}` is no name: lower-case letters, digits and inner hyphens, at most {MAX_NAME_BYTES} (RFC 1123)"
    )
}

/// As in Kubernetes.
fn is_key(key: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !key.is_empty() && key.len() <= 253 && key.bytes().all(plain) && !matches!(key, "." | "..")
}

fn is_version(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() == 3 && parts.iter().all(|p| p.len() <= 9 && p.parse::<u32>().is_ok())
}

fn is_clean_absolute(path: &str) -> bool {
    path.len() > 1
        && path.starts_with('/')
        && !path.ends_with('/')
        && path[1..].split('/').all(|p| !matches!(p, "" | "." | ".."))
}

fn absolute_hint(path: &str) -> String {
    format!("`{path}` is no absolute path without `.`, `..` and double slashes")
}

fn list<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|n| n.as_ref().to_owned()).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
