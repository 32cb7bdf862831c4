//! The configuration: a YAML file.

use std::path::PathBuf;

use serde::Deserialize;

/// All fields; unknown ones are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Its DiameterIdentity.
    pub host: String,
    /// Its Diameter realm.
    pub realm: String,
    /// IMS domain of the users.
    pub domain: String,
    /// File of subscribers: lines of `imsi,msisdn,k,opc`.
    pub subscribers: PathBuf,
    /// File of its state; it is made if it is not there.
    pub state: PathBuf,
    /// SIP URIs of the S-CSCFs for new users, who take turns.
    #[serde(default)]
    pub s_cscfs: Vec<String>,
    /// SIP URI of the application server for calls and messages.
    #[serde(default)]
    pub application_server: Option<String>,
    /// Peers that it connects to itself, as `host:port`.
    #[serde(default)]
    pub connect: Vec<String>,
    /// Port for peers.
    #[serde(default = "diameter")]
    pub port: u16,
    /// Port of `/metrics` and `/healthz`.
    #[serde(default = "metrics")]
    pub metrics_port: u16,
    /// Port on the loopback for orders.
    #[serde(default = "control")]
    pub control_port: u16,
}

fn diameter() -> u16 {
    3868
}

fn metrics() -> u16 {
    9090
}

fn control() -> u16 {
    9091
}
