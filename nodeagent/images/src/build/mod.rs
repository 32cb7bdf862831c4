//! Builds an image from a recipe. The same recipe and the same package versions give the same digest.
//!
//! Up to three layers: the base, which all images of one Debian release share (`base.rs`); the packages (`role.rs`); the files
//! (`files.rs`).

mod apart;
mod base;
mod debian;
mod documents;
mod error;
mod files;
mod install;
mod layer;
mod normalise;
mod record;
mod role;
mod tree;
mod trim;
mod volatile;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::recipe::{Debian, Recipe};
use crate::store::{ImageStore, ImageSummary, Scratch, StoreError};

use base::Base;
pub use error::BuildError;
use layer::Layer;
use tree::Entries;

/// Raised when the same recipe is to give another image.
const FORMAT_VERSION: u32 = 2;
/// The time of everything in an image: 2000-01-01T00:00:00Z, in seconds since 1970.
const EPOCH_S: u64 = 946_684_800;
/// apt, of a package that its lists have and its mirror has no more.
const NOT_THERE: &str = "Failed to fetch";

/// What every image depends on besides its recipe: part of a recipe's hash, and of what is kept of a build.
pub(crate) fn rules() -> (u32, &'static [&'static str]) {
    (FORMAT_VERSION, &trim::USUAL)
}

/// How to build.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Builds although an image of the same recipe exists. Needed to take newer Debian packages.
    pub no_cache: bool,
    /// With `no_cache`: a base made later than this is new enough. Who builds several images says when they began, so that one base
    /// is made for all.
    pub since: Option<SystemTime>,
    /// Where the programs and shared objects are that recipes name.
    pub programs: PathBuf,
}

/// Progress of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// A new step, in words.
    Step(String),
    /// A line of a tool's log.
    Log(String),
}

/// What a build came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildOutcome {
    /// The store has an image of exactly this recipe.
    UpToDate(ImageSummary),
    /// Built now.
    Built(ImageSummary),
}

impl BuildOutcome {
    /// The image.
    pub fn summary(&self) -> &ImageSummary {
        match self {
            Self::UpToDate(s) | Self::Built(s) => s,
        }
    }
}

/// One build.
struct Job<'a> {
    store: &'a ImageStore,
    recipe: &'a Recipe,
    scratch: &'a Scratch,
}

impl Job<'_> {
    fn io(&self, operation: &'static str) -> impl FnOnce(io::Error) -> BuildError {
        let (image, dir) = (self.recipe.name.to_string(), self.scratch.path().to_owned());
        move |source| BuildError::Io {
            image,
            operation,
            dir,
            source,
        }
    }
}

/// Builds the recipe at `recipe_path` into `store` under the recipe's name. Root and mmdebstrap are needed only for
/// recipes with a Debian base.
pub fn build(
    recipe_path: &Path,
    store: &ImageStore,
    options: &BuildOptions,
    progress: &mut dyn FnMut(BuildEvent),
) -> Result<BuildOutcome, BuildError> {
    let recipe = Recipe::load(recipe_path, &options.programs)?;
    let hash = recipe.hash();
    let find = || -> Result<Option<ImageSummary>, StoreError> {
        Ok(store.list_named(|name| name == Some(recipe.name.as_str()))?.pop())
    };
    // One with damaged documents is as good as none.
    if !options.no_cache
        && store.resolve(recipe.name.as_str()).is_ok()
        && let Some(found) = find()?.filter(|s| s.recipe_hash.as_deref() == Some(hash.as_str()))
    {
        return Ok(BuildOutcome::UpToDate(found));
    }
    let scratch = store.scratch()?;
    let job = Job {
        store,
        recipe: &recipe,
        scratch: &scratch,
    };
    let layers = job.layers(options, progress)?;
    progress(BuildEvent::Step("writing the image".to_owned()));
    let image = job.documents(&layers, hash)?;
    store.check_start(&scratch, &image.image)?;
    store.commit(&scratch, &[image])?;
    let built = find()?.ok_or_else(|| StoreError::NotFound {
        reference: recipe.name.to_string(),
        store: store.dir().to_owned(),
    })?;
    Ok(BuildOutcome::Built(built))
}

impl Job<'_> {
    /// The base's layer, the packages', the files': each only if there is something for it.
    fn layers(
        &self,
        options: &BuildOptions,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<Vec<Layer>, BuildError> {
        let mut layers = Vec::new();
        let mut below = Entries::new();
        if let Some(debian) = &self.recipe.debian {
            let (base, role) = self.debian_layers(debian, options, progress)?;
            layers.push(base.layer.clone());
            below = base.entries.clone();
            if let Some((layer, entries)) = role {
                layers.push(layer);
                below = role::stacked(below, &entries);
            }
        }
        if !self.recipe.files.is_empty() {
            progress(BuildEvent::Step(format!(
                "adding {} files",
                self.recipe.files.len()
            )));
            layers.push(self.files_layer(&below)?);
        }
        Ok(layers)
    }

    fn debian_layers(
        &self,
        debian: &Debian,
        options: &BuildOptions,
        progress: &mut dyn FnMut(BuildEvent),
    ) -> Result<(Base, Option<(Layer, Entries)>), BuildError> {
        let image = self.recipe.name.to_string();
        if !rustix::process::geteuid().is_root() {
            return Err(BuildError::NotRoot { image });
        }
        let now_ms = base::now_ms();
        let since_ms = match options.no_cache {
            true => options.since.map_or(now_ms, base::as_ms),
            false => 0,
        };
        let base = self.base(debian, since_ms, false, progress)?;
        if !self.has_role(debian) {
            return Ok((base, None));
        }
        if !options.no_cache
            && let Some(role) = self.known_role(debian, &base)?
        {
            return Ok((base, Some(role)));
        }
        // Who holds one base could not make another.
        drop(base);
        let base = self.base(debian, since_ms, true, progress)?;
        match self.role(debian, &base, progress) {
            Err(BuildError::Install { tail, .. }) if base.made_ms() < now_ms && tail.contains(NOT_THERE) => {}
            other => return Ok((base, Some(other?))),
        }
        // The mirrors have other packages by now.
        drop(base);
        std::fs::remove_dir_all(self.scratch.path().join("role"))
            .map_err(self.io("remove what was installed"))?;
        let base = self.base(debian, now_ms, true, progress)?;
        let role = self.role(debian, &base, progress)?;
        Ok((base, Some(role)))
    }
}
