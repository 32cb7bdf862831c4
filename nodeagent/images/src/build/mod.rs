//! Builds an image from a recipe. The same recipe and the same package versions give the same digest.

mod debian;
mod files;
mod layer;
mod normalise;

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder,
};

use crate::digest::Digest;
use crate::recipe::{Recipe, RecipeConfig, RecipeError};
use crate::store::admit::StartError;
use crate::store::{Image, ImageStore, ImageSummary, NewImage, Scratch, StoreError, canonical_json};

use layer::Layer;

/// Part of a recipe's hash: raised when the same recipe is to give another image.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The time of everything in an image: 2000-01-01T00:00:00Z, in seconds since 1970.
const EPOCH_S: u64 = 946_684_800;
const CREATED: &str = "2000-01-01T00:00:00Z";

/// A build failed; the store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was built could not be started.
    #[error(transparent)]
    CannotStart(#[from] StartError),
    /// mmdebstrap is not there.
    #[error(
        "cannot build image {image}: mmdebstrap is not installed; run `apt-get install mmdebstrap` as root"
    )]
    NoMmdebstrap {
        /// The image.
        image: String,
    },
    /// Package installation needs root.
    #[error(
        "cannot build image {image} as an ordinary user: it installs Debian packages; run as root (sudo)"
    )]
    NotRoot {
        /// The image.
        image: String,
    },
    /// mmdebstrap failed.
    #[error(
        "cannot build image {image}: mmdebstrap for {suite} ended with {status}; its last lines:\n{tail}\ncheck the package names and that apt reaches its mirror"
    )]
    Mmdebstrap {
        /// The image.
        image: String,
        /// The release.
        suite: String,
        /// Exit status.
        status: String,
        /// The last lines of its log.
        tail: String,
    },
    /// A file of the recipe cannot be where it is wanted.
    #[error("cannot build image {image}: file {path}: {why}; choose another path")]
    File {
        /// The image.
        image: String,
        /// The path in the image.
        path: String,
        /// Why not.
        why: &'static str,
    },
    /// A file operation failed.
    #[error("cannot build image {image}: cannot {operation}; check free space in {dir}")]
    Io {
        /// The image.
        image: String,
        /// What was tried.
        operation: &'static str,
        /// The work folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How to build.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Builds although an image of the same recipe exists. Needed to take newer Debian packages.
    pub no_cache: bool,
    /// Where the programs are that recipes name.
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
        recipe: &recipe,
        scratch: &scratch,
    };
    let layers = job.layers(progress)?;
    progress(BuildEvent::Step("writing the image".to_owned()));
    let image = job.documents(&layers, hash, store)?;
    store.check_start(&scratch, &image.image)?;
    store.commit(&scratch, &[image])?;
    let built = find()?.ok_or_else(|| StoreError::NotFound {
        reference: recipe.name.to_string(),
        store: store.dir().to_owned(),
    })?;
    Ok(BuildOutcome::Built(built))
}

impl Job<'_> {
    fn layers(&self, progress: &mut dyn FnMut(BuildEvent)) -> Result<Vec<Layer>, BuildError> {
        let mut layers = Vec::new();
        let mut base = normalise::Base::default();
        if let Some(debian) = &self.recipe.debian {
            progress(BuildEvent::Step(format!(
                "installing {} packages of Debian {} (mmdebstrap)",
                debian.packages.len(),
                debian.suite
            )));
            let tar = self.bootstrap(debian, progress)?;
            progress(BuildEvent::Step(
                "normalising and compressing the base layer".to_owned(),
            ));
            let (layer, found) = self.normalise(&tar).map_err(self.io("write the base layer"))?;
            std::fs::remove_file(&tar).map_err(self.io("remove the base archive"))?;
            layers.push(layer);
            base = found;
        }
        if !self.recipe.files.is_empty() {
            progress(BuildEvent::Step(format!(
                "adding {} files",
                self.recipe.files.len()
            )));
            layers.push(self.files_layer(&base)?);
        }
        Ok(layers)
    }

    /// Writes config and manifest next to the layers.
    fn documents(
        &self,
        layers: &[Layer],
        recipe_hash: String,
        store: &ImageStore,
    ) -> Result<NewImage, BuildError> {
        let oci_config = oci_config(&self.recipe.config, layers);
        let config = canonical_json(&oci_config);
        let config_digest = self.store_document(&config)?;
        let descriptors: Vec<Descriptor> = layers
            .iter()
            .map(|l| Descriptor::new(MediaType::ImageLayerZstd, l.size_bytes, oci_digest(&l.digest)))
            .collect();
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(Descriptor::new(
                MediaType::ImageConfig,
                config.len() as u64,
                oci_digest(&config_digest),
            ))
            .layers(descriptors)
            .build()
            .expect("all required fields are set");
        let document = canonical_json(&manifest);
        let digest = self.store_document(&document)?;
        let mut blobs: Vec<Digest> = layers.iter().map(|l| l.digest.clone()).collect();
        blobs.extend([config_digest, digest.clone()]);
        let name = self.recipe.name.to_string();
        let image = Image::of(Some(name.clone()), digest, &manifest, oci_config, store.limits());
        Ok(NewImage {
            name: self.recipe.name.clone(),
            image: image.map_err(|why| StoreError::Invalid {
                what: "recipe",
                image: name,
                why,
            })?,
            size_bytes: document.len() as u64,
            blobs,
            recipe_hash: Some(recipe_hash),
        })
    }

    fn store_document(&self, bytes: &[u8]) -> Result<Digest, BuildError> {
        let digest = Digest::of(bytes);
        let write = || -> io::Result<()> {
            let mut file = std::fs::File::create(self.scratch.path().join(digest.hex()))?;
            io::Write::write_all(&mut file, bytes)?;
            file.sync_all()
        };
        write().map_err(self.io("write a document of the image"))?;
        Ok(digest)
    }
}

fn oci_digest(digest: &Digest) -> oci_spec::image::Digest {
    digest
        .to_string()
        .parse()
        .expect("a sha256 digest is an OCI digest")
}

fn oci_config(c: &RecipeConfig, layers: &[Layer]) -> ImageConfiguration {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let mut run = ConfigBuilder::default().build().expect("no field is required");
    run.set_entrypoint(some(&c.entrypoint));
    run.set_cmd(some(&c.cmd));
    run.set_env(some(&c.env));
    run.set_user(text(&c.user));
    run.set_working_dir(text(&c.working_dir));
    run.set_stop_signal(text(&c.stop_signal));
    let diff_ids: Vec<String> = layers.iter().map(|l| l.diff_id.to_string()).collect();
    let history: Vec<_> = layers
        .iter()
        .map(|l| {
            let row = HistoryBuilder::default()
                .created(CREATED)
                .created_by(format!("gantry image build: {}", l.what));
            row.build().expect("no field is required")
        })
        .collect();
    ImageConfigurationBuilder::default()
        .created(CREATED)
        .architecture(Arch::default())
        .os(Os::Linux)
        .config(run)
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids(diff_ids)
                .build()
                .expect("both are set"),
        )
        .history(history)
        .build()
        .expect("all required fields are set")
}
