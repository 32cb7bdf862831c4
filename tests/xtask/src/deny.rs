//! What we build on: bans, licences and sources as `deny.toml` wants them, by cargo's metadata alone. Advisories need
//! cargo-deny and its database.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use toml_edit::{DocumentMut, Item};

use crate::shell;

/// The only source but our own folders.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// What `deny.toml` says.
struct Rules {
    allowed: BTreeSet<String>,
    clarified: BTreeSet<String>,
    banned: BTreeSet<String>,
}

/// Checks bans, licences and sources of all that is locked.
pub fn check() -> Result<()> {
    let text = std::fs::read_to_string(shell::root().join("deny.toml")).context("cannot read deny.toml")?;
    let rules = Rules::read(&text)?;
    let output = Command::new(shell::cargo_program())
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(shell::root())
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")?;
    ensure!(
        metadata.packages.len() > 100,
        "cargo's metadata has hardly a package"
    );
    let problems: Vec<String> = metadata.packages.iter().flat_map(|p| rules.problems(p)).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(())
}

/// What keeps advisories from being checked, if anything does.
pub fn advisories_out_of_reach() -> Option<&'static str> {
    if !shell::has("cargo-deny") {
        Some("cargo-deny is not installed: cargo install cargo-deny --locked")
    } else if shell::cargo(&["deny", "fetch", "db"]).is_err() {
        Some("the database of advisories cannot be reached")
    } else {
        None
    }
}

impl Rules {
    fn read(text: &str) -> Result<Self> {
        let rules: DocumentMut = text.parse().context("deny.toml")?;
        let words =
            |item: Option<&Item>, of: &dyn Fn(&toml_edit::Value) -> Option<String>| -> BTreeSet<String> {
                let values = item.and_then(Item::as_array);
                values.into_iter().flatten().filter_map(of).collect()
            };
        let text = |value: &toml_edit::Value| value.as_str().map(str::to_owned);
        let named =
            |value: &toml_edit::Value| Some(value.as_inline_table()?.get("crate")?.as_str()?.to_owned());
        let get = |section: &str, key: &str| rules.get(section).and_then(|s| s.get(key)).cloned();
        let rules = Self {
            allowed: words(get("licenses", "allow").as_ref(), &text),
            clarified: words(get("licenses", "clarify").as_ref(), &named),
            banned: words(get("bans", "deny").as_ref(), &named),
        };
        ensure!(
            !rules.allowed.is_empty() && !rules.banned.is_empty(),
            "deny.toml allows no licence or bans nothing: its shape has changed"
        );
        Ok(rules)
    }

    fn problems(&self, package: &Package) -> Vec<String> {
        let who = format!("{} {}", package.name, package.version);
        let mut found = Vec::new();
        if self.banned.contains(&package.name) {
            found.push(format!("{who} is banned"));
        }
        match &package.source {
            Some(source) if source != REGISTRY => found.push(format!("{who} comes from {source}")),
            _ => {}
        }
        match &package.license {
            Some(license) if !self.allows(license) => found.push(format!("{who} has the licence {license}")),
            None if !self.clarified.contains(&package.name) => found.push(format!("{who} names no licence")),
            _ => {}
        }
        found
    }

    /// Whether some choice that an SPDX expression leaves is allowed. `/` is an old way to write OR.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression
            .replace('/', " OR ")
            .replace('(', " ( ")
            .replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut at = 0;
        self.any(&words, &mut at) && at == words.len()
    }

    fn any(&self, words: &[&str], at: &mut usize) -> bool {
        let mut good = self.all(words, at);
        while words.get(*at) == Some(&"OR") {
            *at += 1;
            good |= self.all(words, at);
        }
        good
    }

    fn all(&self, words: &[&str], at: &mut usize) -> bool {
        let mut good = self.one(words, at);
        while words.get(*at) == Some(&"AND") {
            *at += 1;
            good &= self.one(words, at);
        }
        good
    }

    fn one(&self, words: &[&str], at: &mut usize) -> bool {
        let Some(word) = words.get(*at) else { return false };
        *at += 1;
        if *word == "(" {
            let good = self.any(words, at);
            let closed = words.get(*at) == Some(&")");
            *at += 1;
            return good && closed;
        }
        let mut license = (*word).to_owned();
        if words.get(*at) == Some(&"WITH") {
            license += &format!(" WITH {}", words.get(*at + 1).unwrap_or(&""));
            *at += 2;
        }
        self.allowed.contains(&license)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[licenses]
allow = ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"]
clarify = [{ crate = "nameless", expression = "MIT" }]
[bans]
deny = [{ crate = "bad" }]
"#;

    #[test]
    fn this_workspace_is_as_deny_toml_wants_it() {
        check().unwrap();
    }

    #[test]
    fn licences_by_spdx() {
        let rules = Rules::read(TEXT).unwrap();
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "Unlicense/MIT",
            "(GPL-2.0 OR Apache-2.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(rules.allows(good), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT",
            "",
            "MIT ISC",
            "Apache-2.0 WITH other",
        ] {
            assert!(!rules.allows(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_package() {
        let rules = Rules::read(TEXT).unwrap();
        let problems = |name: &str, license: Option<&str>, source: Option<&str>| {
            rules.problems(&Package {
                name: name.to_owned(),
                version: "1.0.0".to_owned(),
                license: license.map(str::to_owned),
                source: source.map(str::to_owned),
            })
        };
        assert!(problems("good", Some("MIT"), Some(REGISTRY)).is_empty());
        assert!(problems("nameless", None, None).is_empty());
        assert_eq!(problems("bad", None, Some("git+https://example.org/x")).len(), 3);
        assert!(Rules::read("[licenses]\nallow = []\n").is_err());
    }
}
