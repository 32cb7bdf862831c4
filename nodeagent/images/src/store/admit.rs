//! Whether an image can be started, before it gets its name: what a start would find wrong is found here.

use super::{Image, ImageStore, Scratch};
use crate::config::{UserError, resolve_user_in_layers};
use crate::unpack::UnpackError;

/// An image that no container could be started from.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A layer.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Its user.
    #[error("image {image} could not be started")]
    User {
        /// The image.
        image: String,
        /// What is wrong with the user.
        #[source]
        source: UserError,
    },
    /// Another part of its configuration.
    #[error("image {image} could not be started: {why}; mend it where it is built")]
    Config {
        /// The image.
        image: String,
        /// What is wrong.
        why: String,
    },
}

impl ImageStore {
    /// Checks configuration and layers of an image whose blobs lie in `scratch`. Its layers are unpacked for good: the first
    /// start finds them done. Who is not root cannot unpack, and finds out at the first start.
    pub(crate) fn check_start(&self, scratch: &Scratch, image: &Image) -> Result<(), StartError> {
        if let Some(why) = image.config.problem() {
            let image = image.pinned();
            return Err(StartError::Config { image, why });
        }
        if !rustix::process::geteuid().is_root() {
            tracing::warn!(
                image = image.pinned(),
                "its layers are not checked: that needs root"
            );
            return Ok(());
        }
        let unpacked = self.unpack_from(image, &|blob| scratch.path().join(blob.hex()))?;
        let user = resolve_user_in_layers(&unpacked.lowerdirs, &image.config.user);
        user.map(drop).map_err(|source| StartError::User {
            image: image.pinned(),
            source,
        })
    }
}
