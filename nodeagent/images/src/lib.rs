//! Container images without a registry: an OCI layout store on disk, layers unpacked for overlayfs,
//! root file systems mounted from them, and images built reproducibly from recipes.
//!
//! Blocking and without global state. Several processes may use one store at the same time.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod archive;
mod beneath;
pub mod build;
pub mod config;
pub mod digest;
pub mod idmap;
pub mod inside;
pub mod limits;
pub mod recipe;
pub mod reference;
mod remove;
pub mod rootfs;
mod signal;
mod space;
pub mod store;
pub mod unpack;
pub mod user;
mod walk;

pub use beneath::open_beneath;
pub use build::{BuildError, BuildEvent, BuildOptions, BuildOutcome, build};
pub use config::ImageConfig;
pub use digest::Digest;
pub use limits::Limits;
pub use recipe::{Recipe, RecipeError};
pub use reference::{ImageName, Reference, ReferenceError};
pub use remove::remove_tree;
pub use rootfs::{Rootfs, RootfsError};
pub use signal::signal_number;
pub use store::admit::StartError;
pub use store::import::ImportError;
pub use store::{GcReport, Image, ImageStore, ImageSummary, StoreError};
pub use unpack::{UnpackError, UnpackedImage};
pub use user::{Asked, MAX_ID, ResolvedUser, UserError, resolve_user};
