//! Errors as the CNI specification (section 5, "Error") wants them: code, message, details.

use std::error::Error;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use gantry_ebpf::DatapathError;
use serde::Serialize;

use crate::netlink::NetlinkError;

/// Codes of the specification, and our own from 100 on.
mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const DECODE: u32 = 6;
    pub const CONFIG: u32 = 7;
    pub const NOT_AVAILABLE: u32 = 50;
    pub const NETLINK: u32 = 100;
    pub const DATAPATH: u32 = 101;
    pub const NFT: u32 = 102;
    pub const ADDRESS: u32 = 103;
    pub const EXISTS: u32 = 104;
    pub const CHECK: u32 = 105;
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// `cniVersion` is none of ours.
    #[error("cniVersion {found} is not supported, use one of {supported}")]
    Version { found: String, supported: String },
    /// CHECK of an interface that was never added.
    #[error("no attachment of interface {ifname} to container {container} is on record: ADD it first")]
    UnknownContainer { container: String, ifname: String },
    /// A CNI_ variable is missing or wrong.
    #[error("environment variable {variable} {problem}")]
    Environment { variable: &'static str, problem: String },
    /// A file of ours, or a kernel setting.
    #[error("cannot {operation} {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Standard input is not a network configuration.
    #[error("cannot decode the network configuration on standard input")]
    Decode(#[source] serde_json::Error),
    /// A field of the configuration is wrong.
    #[error("network configuration: {field} {problem}")]
    Config { field: &'static str, problem: String },
    /// STATUS: ADD would fail.
    #[error("not ready: {0}")]
    NotAvailable(String),
    /// The kernel refused a change of links, addresses or routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The eBPF part failed.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The masquerade table could not be set.
    #[error("nft could not change table {table}: {problem}; is the nftables package installed?")]
    Nft { table: String, problem: String },
    /// All addresses are taken.
    #[error("no free address left in {0}: remove pods or give the node a larger podCidr")]
    NoAddress(ipnet::Ipv4Net),
    /// The asked-for address belongs to another attachment.
    #[error("address {address} is held by {owner}: DEL that one first")]
    AddressInUse { address: Ipv4Addr, owner: String },
    /// ADD of what is there.
    #[error("interface {ifname} of container {container} was added before: DEL it first")]
    Exists { container: String, ifname: String },
    /// CHECK found something other than ADD made.
    #[error("{what} of container {container} is not as ADD left it: {problem}; DEL and ADD again")]
    NotAsAdded {
        what: String,
        container: String,
        problem: String,
    },
}

impl CniError {
    fn code(&self) -> u32 {
        match self {
            CniError::Version { .. } => code::INCOMPATIBLE_VERSION,
            CniError::UnknownContainer { .. } => code::UNKNOWN_CONTAINER,
            CniError::Environment { .. } => code::ENVIRONMENT,
            CniError::File { .. } => code::IO,
            CniError::Decode(_) => code::DECODE,
            CniError::Config { .. } => code::CONFIG,
            CniError::NotAvailable(_) => code::NOT_AVAILABLE,
            CniError::Netlink(_) => code::NETLINK,
            CniError::Datapath(_) => code::DATAPATH,
            CniError::Nft { .. } => code::NFT,
            CniError::NoAddress(_) | CniError::AddressInUse { .. } => code::ADDRESS,
            CniError::Exists { .. } => code::EXISTS,
            CniError::NotAsAdded { .. } => code::CHECK,
        }
    }

    /// As printed on standard output.
    pub fn report(&self, cni_version: &str) -> ErrorReport {
        let mut details = Vec::new();
        let mut source = self.source();
        while let Some(cause) = source {
            details.push(cause.to_string());
            source = cause.source();
        }
        ErrorReport {
            cni_version: cni_version.to_owned(),
            code: self.code(),
            msg: self.to_string(),
            details: details.join(": "),
        }
    }
}

/// Makes the error of a file operation.
pub fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> CniError {
    let path = path.into();
    move |source| CniError::File {
        operation,
        path,
        source,
    }
}

/// JSON form of an error.
#[derive(Debug, Serialize)]
pub struct ErrorReport {
    #[serde(rename = "cniVersion")]
    cni_version: String,
    code: u32,
    msg: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    details: String,
}
