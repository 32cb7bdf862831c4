//! The layer of a recipe's packages: what an image with them has, and the base's layer has not.

use std::fs;
use std::path::Path;

use tar::EntryType;

use super::apart::apart;
use super::base::Base;
use super::layer::{Layer, entry, write_layer};
use super::normalise::normalise;
use super::record::{self, LayerRecord};
use super::tree::{Entries, Tree};
use super::trim::{Trim, is_entered};
use super::{BuildError, BuildEvent, Job, rules};
use crate::digest::Digest;
use crate::recipe::Debian;
use crate::store::canonical_json;

/// OCI image spec, layer.md: what is not there any more.
const WHITEOUT: &[u8] = b".wh.";

impl Job<'_> {
    /// True if the image has more, or less, of Debian than the base's layer.
    pub(super) fn has_role(&self, debian: &Debian) -> bool {
        !(debian.packages.is_empty() && self.recipe.trim.is_empty() && self.recipe.keep.is_empty())
    }

    /// The layer as an earlier build made it on this base, and what is in it.
    pub(super) fn known_role(
        &self,
        debian: &Debian,
        base: &Base,
    ) -> Result<Option<(Layer, Entries)>, BuildError> {
        let path = self.cache()?.join("layers").join(self.role_key(debian, base));
        let Some(known) = record::load::<LayerRecord>(&path) else {
            return Ok(None);
        };
        let found = known.take(self.scratch.path(), |blob| self.store.blob_path(blob));
        found.map_err(self.io("read the layer of packages"))
    }

    /// Makes the layer.
    pub(super) fn role(
        &self,
        debian: &Debian,
        base: &Base,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<(Layer, Entries), BuildError> {
        let packages = &debian.packages;
        progress(BuildEvent::Step(format!(
            "installing {} packages of Debian {}",
            packages.len(),
            debian.suite
        )));
        let dir = self.scratch.path().join("role");
        let (layer, entries) = apart(progress, |log| {
            if packages.is_empty() {
                return self.difference(base, &base.root(), None, debian);
            }
            let installed = self.install(&base.root(), &dir, packages, log)?;
            self.difference(base, &installed.merged(), Some(&installed.upper()), debian)
        })
        .map_err(self.io("run apart from this machine"))??;
        // What is gone is not written to the disk when the layers are synced.
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
        .map_err(self.io("remove what was installed"))?;
        self.remember(&self.role_key(debian, base), &layer)
            .map_err(self.io("remember the layer of packages"))?;
        Ok((layer, entries))
    }

    fn difference(
        &self,
        base: &Base,
        root: &Path,
        upper: Option<&Path>,
        debian: &Debian,
    ) -> Result<(Layer, Entries), BuildError> {
        let write = || {
            let tree = Tree::read(root, self.store.limits(), is_entered)?;
            let trim = Trim {
                more: &self.recipe.trim,
                keep: &self.recipe.keep,
            };
            let image = normalise(tree.entries.clone(), &trim);
            let changed = |path: &[u8]| {
                use std::os::unix::ffi::OsStrExt;
                let name = std::ffi::OsStr::from_bytes(path);
                upper.is_some_and(|upper| fs::symlink_metadata(upper.join(name)).is_ok())
            };
            let entries = over(&base.entries, &image, changed);
            let what = match debian.packages.is_empty() {
                true => "less, or more, of the base".to_owned(),
                false => debian.packages.join(" "),
            };
            Ok((write_layer(self.scratch.path(), &entries, &tree, what)?, entries))
        };
        write().map_err(self.io("write the layer of packages"))
    }

    fn role_key(&self, debian: &Debian, base: &Base) -> String {
        let recipe = (&debian.packages, &self.recipe.trim, &self.recipe.keep);
        let base = (base.tree(), base.layer.digest.to_string());
        Digest::of(&canonical_json(&(rules(), base, recipe)))
            .hex()
            .to_owned()
    }

    /// The layer's file itself is the store's; records of those that are gone go too.
    fn remember(&self, key: &str, layer: &Layer) -> std::io::Result<()> {
        let dir = self.store.dir().join("cache/layers");
        fs::create_dir_all(&dir)?;
        for found in fs::read_dir(&dir)? {
            let path = found?.path();
            let known = record::load::<LayerRecord>(&path).and_then(|known| known.digest());
            if known.is_none_or(|digest| !self.store.blob_path(&digest).exists()) {
                // Who else builds may have been faster.
                let _ = fs::remove_file(&path);
            }
        }
        record::save(&dir.join(key), self.scratch.path(), &LayerRecord::of(layer))
    }
}

