//! The base that recipes share: a Debian bootstrapped once for a store, and kept.
//!
//! ```text
//! DIR/cache/base-<suite>-<variant>/root/        all of it, lists of packages too: what roles are installed on
//! DIR/cache/base-<suite>-<variant>/layer        what images have of it
//! DIR/cache/base-<suite>-<variant>/record.json  of what it was made, and what it was then
//! DIR/cache/base-<suite>-<variant>.lock         shared by who uses it, exclusive for who makes it
//! ```
//!
//! It is moved there complete, and believed only as far as it still is what its record says.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::debian::sources;
use super::layer::{Layer, write_layer};
use super::normalise::normalise;
use super::record::{self, LayerRecord};
use super::tree::{Entries, Tree};
use super::trim::Trim;
use super::{BuildError, BuildEvent, Job, rules};
use crate::digest::Digest;
use crate::recipe::Debian;
use crate::store::{canonical_json, sync_dir};

/// How often it is made, or found to be made by somebody else, before that is an error.
const TRIES: usize = 3;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Record {
    /// Of what it was made.
    key: String,
    made_ms: u64,
    /// Digest of the tree.
    tree: String,
    layer: LayerRecord,
}

/// A base that stays while this is held.
pub(super) struct Base {
    /// Its folder.
    dir: PathBuf,
    record: Record,
    /// What images have of it; its file is in the scratch folder.
    pub layer: Layer,
    /// What is in that.
    pub entries: Entries,
    _lock: File,
}

impl Base {
    /// All of it.
    pub(super) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// When it was made, in milliseconds since 1970.
    pub(super) fn made_ms(&self) -> u64 {
        self.record.made_ms
    }

    /// Digest of all of it: what is installed on it depends on that.
    pub(super) fn tree(&self) -> &str {
        &self.record.tree
    }
}

impl Job<'_> {
    /// Where this store's bases and records are.
    pub(super) fn cache(&self) -> Result<PathBuf, BuildError> {
        let dir = self.store.dir().join("cache");
        fs::create_dir_all(&dir).map_err(self.io("make the folder of the cache"))?;
        Ok(dir)
    }

    /// The base, bootstrapped if there is none of these mirrors made after `since_ms`. With `whole` its tree is checked too: that
    /// takes half a second, and only who installs on it needs it.
    pub(super) fn base(
        &self,
        debian: &Debian,
        since_ms: u64,
        whole: bool,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<Base, BuildError> {
        let cache = self.cache()?;
        let name = format!("base-{}-{}", debian.suite, debian.variant);
        let dir = cache.join(&name);
        let key = key(debian).map_err(self.io("read apt's sources"))?;
        for _ in 0..TRIES {
            let lock = self.base_lock(&cache, &name)?;
            lock.lock_shared().map_err(self.io("lock the base"))?;
            let refused = load(&dir).map(|record| record.made_ms);
            let found = self.trusted(&dir, &key, since_ms, lock, whole);
            if let Some(base) = found.map_err(self.io("read the base"))? {
                return Ok(base);
            }
            let lock = self.base_lock(&cache, &name)?;
            lock.lock().map_err(self.io("lock the base"))?;
            // Who had the lock before may have made another.
            if load(&dir).map(|record| record.made_ms) == refused {
                self.make_base(debian, &key, &dir, progress)?;
            }
        }
        Err(BuildError::Base {
            image: self.recipe.name.to_string(),
            dir: cache,
        })
    }

    fn base_lock(&self, cache: &Path, name: &str) -> Result<File, BuildError> {
        let path = cache.join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        file.map_err(self.io("open the lock of the base"))
    }

    fn trusted(
        &self,
        dir: &Path,
        key: &str,
        since_ms: u64,
        lock: File,
        whole: bool,
    ) -> io::Result<Option<Base>> {
        let Some(record) = load(dir).filter(|r| r.key == key && r.made_ms > since_ms) else {
            return Ok(None);
        };
        let Some((layer, entries)) = record.layer.take(self.scratch.path(), |_| dir.join("layer"))? else {
            return Ok(None);
        };
        if whole {
            let tree = self.read_tree(&dir.join("root")).and_then(|tree| tree.digest());
            // One that cannot be read is as good as none.
            if tree.ok().is_none_or(|digest| digest.to_string() != record.tree) {
                return Ok(None);
            }
        }
        Ok(Some(Base {
            dir: dir.to_owned(),
            record,
            layer,
            entries,
            _lock: lock,
        }))
    }

    fn read_tree(&self, root: &Path) -> io::Result<Tree> {
        Tree::read(root, self.store.limits(), |_| true)
    }

    /// The caller holds the base's lock.
    fn make_base(
        &self,
        debian: &Debian,
        key: &str,
        to: &Path,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<(), BuildError> {
        let step = format!(
            "bootstrapping Debian {} (mmdebstrap), once for all recipes",
            debian.suite
        );
        progress(BuildEvent::Step(step));
        let new = self.scratch.path().join("base");
        fs::create_dir(&new).map_err(self.io("make the folder of the base"))?;
        self.bootstrap(debian, &new.join("root"), progress)?;
        progress(BuildEvent::Step("compressing the base layer".to_owned()));
        let finish = || {
            let tree = self.read_tree(&new.join("root"))?;
            let entries = normalise(tree.entries.clone(), &Trim::default());
            let what = format!("Debian {} ({})", debian.suite, debian.variant);
            let layer = write_layer(&new, &entries, &tree, what)?;
            fs::rename(new.join(layer.digest.hex()), new.join("layer"))?;
            let record = Record {
                key: key.to_owned(),
                made_ms: now_ms(),
                tree: tree.digest()?.to_string(),
                layer: LayerRecord::of(&layer),
            };
            record::save(&new.join("record.json"), &new, &record)?;
            // A crash leaves the record before all that it speaks of: then it is made again.
            match fs::rename(to, self.scratch.path().join(format!("old-{}", record.made_ms))) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => fs::rename(&new, to),
            }
        };
        finish().map_err(self.io("write the base"))?;
        Ok(sync_dir(to.parent().unwrap_or(to))?)
    }
}

fn load(dir: &Path) -> Option<Record> {
    record::load(&dir.join("record.json"))
}

/// What a base is made of.
fn key(debian: &Debian) -> io::Result<String> {
    let sources = sources(&debian.suite);
    let sources: Vec<String> = sources
        .iter()
        .map(fs::read_to_string)
        .collect::<io::Result<_>>()?;
    let of = (
        rules(),
        &debian.suite,
        &debian.variant,
        std::env::consts::ARCH,
        sources,
    );
    Ok(Digest::of(&canonical_json(&of)).hex().to_owned())
}

/// Milliseconds since 1970.
pub(super) fn as_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn now_ms() -> u64 {
    as_ms(SystemTime::now())
}
