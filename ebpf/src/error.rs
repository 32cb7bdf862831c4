//! What can go wrong between userspace and the kernel.

use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;

/// Error of the datapath.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// A directory or file of the datapath could not be handled.
    #[error("cannot {operation} {path}")]
    File {
        /// Verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The BPF file system is missing in the kernel, or the caller may not mount it.
    #[error("cannot mount a BPF file system at {path}: root and a kernel with CONFIG_BPF_SYSCALL are needed")]
    Mount {
        /// Mount point.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused the object.
    #[error("cannot load the kernel programs: Linux 6.6 or later with tcx is needed")]
    Load {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is pinned was made by a version with other map layouts.
    #[error(
        "the datapath pinned at {path} has map layout {found}, this version needs {needed}: \
         stop this node's pods, purge the old datapath, start them again"
    )]
    Layout {
        /// Directory of the pins.
        path: PathBuf,
        /// Layout of the pinned maps.
        found: u32,
        /// Ours.
        needed: u32,
    },
    /// A pinned map could not be opened, read or written.
    #[error("cannot {operation} map {map}")]
    Map {
        /// Verb.
        operation: &'static str,
        /// Name of the map.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The program could not be put on an interface.
    #[error("cannot attach the program to interface {interface}")]
    Attach {
        /// Interface name.
        interface: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pinned program could not be opened.
    #[error("cannot open the pinned program {path}")]
    Program {
        /// Where it is pinned.
        path: PathBuf,
        /// Why.
        #[source]
        source: ProgramError,
    },
}