/// What must lie over `base` to give `image`: the root, all that `base` lacks or that `changed`, whiteouts for what goes, and the
/// folders of all these.
fn over(base: &Entries, image: &Entries, changed: impl Fn(&[u8]) -> bool) -> Entries {
    let root = entry(b"", EntryType::Directory, 0o755, 0);
    let mut layer = Entries::from([(Vec::new(), image.get(&b""[..]).cloned().unwrap_or(root))]);
    let with_parents = |layer: &mut Entries, path: &[u8]| {
        for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            layer.extend(
                image
                    .get(&path[..at])
                    .map(|meta| (meta.path.clone(), meta.clone())),
            );
        }
    };
    for (path, meta) in image {
        if !base.contains_key(path) || (changed(path) && !path.is_empty()) {
            with_parents(&mut layer, path);
            layer.insert(path.clone(), meta.clone());
        }
    }
    for path in base.keys().filter(|path| !image.contains_key(*path)) {
        let (parent, name) = split(path);
        // With its folder it goes anyhow.
        if image
            .get(parent)
            .is_some_and(|meta| meta.kind == EntryType::Directory)
        {
            let mut hidden = parent.to_vec();
            if !hidden.is_empty() {
                hidden.push(b'/');
            }
            hidden.extend(WHITEOUT);
            hidden.extend(name);
            with_parents(&mut layer, &hidden);
            layer.insert(hidden.clone(), entry(&hidden, EntryType::Regular, 0o644, 0));
        }
    }
    layer
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// What is to be seen when `layer` lies over `below`.
pub(super) fn stacked(mut below: Entries, layer: &Entries) -> Entries {
    for (path, meta) in layer {
        let (parent, name) = split(path);
        let hidden = name.strip_prefix(WHITEOUT).map(|name| {
            let mut hidden = parent.to_vec();
            if !hidden.is_empty() {
                hidden.push(b'/');
            }
            hidden.extend(name);
            hidden
        });
        if hidden.is_some() || meta.kind != EntryType::Directory {
            let top = hidden.as_ref().unwrap_or(path);
            let inside = [top.as_slice(), b"/"].concat();
            below.retain(|other, _| other != top && !other.starts_with(&inside));
        }
        if hidden.is_none() {
            below.insert(path.clone(), meta.clone());
        }
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Entries {
        let one = |path: &&str| {
            let (path, kind) = match path.strip_suffix('/') {
                Some(folder) => (folder, EntryType::Directory),
                None => (*path, EntryType::Regular),
            };
            (path.as_bytes().to_vec(), entry(path.as_bytes(), kind, 0o755, 1))
        };
        paths.iter().map(one).collect()
    }

    fn names(entries: &Entries) -> Vec<&str> {
        entries
            .keys()
            .map(|path| std::str::from_utf8(path).unwrap())
            .collect()
    }

    #[test]
    fn a_layer_has_what_the_base_lacks_and_hides_what_goes() {
        let base = entries(&[
            "/",
            "etc/",
            "etc/a",
            "etc/old/",
            "etc/old/x",
            "usr/",
            "usr/b",
            "was/",
            "was/x",
        ]);
        let image = entries(&[
            "/",
            "etc/",
            "etc/a",
            "etc/new/",
            "etc/new/y",
            "usr/",
            "usr/b",
            "was",
        ]);
        let layer = over(&base, &image, |path| [&b"usr/b"[..], b"was"].contains(&path));
        assert_eq!(
            names(&layer),
            [
                "",
                "etc",
                "etc/.wh.old",
                "etc/new",
                "etc/new/y",
                "usr",
                "usr/b",
                "was"
            ]
        );
        assert_eq!(names(&stacked(base, &layer)), names(&image));
    }

    #[test]
    fn nothing_changed_is_the_root_alone() {
        let base = entries(&["/", "etc/", "etc/a"]);
        assert_eq!(names(&over(&base, &base, |_| false)), [""]);
    }
}
