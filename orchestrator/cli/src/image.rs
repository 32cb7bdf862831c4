//! `gantry image`: the image store of this machine.

use std::env;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use gantry_images::{BuildEvent, BuildOptions, BuildOutcome, ImageStore, ImageSummary};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::args::{Global, ImageCommand, Output};
use crate::catalog;
use crate::guard;
use crate::output::{self, Progress};

/// `gantry image ...`.
pub fn run(command: &ImageCommand, global: &Global) -> Result<()> {
    let store = open(global)?;
    match command {
        ImageCommand::Build { recipes, no_cache } => build(&store, recipes, *no_cache, global.output),
        ImageCommand::Ls => list(&store, global.output),
        ImageCommand::Import { path, name } => {
            let images = store.import_layout(path, name.as_deref())?;
            tell(global.output, "imported", &images)
        }
        ImageCommand::Rm { images } => {
            for image in images {
                store.remove(image)?;
            }
            output::print(global.output, &json!({"removed": images}), || {
                images.iter().map(|image| format!("removed {image}\n")).collect()
            })
        }
        ImageCommand::Inspect { image } => inspect(&store, image, global.output),
    }
}

fn open(global: &Global) -> Result<ImageStore> {
    let data_dir = global.data_dir();
    data_dir.create()?;
    Ok(ImageStore::open_with(&data_dir.images(), guard::image_limits())?)
}

/// Where programs are that go into images: beside this one.
pub fn programs() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find out where this program is")?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
}

fn build(store: &ImageStore, recipes: &[String], no_cache: bool, output: Output) -> Result<()> {
    let options = BuildOptions {
        no_cache,
        since: Some(SystemTime::now()),
        programs: programs()?,
    };
    let mut ready = Vec::new();
    for recipe in recipes {
        let source = RecipeSource::find(recipe)?;
        let mut progress = Progress::new(&format!("{recipe}: reading the recipe"));
        let outcome = gantry_images::build(&source.path(), store, &options, &mut |event| {
            if let BuildEvent::Step(step) = event {
                progress.set(&format!("{recipe}: {step}"));
            }
        })?;
        drop(progress);
        let verb = if matches!(outcome, BuildOutcome::Built(_)) {
            "built"
        } else {
            "up to date:"
        };
        if matches!(output, Output::Text | Output::Wide) {
            output::write_out(&format!("{verb} {}\n", describe(outcome.summary())))?;
        }
        ready.push(as_json(outcome.summary()));
    }
    // A build takes minutes: people are told as it goes on, programs at the end.
    output::print(output, &ready, String::new)
}

fn tell(output: Output, verb: &str, images: &[ImageSummary]) -> Result<()> {
    let value: Vec<_> = images.iter().map(as_json).collect();
    output::print(output, &value, || {
        let lines = images.iter().map(|image| format!("{verb} {}\n", describe(image)));
        lines.collect()
    })
}

fn as_json(image: &ImageSummary) -> Value {
    json!({"name": image.name, "digest": image.digest.to_string(), "sizeBytes": image.size_bytes, "layers": image.layers})
}

/// A recipe file, or one of the built-in recipes in a directory of its own.
enum RecipeSource {
    File(PathBuf),
    BuiltIn { directory: TempDir, name: String },
}

impl RecipeSource {
    fn find(recipe: &str) -> Result<Self> {
        if Path::new(recipe).is_file() {
            return Ok(Self::File(recipe.into()));
        }
        let known = catalog::recipe_names();
        if !known.iter().any(|name| name == recipe) {
            bail!(
                "`{recipe}` is neither a file nor a recipe of the catalog; there are: {}",
                known.join(", ")
            );
        }
        // Only we may write there: what is built from it runs as root.
        let directory = tempfile::Builder::new()
            .prefix("gantry-recipe-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .context("cannot create a directory for the recipe")?;
        catalog::write_recipes(directory.path())?;
        Ok(Self::BuiltIn {
            directory,
            name: format!("{recipe}.yaml"),
        })
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::File(file) => file.clone(),
            Self::BuiltIn { directory, name } => directory.path().join(name),
        }
    }
}

fn list(store: &ImageStore, output: Output) -> Result<()> {
    let images = store.list()?;
    let value: Vec<_> = images.iter().map(as_json).collect();
    output::print(output, &value, || {
        output::table(
            ["NAME", "DIGEST", "SIZE", "LAYERS"],
            images.iter().map(|i| {
                let digest = i.digest.to_string();
                let digest = if output == Output::Wide {
                    digest
                } else {
                    digest.chars().take(19).collect()
                };
                [
                    i.name.clone().unwrap_or_else(|| "<none>".to_owned()),
                    digest,
                    megabytes(i.size_bytes),
                    i.layers.to_string(),
                ]
            }),
        )
    })
}

fn inspect(store: &ImageStore, name: &str, output: Output) -> Result<()> {
    let image = store.resolve(name)?;
    let output = if output == Output::Text {
        Output::Json
    } else {
        output
    };
    let value = json!({"name": image.name, "digest": image.digest.to_string(), "config": image.oci_config});
    output::print(output, &value, String::new)
}

/// Every image must be in the store of this machine before anything is deployed; elsewhere it is the nodes' business.
pub fn ensure_present<'a>(global: &Global, images: impl Iterator<Item = &'a str>) -> Result<()> {
    let data_dir = global.data_dir();
    let is_here = data_dir.images().is_dir() || matches!(data_dir.load_settings(), Ok(Some(_)));
    if !is_here || global.kubeconfig() != data_dir.kubeconfig() {
        return Ok(());
    }
    let store = open(global)?;
    let mut missing: Vec<&str> = images.filter(|image| store.resolve(image).is_err()).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let recipes: Vec<&str> = missing
        .iter()
        .map(|image| image.split(':').next().unwrap_or(image))
        .collect();
    bail!(
        "{} not in the image store {}; build with `gantry image build {}`, or `gantry image import` a layout",
        missing.join(" and "),
        store.dir().display(),
        recipes.join(" ")
    )
}

fn describe(image: &ImageSummary) -> String {
    let name = image.name.as_deref().unwrap_or("<none>");
    format!("{name} {} ({})", image.digest, megabytes(image.size_bytes))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_recipes_lie_where_nobody_else_writes() {
        let source = RecipeSource::find("sipp").unwrap();
        let file = source.path();
        let directory = file.parent().unwrap();
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(directory.join("metrics.sh").is_file());
        assert!(gantry_images::Recipe::load(&file, directory).is_ok());
        let directory = directory.to_owned();
        drop(source);
        assert!(!directory.exists());
    }
}
