//! Image recipes: what they say, and whether it makes sense.

mod check;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_saphyr::Location;

use crate::digest::Digest;
use crate::reference::ImageName;

use check::{Check, RawRecipe};

/// Largest recipe, in bytes.
const RECIPE_LIMIT_BYTES: u64 = 1 << 20;

/// A recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The recipe, or a file that it names, cannot be read.
    #[error(
        "cannot read {path} for the recipe {recipe}; check the path: it must lie in the recipe's folder or below, or, if it is a program or a library, beside `gantry` (`cargo build --workspace` puts it there)"
    )]
    Read {
        /// The recipe.
        recipe: PathBuf,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Lines `file:line:column: what`.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

/// One thing wrong in a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The recipe.
    pub file: PathBuf,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file.display(),
            self.line,
            self.column,
            self.message
        )
    }
}

/// A checked recipe, its source files read.
#[derive(Clone, Debug, Serialize)]
pub struct Recipe {
    /// `name:tag`.
    #[serde(serialize_with = "as_text")]
    pub name: ImageName,
    /// Debian release and packages, if any.
    pub debian: Option<Debian>,
    /// Files of the upper layer, sorted by path.
    pub files: Vec<RecipeFile>,
    /// Absolute paths that the image does not have, besides those that no image has. A `*` stands for any part of a name.
    pub trim: Vec<String>,
    /// Absolute paths that the image has although images usually do not.
    pub keep: Vec<String>,
    /// How the image is run.
    pub config: RecipeConfig,
}

/// A Debian base.
#[derive(Clone, Debug, Serialize)]
pub struct Debian {
    /// Release name, such as `bookworm`.
    pub suite: String,
    /// mmdebstrap variant.
    pub variant: String,
    /// Packages, sorted.
    pub packages: Vec<String>,
}

/// A file of the image.
#[derive(Clone, Debug, Serialize)]
pub struct RecipeFile {
    /// Absolute path in the image.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Digest of `content`, which the recipe's hash takes instead.
    pub digest: String,
    /// The content.
    #[serde(skip)]
    pub content: Vec<u8>,
}

/// The runtime part; see [`crate::ImageConfig`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RecipeConfig {
    /// Command prefix.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// User, see the OCI image spec.
    pub user: String,
    /// Absolute, or empty.
    pub working_dir: String,
    /// Such as `SIGTERM`, or empty.
    pub stop_signal: String,
}

fn as_text<S: serde::Serializer>(name: &ImageName, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(name.as_str())
}

impl Recipe {
    /// Reads and checks the recipe at `path`, the files that it names, and the programs, which are in `programs`.
    pub fn load(path: &Path, programs: &Path) -> Result<Self, RecipeError> {
        let fail = |source| RecipeError::Read {
            recipe: path.to_owned(),
            path: path.to_owned(),
            source,
        };
        let bytes = crate::store::read_bounded(path, RECIPE_LIMIT_BYTES).map_err(fail)?;
        let text = String::from_utf8(bytes).map_err(|e| fail(std::io::Error::other(e)))?;
        Self::from_text(&text, path, programs)
    }

    /// Checks a recipe that somebody else has read from `path`, and reads the files that it names: they lie in its folder or below,
    /// programs in `programs`.
    pub fn from_text(text: &str, path: &Path, programs: &Path) -> Result<Self, RecipeError> {
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        Self::parse(text, path, folder, programs)
    }

    fn parse(text: &str, path: &Path, folder: &Path, programs: &Path) -> Result<Self, RecipeError> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let raw: RawRecipe = serde_saphyr::from_str_with_options(text, options).map_err(|e| {
            let at = e.location().unwrap_or(Location::UNKNOWN);
            // The location is printed in front, not again at the end.
            let message = e.without_snippet().render();
            let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
            let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
            RecipeError::Invalid(vec![Problem {
                file: path.to_owned(),
                line: at.line(),
                column: at.column(),
                message,
            }])
        })?;
        let mut check = Check {
            file: path,
            folder,
            programs,
            problems: Vec::new(),
        };
        let recipe = check.recipe(&raw)?;
        match recipe {
            Some(recipe) if check.problems.is_empty() => Ok(recipe),
            _ => Err(RecipeError::Invalid(check.problems)),
        }
    }

    /// Changes whenever what the recipe says, a file it brings, or the way images are built changes. Not when Debian
    /// publishes newer packages.
    pub fn hash(&self) -> String {
        let json = crate::store::canonical_json(&(crate::build::rules(), self));
        Digest::of(&json).hex().to_owned()
    }
}

#[cfg(test)]
mod tests;
