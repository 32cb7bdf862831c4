//! Why a build failed.

use std::io;
use std::path::PathBuf;

use crate::recipe::RecipeError;
use crate::store::StoreError;
use crate::store::admit::StartError;

/// A build failed; the store's images are as they were.
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
        "cannot build image {image}: mmdebstrap for {suite} ended with {status}; its last lines:\n{tail}\ncheck the suite's name and that apt reaches its mirror"
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
    /// apt failed in the image.
    #[error(
        "cannot build image {image}: apt-get install {packages} ended with {status}; its last lines:\n{tail}\ncheck the packages' names and that apt reaches its mirror"
    )]
    Install {
        /// The image.
        image: String,
        /// What was to be installed.
        packages: String,
        /// Exit status.
        status: String,
        /// The last lines of its log.
        tail: String,
    },
    /// The cached base was found damaged, or was made anew by somebody else, again and again.
    #[error("cannot build image {image}: its base does not stay as it was written to {dir}; check the disk")]
    Base {
        /// The image.
        image: String,
        /// Where bases are kept.
        dir: PathBuf,
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
