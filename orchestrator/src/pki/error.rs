//! What can go wrong.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A certificate cannot be had.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file.
    #[error("{action} {}", path.display())]
    File {
        /// `read`, `write`, `make the directory`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key or certificate.
    #[error("issue the certificate {name}: if its files in the pki directory are damaged, remove them")]
    Issue {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The authority: nothing that agents and kubeconfigs trust can be made in its place.
    #[error(
        "{} {problem}. Put pki/ back from a backup (`gantry restore FILE`), or start anew with nothing (`gantry down --purge`, then `gantry up`)",
        path.display()
    )]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The list of what is not trusted any more: without it, everything would be again.
    #[error(
        "{} is damaged, or not of this authority. Put pki/ back from a backup (`gantry restore FILE`), or remove it and its copy, start, and revoke again (`gantry certs revoke NAME`)",
        path.display()
    )]
    Revoked {
        /// The file.
        path: PathBuf,
    },
    /// No certificate has this name.
    #[error("there is no client certificate {0:?}; `gantry certs list` shows those that there are")]
    Unknown(String),
    /// Rustls refuses them.
    #[error("set up TLS")]
    Tls(#[source] Box<rustls::Error>),
    /// Not a user name.
    #[error("user name {0:?} is not a DNS label (RFC 1123): use a-z, 0-9 and -")]
    UserName(String),
    /// A name that Gantry uses itself.
    #[error(
        "user name {0:?} is Gantry's own, as are \"gantry\" and all that begin with \"gantry-\": choose another"
    )]
    ReservedName(String),
    /// Not a node name.
    #[error("node name {0:?} is not a DNS name (RFC 1123): use a-z, 0-9, - and .")]
    NodeName(String),
}
