//! Which images of a foreign layout are taken, and what they are called.

use std::collections::BTreeSet;

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os, Platform};

use super::import::{ImportError, Layout};
use super::index;
use crate::reference::{ImageName, ReferenceError};

/// The whole name of an image where it was exported (containerd, Docker); the standard annotation has its tag alone there.
const EXPORTED_NAME: &str = "io.containerd.image.name";
/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

/// A manifest that could be taken.
struct Candidate {
    name: Option<String>,
    manifest: Descriptor,
}

/// What an index has.
#[derive(Default)]
struct Found {
    /// For this platform.
    own: Vec<Candidate>,
    /// Other platforms that it has images for.
    foreign: BTreeSet<String>,
}

impl Layout<'_> {
    /// The manifests to import, with their names.
    pub(super) fn choose(
        &self,
        name: Option<ImageName>,
    ) -> Result<Vec<(ImageName, Descriptor)>, ImportError> {
        let layout: oci_spec::image::OciLayout = self.json("oci-layout")?;
        if layout.image_layout_version() != "1.0.0" {
            return Err(self.invalid(format!(
                "layout version {} is not 1.0.0",
                layout.image_layout_version()
            )));
        }
        let index: ImageIndex = self.json("index.json")?;
        let mut all = Found::default();
        self.flatten(&index, None, 0, &mut all)?;
        let Found { own: found, foreign } = all;
        if found.is_empty() {
            return Err(self.none_of(&foreign));
        }
        let listed = || {
            let names: Vec<_> = found
                .iter()
                .map(|c| {
                    let name = c.name.as_deref();
                    name.map_or("(unnamed)".to_owned(), |name| name.escape_debug().to_string())
                })
                .collect();
            format!(
                "it holds {} images for this platform (linux/{}): {}",
                found.len(),
                Arch::default(),
                names.join(", ")
            )
        };
        if let Some(name) = name {
            if let [only] = &found[..] {
                return Ok(vec![(name, only.manifest.clone())]);
            }
            let is_it = |c: &&Candidate| {
                let own = c.name.as_deref().map(ImageName::parse);
                own.is_some_and(|own| own.is_ok_and(|own| own == name))
            };
            let same = found.iter().find(is_it);
            let same =
                same.ok_or_else(|| self.invalid(format!("{}; --name must be one of them", listed())))?;
            return Ok(vec![(name, same.manifest.clone())]);
        }
        let named = found
            .iter()
            .filter_map(|c| Some((c.name.as_deref()?, &c.manifest)));
        let named = named
            .map(|(n, d)| Ok((ImageName::parse(n)?, d.clone())))
            .collect::<Result<Vec<_>, ReferenceError>>()?;
        if named.is_empty() {
            return Err(self.invalid(format!("{}; give it a name with --name NAME:TAG", listed())));
        }
        Ok(named)
    }

    /// That there is none for this platform, and for which there are.
    fn none_of(&self, foreign: &BTreeSet<String>) -> ImportError {
        let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
        let there = match foreign.as_slice() {
            [] => "and none for another".to_owned(),
            some => format!("only for {}", some.join(", ")),
        };
        self.invalid(format!(
            "it holds 0 images for this platform (linux/{}), {there}; export the one for this platform",
            Arch::default()
        ))
    }

    /// Collects the image manifests for this platform from an index and the indexes inside it.
    fn flatten(
        &self,
        index: &ImageIndex,
        outer: Option<&str>,
        depth: usize,
        out: &mut Found,
    ) -> Result<(), ImportError> {
        let most = self.limits.manifests;
        if index.manifests().len() > most || out.own.len() > most || depth > MAX_DEPTH {
            return Err(self.invalid("its index is too large or too deep"));
        }
        // Several for this platform under one name are its variants: the one that runs everywhere is taken.
        let mut own: Vec<(Candidate, Option<u32>)> = Vec::new();
        for d in index.manifests() {
            let name = exported_name(d).or_else(|| index::name_of(d)).or(outer);
            match d.media_type().to_string().as_str() {
                "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                    let inner: ImageIndex = self.document(d, "index")?;
                    self.flatten(&inner, name, depth + 1, out)?;
                }
                "application/vnd.oci.image.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v2+json"
                    if !d.platform().as_ref().is_some_and(is_foreign) =>
                {
                    let candidate = Candidate {
                        name: name.map(str::to_owned),
                        manifest: d.clone(),
                    };
                    let level = d.platform().as_ref().map(level);
                    match own
                        .iter_mut()
                        .find(|(c, l)| l.is_some() && level.is_some() && c.name == candidate.name)
                    {
                        Some(other) if level < other.1 => *other = (candidate, level),
                        Some(_) => {}
                        None => own.push((candidate, level)),
                    }
                }
                _ => out.foreign.extend(d.platform().as_ref().and_then(foreign)),
            }
        }
        out.own.extend(own.into_iter().map(|(candidate, _)| candidate));
        Ok(())
    }
}

fn exported_name(d: &Descriptor) -> Option<&str> {
    d.annotations().as_ref()?.get(EXPORTED_NAME).map(String::as_str)
}

/// Attestations say that they are for `unknown/unknown`.
fn is_foreign(p: &Platform) -> bool {
    *p.os() != Os::Linux || *p.architecture() != Arch::default()
}

/// What it is called, if there is such a machine and it is another.
fn foreign(p: &Platform) -> Option<String> {
    let name = format!("{}/{}", p.os(), p.architecture());
    (is_foreign(p) && name != "unknown/unknown").then(|| name.escape_debug().to_string())
}

/// How much a variant asks of the processor: 1 for none or `v1`, 3 for `v3`.
fn level(p: &Platform) -> u32 {
    let digits = p.variant().as_deref().and_then(|v| v.strip_prefix('v'));
    digits.and_then(|d| d.parse().ok()).unwrap_or(1)
}
