//! Why something on the node could not be done.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use gantry_nodeagent_api::ContainerConfig;

use crate::core::{FailureKind, Limits};
use crate::host::cgroup::CgroupError;
use crate::runtime::RuntimeError;

/// With a limit on memory below this a container may not get as far as its program.
const ENOUGH_FOR_A_START_BYTES: u64 = 8 << 20;

/// Anything that can go wrong on the node.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// A shim or a pod's directory.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A control group.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A file.
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Config(String),
    /// A container's image.
    #[error("image {image} of container {container}")]
    Image {
        image: String,
        container: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A start of a container that has little memory: where the kernel ends what a start consists of, nothing else says why.
    #[error(
        "its memory limit is {bytes} bytes, which may be too little for a start ({ENOUGH_FOR_A_START_BYTES} are enough)"
    )]
    Cramped {
        bytes: u64,
        #[source]
        source: RuntimeError,
    },
    /// An error of another crate that says it all.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// Of a start within limits.
    pub(super) fn start(source: RuntimeError, limits: &Limits) -> Self {
        match limits.resources.memory_bytes {
            bytes @ 1..ENOUGH_FOR_A_START_BYTES => Self::Cramped { bytes, source },
            _ => Self::Runtime(source),
        }
    }

    pub(super) fn other(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    pub(super) fn image<E: Error + Send + Sync + 'static>(
        container: &ContainerConfig,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let (image, container) = (container.image.clone(), container.name.clone());
        move |error| Self::Image {
            image,
            container,
            source: Box::new(error),
        }
    }

    /// What it means for the container.
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            Self::Cgroup(error) if error.in_use() => FailureKind::MemoryInUse,
            Self::Image { container, .. } => FailureKind::Image {
                container: container.clone(),
            },
            Self::Config(_) => FailureKind::Config,
            _ => FailureKind::Other,
        }
    }

    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}
