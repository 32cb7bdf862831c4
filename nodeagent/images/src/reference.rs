//! Names of images, and the ways to point at one.

use std::fmt;

use crate::digest::Digest;

/// A name is not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is not an image name: {why}; write NAME:TAG, NAME:TAG@sha256:HEX or sha256:HEX, such as kamailio:5.6.3"
)]
pub struct ReferenceError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// What people leave out of the names of a well-known registry; tools write it out.
const WELL_KNOWN: [&str; 4] = [
    "docker.io/library/",
    "index.docker.io/library/",
    "docker.io/",
    "index.docker.io/",
];

/// `repository:tag`; a missing tag means `latest`, and `docker.io/library/x` is `x`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName(String);

impl ImageName {
    /// Parses and normalises (adds `:latest`).
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| ReferenceError {
            text: text.to_owned(),
            why,
        };
        let short = WELL_KNOWN
            .iter()
            .find_map(|known| text.strip_prefix(known))
            .unwrap_or(text);
        // A colon before the last slash belongs to a registry's port.
        let (repo, tag) = match short.rsplit_once(':') {
            Some((repo, tag)) if !tag.contains('/') => (repo, tag),
            _ => (short, "latest"),
        };
        if repo.is_empty() || repo.len() > 255 {
            return Err(fail("the repository part must have 1 to 255 characters"));
        }
        let part_ok = |p: &str| {
            p.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && p.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-:".contains(c))
        };
        if !repo.split('/').all(part_ok) {
            return Err(fail(
                "the repository takes a-z, 0-9, '.', '_', '-' and '/' and starts with a letter or digit",
            ));
        }
        if !tag_is_valid(tag) {
            return Err(fail(
                "the tag takes up to 128 of A-Z, a-z, 0-9, '_', '.', '-' and does not start with '.' or '-'",
            ));
        }
        Ok(Self(format!("{repo}:{tag}")))
    }

    /// `repository:tag`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// OCI distribution spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn tag_is_valid(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        && !tag.starts_with(['.', '-'])
}

/// How a user or a pod points at an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Whatever the name means now.
    Name(ImageName),
    /// Exactly this manifest; the name, if given, is for people.
    Pinned(Option<ImageName>, Digest),
}

impl Reference {
    /// Parses `NAME[:TAG]`, `NAME[:TAG]@sha256:HEX` or `sha256:HEX`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let digest = |d: &str| {
            Digest::parse(d).ok_or_else(|| ReferenceError {
                text: text.to_owned(),
                why: "the digest must be sha256: and 64 lower-case hex digits",
            })
        };
        if text.starts_with("sha256:") {
            return Ok(Self::Pinned(None, digest(text)?));
        }
        match text.split_once('@') {
            Some((name, d)) => Ok(Self::Pinned(Some(ImageName::parse(name)?), digest(d)?)),
            None => Ok(Self::Name(ImageName::parse(text)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let hex = "0".repeat(64);
        let name = |s: &str| ImageName::parse(s).unwrap();
        assert_eq!(name("kamailio").as_str(), "kamailio:latest");
        assert_eq!(
            name("localhost:5000/ims/kamailio:5.6").as_str(),
            "localhost:5000/ims/kamailio:5.6"
        );
        assert_eq!(name("localhost:5000/x").as_str(), "localhost:5000/x:latest");
        assert_eq!(name("docker.io/library/busybox:1").as_str(), "busybox:1");
        assert_eq!(name("docker.io/grafana/x").as_str(), "grafana/x:latest");
        assert_eq!(Reference::parse("a:1").unwrap(), Reference::Name(name("a:1")));
        assert!(matches!(
            Reference::parse(&format!("a:1@sha256:{hex}")).unwrap(),
            Reference::Pinned(Some(_), _)
        ));
        assert!(matches!(
            Reference::parse(&format!("sha256:{hex}")).unwrap(),
            Reference::Pinned(None, _)
        ));
        for bad in [
            "",
            ":",
            "A:1",
            "../x",
            "a/../b",
            "a:b c",
            "a:.x",
            "a@sha256:12",
            "sha256:12",
            "a\nb",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}
